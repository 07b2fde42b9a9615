/** What an event did that somebody may wait for: receipts, and the transcript. */
import type { JsonObject } from '../json.js';
import type { Input } from '../model.js';

/**
 * How a run ended. `kind` is `success`, `cancelled` (for `reason`), `error` (with `code` and `message`), `no_run` (the
 * input went to a human, who has the lane), or `unknown` (its end lies before what this client has read).
 */
export interface Outcome {
  readonly kind: string;
  readonly code?: string | null;
  readonly message?: string | null;
  readonly reason?: string | null;
}

/**
 * An input has entered the transcript, as the message `messageId`. `runId` is the run it went into; null if it went to
 * a human. `source` is the input as it waited, null if it did not.
 */
export interface Applied {
  readonly kind: 'applied';
  readonly inputId: string;
  readonly runId: string | null;
  readonly messageId: string | null;
  readonly source: Input | null;
}

export type Change =
  | Applied
  /** An input was a message at once, because a human has the lane; `role` is that of the message. */
  | { readonly kind: 'spoken'; readonly inputId: string; readonly source: Input; readonly role: string }
  /** An input that was scheduled is sent: from here on it is as any other. */
  | { readonly kind: 'due'; readonly inputId: string }
  /** An input will not be applied. */
  | { readonly kind: 'dropped'; readonly inputId: string; readonly code: string }
  | { readonly kind: 'ended'; readonly runId: string; readonly outcome: Outcome; readonly rolledBack: boolean }
  /** The session was deleted. */
  | { readonly kind: 'emptied' }
  /** The session begins with messages of another. */
  | { readonly kind: 'imported'; readonly messages: readonly JsonObject[] };
