/**
 * What the rules of the fold read and write: the state, and what it takes to go on folding. Its parts are immutable and
 * replaced as a whole, so that a view of the state shares all that has not changed.
 */
import { asObject, asString, type JsonObject, readAll } from '../json.js';
import type {
  Actor,
  Approval,
  Call,
  Config,
  Handoff,
  Input,
  Lane,
  Run,
  Scheduled,
  State,
  Status,
  Vote,
} from '../model.js';
import type { Change } from './changes.js';
import { configured, DEFAULT_CONFIG } from './config.js';
import { readApproval, readCall, readHandoff, readInput, readLane, readRun, readScheduled, readVote } from './read.js';

export const MAIN = 'main';
const MAX_REMEMBERED = 256;
const MAX_ENDED = 64;

/** What a running run has had, so that no id of it counts twice. */
export interface Past {
  readonly calls: Set<string>;
  readonly approvals: Set<string>;
  readonly handoffs: Set<string>;
}

/** An input that ended; of one that was taken back, by whom. */
interface Ended {
  readonly inputId: string;
  readonly takenBack: { readonly by: Actor | null } | null;
}

export class Ledger {
  title: string | null = null;
  metadata: JsonObject = {};
  config: Config = DEFAULT_CONFIG;
  created = false;
  closed = false;
  lanes = new Map<string, Lane>();
  runs = new Map<string, Run>();
  queue = new Map<string, Input>();
  /** By their time, then by their place in the log. */
  scheduled = new Map<string, Scheduled>();
  calls = new Map<string, Call>();
  approvals = new Map<string, Approval>();
  handoffs = new Map<string, Handoff>();
  remembered = new Map<string, Vote>();
  seen = new Set<string>();
  /** The agents that inputs and runs were asked of, and those (inputs and runs) that are detached: no part of a snapshot. */
  agents = new Map<string, string>();
  detached = new Set<string>();
  past = new Map<string, Past>();
  /** Of each lane: the highest number of a record under its fence. */
  written = new Map<string, number>();
  /** What the event being folded has done so far. */
  changes: Change[] = [];
  #ended: Ended[] = [];
  #view: State | null = null;

  /** `partial`: its reader began at a stored cursor, and has not seen which fence is a lane's current one. */
  constructor(readonly partial: boolean) {}

  static of(raw: JsonObject): Ledger {
    const ledger = new Ledger(false);
    ledger.title = asString(raw['title']);
    ledger.metadata = asObject(raw['metadata']) ?? {};
    ledger.config = configured(DEFAULT_CONFIG, raw['config']);
    ledger.closed = raw['status'] === 'closed';
    for (const [name, each] of Object.entries(asObject(raw['lanes']) ?? {})) {
      const lane = readLane(asObject(each) ?? {});
      if (lane) ledger.lanes.set(name, lane);
    }
    for (const [key, each] of Object.entries(asObject(raw['remembered']) ?? {})) {
      const decision = readVote(asObject(each) ?? {});
      if (decision) ledger.remembered.set(key, decision);
    }
    for (const run of readAll(raw['runs'], readRun)) {
      ledger.addRun(run);
      ledger.seen.add(run.inputId ?? '');
    }
    for (const waiting of readAll(raw['inputs'], readInput)) {
      ledger.queue.set(waiting.inputId, waiting);
      ledger.seen.add(waiting.inputId);
    }
    for (const planned of readAll(raw['scheduled'], readScheduled)) {
      ledger.plan(planned);
      ledger.seen.add(planned.inputId);
    }
    for (const call of readAll(raw['calls'], readCall)) ledger.addCall(call);
    for (const approval of readAll(raw['approvals'], readApproval)) ledger.addApproval(approval);
    for (const handoff of readAll(raw['handoffs'], readHandoff)) ledger.addHandoff(handoff);
    return ledger;
  }

  get #status(): Status {
    if (this.closed) return 'closed';
    if (some(this.lanes, (lane) => lane.paused !== null)) return 'paused';
    if (this.approvals.size || this.handoffs.size || some(this.calls, (call) => call.executor === 'client')) {
      return 'requires_action';
    }
    if (this.runs.size || this.queue.size) return 'running';
    return this.humanIn(MAIN) === undefined ? 'idle' : 'human';
  }

  /** The state; the same object, and the same parts, as far as nothing has changed. */
  view(): State {
    const last = this.#view;
    const next: State = {
      status: this.#status,
      title: this.title,
      metadata: this.metadata,
      config: this.config,
      lanes: sharedObject(last?.lanes, this.lanes),
      runs: sharedList(last?.runs, this.runs),
      inputs: sharedList(last?.inputs, this.queue),
      scheduled: sharedList(last?.scheduled, this.scheduled),
      calls: sharedList(last?.calls, this.calls),
      approvals: sharedList(last?.approvals, this.approvals),
      handoffs: sharedList(last?.handoffs, this.handoffs),
      remembered: sharedObject(last?.remembered, this.remembered),
    };
    const isSame = last && (Object.keys(next) as (keyof State)[]).every((field) => last[field] === next[field]);
    if (isSame) return last;
    this.#view = next;
    return next;
  }

  /** Nothing is left, and everything is known. */
  cleared(): Ledger {
    const empty = new Ledger(false);
    empty.#view = this.#view;
    return empty;
  }

  /** Who took an input back, if that is what became of it, not long ago. */
  takenBack(inputId: string): { readonly by: Actor | null } | null {
    return this.#ended.findLast((end) => end.inputId === inputId)?.takenBack ?? null;
  }

  end(inputId: string, takenBack: { readonly by: Actor | null } | null = null): void {
    this.#ended.push({ inputId, takenBack });
    if (this.#ended.length > MAX_ENDED) this.#ended.shift();
  }

  runIn(lane: string | null): Run | undefined {
    const runId = lane === null ? null : this.lanes.get(lane)?.run;
    return runId == null ? undefined : this.runs.get(runId);
  }

  /** The id of the human who has the lane; undefined if none has. */
  humanIn(lane: string): string | undefined {
    const owner = this.lanes.get(lane)?.owner;
    return owner?.kind === 'user' ? (owner.id ?? undefined) : undefined;
  }

  waitingIn(lane: string): Input[] {
    return [...this.queue.values()].filter((waiting) => waiting.lane === lane);
  }

  plan(planned: Scheduled): void {
    const every = [...this.scheduled.values(), planned].sort((one, other) => one.at - other.at || one.seq - other.seq);
    this.scheduled = new Map(every.map((each) => [each.inputId, each]));
  }

  addRun(run: Run): void {
    const lane = this.lanes.get(run.lane);
    if (lane) this.lanes.set(run.lane, { ...lane, run: run.runId });
    this.runs.set(run.runId, run);
    this.past.set(run.runId, newPast());
  }

  addCall(call: Call): void {
    this.calls.set(call.toolCallId, call);
    this.#pastOf(call.runId).calls.add(call.toolCallId);
  }

  addApproval(approval: Approval): void {
    this.approvals.set(approval.approvalId, approval);
    this.#pastOf(approval.runId).approvals.add(approval.approvalId);
  }

  addHandoff(handoff: Handoff): void {
    this.handoffs.set(handoff.handoffId, handoff);
    this.#pastOf(handoff.runId).handoffs.add(handoff.handoffId);
  }

  #pastOf(runId: string): Past {
    const past = this.past.get(runId) ?? newPast();
    this.past.set(runId, past);
    return past;
  }

  /** Keeps what was decided for always; the oldest goes. */
  remember(key: string, decision: Vote): void {
    this.remembered.delete(key);
    this.remembered.set(key, decision);
    if (this.remembered.size > MAX_REMEMBERED) {
      for (const oldest of this.remembered.keys()) {
        this.remembered.delete(oldest);
        break;
      }
    }
  }
}

const newPast = (): Past => ({ calls: new Set(), approvals: new Set(), handoffs: new Set() });

const some = <T>(map: ReadonlyMap<string, T>, holds: (value: T) => boolean) => [...map.values()].some(holds);

function sharedList<T>(last: readonly T[] | undefined, now: ReadonlyMap<string, T>): readonly T[] {
  if (last?.length === now.size) {
    let n = 0;
    for (const value of now.values()) if (last[n++] !== value) return [...now.values()];
    return last;
  }
  return [...now.values()];
}

function sharedObject<T>(last: { readonly [key: string]: T } | undefined, now: ReadonlyMap<string, T>) {
  if (last && Object.keys(last).length === now.size) {
    let isSame = true;
    for (const [key, value] of now) isSame &&= Object.hasOwn(last, key) && last[key] === value;
    if (isSame) return last;
  }
  return Object.fromEntries(now);
}
