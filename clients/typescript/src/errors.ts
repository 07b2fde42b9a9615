/**
 * Every error of this package, in one tree.
 *
 *     AntiphonError          code, message, retryable, data
 *     ├── CommandRefused     the gateway answered a command with an `error`: nothing was stored
 *     ├── InputNotApplied    a stored input will never enter the transcript
 *     └── ConnectionClosed   there is no connection, and there will be none
 *
 * A dropped socket is not an error: the client comes back and goes on. A wait that is aborted rejects with the signal's
 * reason.
 */
import { asString, type JsonObject } from './json.js';
import { readPause } from './protocol.js';

/** `code` is a word of the protocol's tables, or one of this package: see the README. */
export class AntiphonError extends Error {
  override readonly name: string = 'AntiphonError';

  constructor(
    readonly code: string,
    message = '',
    /** Whether the same call may succeed later. */
    readonly retryable = false,
    /** Whatever else came with it, for example `right`, `field`, `path` or `by`. */
    readonly data: JsonObject = {},
  ) {
    super(message ? `${code}: ${message}` : code);
  }

  /** The pause that the gateway asks for; null if it asks for none. */
  get retryAfterMs(): number | null {
    return readPause(this.data);
  }
}

export class CommandRefused extends AntiphonError {
  override readonly name = 'CommandRefused';
}

/**
 * `code` says why: `cancelled` (taken back in time), `superseded` (the sender's next one took its place), that of a
 * refusal of `input.send`, or that of the owner's `input.failed`.
 */
export class InputNotApplied extends AntiphonError {
  override readonly name = 'InputNotApplied';
}

/** `unauthorized`, `token_expired`, `closed` (by this program), or what the gateway's close frame said. */
export class ConnectionClosed extends AntiphonError {
  override readonly name = 'ConnectionClosed';

  constructor(
    code: string,
    message = '',
    readonly closeCode: number | null = null,
  ) {
    super(code, message);
  }
}

/** The error of an `error` frame; fields that it lacks get harmless values. */
export function refusal(frame: JsonObject): CommandRefused {
  const { op: _op, id: _id, code, message, retryable, ...data } = frame;
  return new CommandRefused(asString(code) ?? 'internal', asString(message) ?? '', retryable === true, data);
}
