/** Client of Antiphon sessions. See the README, and docs/PROTOCOL.md for what the words mean. */
export { AntiphonClient } from './client.js';
export * from './core.js';
export type { Applied, Change, Outcome } from './fold/changes.js';
export { Fold, type FoldOptions } from './fold/fold.js';
export type { Sending, SessionView } from './following.js';
export type { Receipt } from './receipts.js';
export type { FoldListener, Session, SessionOptions } from './session.js';
export type { DeclaredTool, Execution, Tool } from './tools.js';
