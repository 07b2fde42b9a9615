/** The state of a session and its parts, as in a snapshot (PROTOCOL, sections 3 and 6). All times are ms since 1970. */
import type { JsonObject } from './json.js';

/** Somebody who has written an entry: `kind` is `user`, `agent` or `system`. */
export interface Actor {
  readonly kind: string;
  readonly id: string;
  readonly name?: string;
  readonly roles?: readonly string[];
  /** A label of the agent's version, if its worker names one. */
  readonly version?: string;
}

/** What becomes of an input while a run is active. */
export type Mode = 'auto' | 'inject' | 'enqueue' | 'interrupt' | 'rollback' | 'reject';

/** What the people of one role may do; null is no limit. */
export interface RoleLimits {
  readonly modes: readonly Mode[] | null;
  readonly maxQueue: number | null;
  readonly cancel: boolean;
}

/** How a session deals with inputs, approvals and being unwatched. */
export interface Config {
  readonly onBusy: Mode;
  readonly coalesce: 'none' | 'merge' | 'latest';
  readonly maxQueue: number;
  readonly approvalOnInput: 'wait' | 'cancel';
  readonly whenUnwatched: 'continue' | 'pause' | 'stop';
  readonly unwatchedGraceMs: number;
  readonly pool: string | null;
  /** Which sessions of a pool workers serve first; absent: `normal`. */
  readonly priority?: 'high' | 'low';
  readonly roles: { readonly [role: string]: RoleLimits };
}

/** One writer's place in the session. */
export interface Lane {
  /** Null if nobody writes there. */
  readonly owner: { readonly kind: string; readonly id: string | null } | null;
  readonly fence: number;
  /** The id of the run that is running there. */
  readonly run: string | null;
  /** Has `inject` if the agent takes inputs in the middle of a run. */
  readonly can: readonly string[];
  /** The reason for which the run is held; null while it is not. */
  readonly paused: string | null;
}

/** How a run is to stop, for whom and why. */
export interface Cancel {
  readonly mode: string;
  readonly by: Actor | null;
  readonly reason: string;
}

/** A running run. */
export interface Run {
  readonly runId: string;
  readonly lane: string;
  readonly inputId: string | null;
  readonly attempt: number;
  readonly cancel: Cancel | null;
  /** The run that asked for it. */
  readonly parent: string | null;
  readonly agent: string | null;
}

/** A message that waits, with the mode it got. */
export interface Input {
  readonly inputId: string;
  readonly seq: number;
  readonly ts: number;
  readonly by: Actor | null;
  readonly content: string;
  readonly mode: string;
  readonly lane: string;
  /** The run that asks; null for a participant's. */
  readonly parent: string | null;
  /** What belongs to it; absent where nothing does. */
  readonly attachments?: readonly Attachment[];
}

/** A message that is sent later, at `at`; `mode` is what its sender wishes, null if nothing. */
export interface Scheduled {
  readonly inputId: string;
  readonly seq: number;
  readonly ts: number;
  readonly by: Actor | null;
  readonly content: string;
  readonly at: number;
  readonly mode: string | null;
  /** What belongs to it; absent where nothing does. */
  readonly attachments?: readonly Attachment[];
}

/** Who is executing a call, until when. */
export interface Claim {
  readonly claimId: string;
  readonly by: Actor | null;
  readonly device: string | null;
  readonly expiresAt: number;
}

/** An open call of a tool; `executor` is `client` or `agent`. */
export interface Call {
  readonly toolCallId: string;
  readonly lane: string;
  readonly runId: string;
  readonly name: string;
  readonly args: unknown;
  readonly executor: string;
  readonly idempotent: boolean;
  readonly participant: string | null;
  readonly device: string | null;
  readonly anyAfter: number | null;
  readonly deadline: number | null;
  readonly claim: Claim | null;
}

/** What somebody said to a pending approval. */
export interface Vote {
  readonly by: Actor | null;
  readonly option: string;
}

/** A decision (`kind` `approval`) or an answer (`question`) that a run waits for. */
export interface Approval {
  readonly approvalId: string;
  readonly kind: string;
  readonly lane: string;
  readonly runId: string;
  readonly message: string;
  readonly options: readonly string[];
  readonly default: string | null;
  readonly expiresAt: number | null;
  readonly toolCallId: string | null;
  readonly key: string | null;
  readonly roles: readonly string[];
  readonly quorum: number;
  readonly responseSchema: unknown;
  readonly details: unknown;
  readonly votes: readonly Vote[];
}

/** A hand-over that waits for a human with the role `to`. */
export interface Handoff {
  readonly handoffId: string;
  readonly lane: string;
  readonly runId: string;
  readonly to: string;
  readonly reason: string;
  readonly summary: string;
  readonly expiresAt: number | null;
}

export type Status = 'closed' | 'paused' | 'requires_action' | 'running' | 'human' | 'idle';

/** The folded state. It never changes: the next one shares what has stayed the same. */
export interface State {
  readonly status: Status;
  readonly title: string | null;
  readonly metadata: JsonObject;
  readonly config: Config;
  readonly lanes: { readonly [lane: string]: Lane };
  /** The running runs, in the order of their start. */
  readonly runs: readonly Run[];
  /** The inputs that wait, next first. */
  readonly inputs: readonly Input[];
  /** The inputs that are sent later, next first. */
  readonly scheduled: readonly Scheduled[];
  readonly calls: readonly Call[];
  readonly approvals: readonly Approval[];
  readonly handoffs: readonly Handoff[];
  /** What was decided for always, by key. */
  readonly remembered: { readonly [key: string]: Vote };
}

/** An attachment, as messages refer to it: `Session.download` gives its bytes. `sha256` is in hexadecimal digits. */
export interface Attachment {
  readonly id: string;
  readonly name: string;
  readonly mediaType: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * A message as it stands.
 *
 * `role` is `user`, `assistant`, `reasoning`, `tool_call` (its text is the arguments so far), `tool`, or what the
 * agent says. `reason` says how a text ended: `complete`, `cancelled`, `worker_lost`, `error` or `handed_over`.
 */
export interface Message {
  readonly id: string;
  readonly role: string;
  readonly by: Actor | null;
  readonly lane: string | null;
  readonly run: string | null;
  readonly text: string;
  readonly status: 'streaming' | 'done';
  readonly reason: string | null;
  /** The tool of a `tool_call`. */
  readonly name?: string;
  /** The call of a `tool` message. */
  readonly toolCallId?: string;
  /** The entry that added it. */
  readonly seq?: number;
  /** It is no part of the conversation any more. */
  readonly rolledBack?: true;
  /** What belongs to it; absent where nothing does. */
  readonly attachments?: readonly Attachment[];
}

/** An AG-UI event, or one of a session. */
export interface LogEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** One entry of a session's log (section 4). */
export interface Entry {
  readonly type: 'entry';
  /** The cursor to store once this entry is handled. */
  readonly cursor: string;
  readonly seq: number;
  readonly prev: number;
  readonly id: string;
  readonly ts: number;
  readonly lane: string | null;
  readonly run: string | null;
  readonly by: Actor | null;
  /** Of deltas: where their text belongs, in Unicode code points. */
  readonly off: number | null;
  /** In replay: how many entries this frame joins. */
  readonly merged: number | null;
  readonly events: readonly LogEvent[];
}
