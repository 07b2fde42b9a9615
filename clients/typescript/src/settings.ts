/** The limits and times of a client, in one place. */
export interface Settings {
  /** Commands that may wait for their reply, through an outage too; more are refused with `command_queue_full`. */
  readonly pendingCommands: number;
  /** How often one command is put on a socket before it fails: the connection died each time. */
  readonly commandSends: number;
  /** How often a command is repeated that the gateway refused as `unavailable` and the like. */
  readonly commandRetries: number;

  /** Events of one session that wait for `events()`. */
  readonly bufferEvents: number;
  /** The same, by the length of their frames (one frame may pass it). */
  readonly bufferChars: number;
  /** Messages kept in a session's `messages`; the oldest go first, `history()` has them. */
  readonly transcriptMessages: number;
  /** How often one place is read again because the chain broke there, before `chain_broken`. */
  readonly chainRetries: number;

  /** Calls of tools that one session executes at once; more are left to others, or wait. */
  readonly toolExecutions: number;
  /** How long a claim lasts (1,000 to 120,000); it is renewed every third of that. */
  readonly toolLeaseMs: number;
  /** How often a call is claimed that is not for this client yet, before it is left to others. */
  readonly toolClaims: number;
  /** How long closing may take to let go of the calls that are being executed. */
  readonly toolReleaseMs: number;

  /** How long one attempt may take, from the TCP connection to `welcome`; and how long a token provider may. */
  readonly connectTimeoutMs: number;
  /** How soon a gateway must answer when there is reason to doubt the connection (a sleep, another network). */
  readonly livenessTimeoutMs: number;
  readonly backoffBaseMs: number;
  readonly backoffCapMs: number;
  /** A connection that lasted this long, or brought anything new, resets the back-off. */
  readonly stableAfterMs: number;
  /** A provider's token is renewed this long before it expires (or at half its life). */
  readonly refreshBeforeMs: number;
  /** How long a session that nobody holds any more (`hold`) is still read: a component that is mounted twice keeps it. */
  readonly lingerMs: number;
}

export const DEFAULT_SETTINGS: Settings = {
  pendingCommands: 256,
  commandSends: 32,
  commandRetries: 5,
  bufferEvents: 1024,
  bufferChars: 4 * 1024 * 1024,
  transcriptMessages: 10_000,
  chainRetries: 8,
  toolExecutions: 8,
  toolLeaseMs: 15_000,
  toolClaims: 6,
  toolReleaseMs: 2000,
  connectTimeoutMs: 10_000,
  livenessTimeoutMs: 4000,
  backoffBaseMs: 250,
  backoffCapMs: 30_000,
  stableAfterMs: 10_000,
  refreshBeforeMs: 30_000,
  lingerMs: 1000,
};
