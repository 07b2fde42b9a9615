/** What a client is told when it is made, and what it tells of itself. */
import type { AntiphonError } from './errors.js';
import type { JsonObject } from './json.js';
import type { Actor, Handoff } from './model.js';
import type { Settings } from './settings.js';

/** Answers with a valid token. It is asked when there is none, when a gateway refuses the present one, and some time
 * before that expires; never twice at once. */
export type TokenProvider = () => string | Promise<string>;

/** What is used of a WebSocket: that of browsers and of Node 22 and later, or `WebSocket` of the package `ws`. */
export type WebSocketConstructor = new (url: string, protocols: string) => WebSocketLike;

export interface WebSocketLike {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number): void;
  /** Of `ws`, not of browsers. */
  pause?(): void;
  resume?(): void;
}

export interface ClientOptions {
  /** A gateway's address (`https://host`), or several that are tried in turn; on a page, its own origin without. */
  readonly url?: string | readonly string[];
  readonly token: string | TokenProvider;
  /** Names this program in the gateway's log. */
  readonly name?: string;
  /** Names this device in presence and to tools that are for one device alone; keep it to be the same after a reload. */
  readonly device?: string;
  readonly settings?: Partial<Settings>;
  /** Needed where there is no global `WebSocket` (Node 20). */
  readonly WebSocket?: WebSocketConstructor;
  /** Random numbers in [0, 1), for the back-off. */
  readonly random?: () => number;
}

/** How the connection is doing. */
export interface ConnectionStatus {
  readonly phase: 'idle' | 'connecting' | 'open' | 'waiting' | 'stopped';
  /** While `waiting`: when the next attempt is made, in ms since 1970. */
  readonly retryAt: number | null;
  /** The gateway cannot reach the log: nothing new comes, and commands wait. */
  readonly isLogAway: boolean;
  /** Why the client has stopped. */
  readonly error: AntiphonError | null;
}

/** What a list says of a session; `updatedAt` is when this user was last active there, to half a minute. */
export interface SessionInfo {
  readonly session: string;
  readonly title: string | null;
  readonly metadata: JsonObject;
  readonly createdBy: Actor | null;
  readonly updatedAt: number | null;
  readonly status: string;
}

export interface WaitingHandoff extends Handoff {
  readonly session: string;
}

export const IDLE: ConnectionStatus = { phase: 'idle', retryAt: null, isLogAway: false, error: null };
