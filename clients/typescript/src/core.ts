/** The client without the fold of sessions: connections, events, sends and commands. */
export type { UploadOptions } from './attachments.js';
export { CoreClient, CoreClientOf } from './core-client.js';
export { CoreSession, type ReadingOptions, type SendOptions, type Stored } from './core-session.js';
export { AntiphonError, CommandRefused, ConnectionClosed, InputNotApplied } from './errors.js';
export type { JsonObject } from './json.js';
export type * from './model.js';
export type {
  ClientOptions,
  ConnectionStatus,
  SessionInfo,
  TokenProvider,
  WaitingHandoff,
  WebSocketConstructor,
  WebSocketLike,
} from './options.js';
export type { Device, Limits, Participant, Presence, PresenceState, Welcome } from './protocol.js';
export { readEntry } from './protocol.js';
export type { Settings } from './settings.js';
export type { About, HistoryPage } from './steering.js';
export type { CaughtUp, Gap, Reset, SessionEvent, Snapshot } from './subscription.js';
