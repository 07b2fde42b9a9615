/** Sessions for pages with the AI SDK, versions 5, 6 and 7. See the README. */
export type { AnswerMetadata, CommonChunk, UIMessageLike, UIPart } from './chunks.js';
export { type ChatHandle, type InStep, keepInStep } from './in-step.js';
export { AntiphonChatTransport, type TransportOptions } from './transport.js';
