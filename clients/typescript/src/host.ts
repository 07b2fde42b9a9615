/** What a session needs of the client it belongs to. */
import type { AntiphonError } from './errors.js';
import type { JsonObject } from './json.js';
import type { Cursor, PresenceState } from './protocol.js';
import type { Settings } from './settings.js';
import type { Subscription } from './subscription.js';

export interface Host {
  readonly settings: Settings;
  /** Why the client has stopped; null while it has not. */
  readonly failure: AntiphonError | null;
  /** Sends a command until it is answered; resolves with the `ok`, rejects with the refusal. */
  call(frame: JsonObject, signal?: AbortSignal, gate?: string): Promise<JsonObject>;
  /** A request to a gateway over HTTP, with the client's token. */
  request(path: string, init: RequestInit): Promise<Response>;
  /** Somebody wants the session to be read, from now on. */
  follow(sub: Subscription): void;
  /** Reads it again from a place. */
  rewind(sub: Subscription, after: Cursor | null): void;
  /** It is closed. */
  forget(sub: Subscription): void;
  say(session: string, state: PresenceState): void;
  /** Leaves the socket unread if nobody waits for it, or reads it again; nothing where sockets cannot be (browsers). */
  hold(isHeld: boolean): void;
}
