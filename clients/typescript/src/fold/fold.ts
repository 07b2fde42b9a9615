/**
 * The fold of a session's log into its state and its transcript: PROTOCOL, section 6. Pure and deterministic: every
 * reader who folds the same entries has the same. An event that is unknown or malformed counts as nothing.
 */
import { asObject, asObjects, asString, type JsonObject } from '../json.js';
import type { Entry, LogEvent, Message, State } from '../model.js';
import type { Change } from './changes.js';
import { configured } from './config.js';
import { Ledger } from './ledger.js';
import * as approvals from './rules/approvals.js';
import * as inputs from './rules/inputs.js';
import { inputOf, type Rule } from './rules/names.js';
import * as runs from './rules/runs.js';
import * as tools from './rules/tools.js';
import { Transcript } from './transcript.js';

export interface FoldOptions {
  /** The state to begin with, as in a `session.snapshot`. */
  readonly state?: JsonObject | undefined;
  /** Its reader begins at a stored cursor: a lane's first fence that is met counts as its current one. */
  readonly partial?: boolean;
  /** How many messages are kept; all, by default. */
  readonly messageLimit?: number;
}

const NOTHING: readonly Change[] = [];
const OWNER = 'session.owner';
const LANE_ID = /^(\d{1,19})-(\d{1,19})$/;

export class Fold {
  #ledger: Ledger;
  readonly #transcript: Transcript;
  #fence = -1;
  #prefix = '';
  #counted = false;

  constructor({ state, partial = false, messageLimit }: FoldOptions = {}) {
    this.#ledger = state ? Ledger.of(state) : new Ledger(partial);
    this.#transcript = new Transcript(messageLimit);
  }

  /** The state so far. It does not change later; what is the same in the next one is the same object. */
  get state(): State {
    return this.#ledger.view();
  }

  /** The messages so far, likewise. */
  get messages(): readonly Message[] {
    return this.#transcript.view();
  }

  get partial(): boolean {
    return this.#ledger.partial;
  }

  /** Whether the last entry counted: under its lane's fence, and for the first time. */
  get counted(): boolean {
    return this.#counted;
  }

  /** One message of those so far, by its id. */
  message(id: string): Message | undefined {
    return this.#transcript.message(id);
  }

  isRunning(runId: string): boolean {
    return this.#ledger.runs.has(runId);
  }

  isQueued(inputId: string): boolean {
    return this.#ledger.queue.has(inputId);
  }

  isScheduled(inputId: string): boolean {
    return this.#ledger.scheduled.has(inputId);
  }

  /** Folds one entry, of which the caller has checked the chain; returns what somebody may wait for, in order. */
  apply(entry: Entry): readonly Change[] {
    const isClaim = entry.off === null && entry.events.length === 1 && entry.events[0]?.type === OWNER;
    const claims = isClaim && entry.lane !== null;
    this.#counted = claims || this.#admits(entry);
    if (!this.#counted) return NOTHING;
    if (entry.off !== null) {
      for (const event of entry.events) this.#transcript.apply(entry, event);
      return NOTHING;
    }
    const found: Change[] = [];
    for (const event of entry.events) {
      for (const change of this.#step(entry, event, claims)) {
        this.#tell(entry, change);
        found.push(change);
      }
    }
    // the messages of the entry that ends a run are its messages, too
    for (const change of found) {
      if (change.kind === 'ended' && change.rolledBack) this.#transcript.rollBack(change.runId);
    }
    return found;
  }

  #step(entry: Entry, event: LogEvent, claims: boolean): Change[] {
    const rules = entry.lane === null ? OF_ANYBODY : OF_OWNERS;
    if (event.type === 'session.deleted' && entry.lane === null) this.#delete();
    else if (claims) inputs.owner(this.#ledger, entry, event);
    else rules.get(event.type)?.(this.#ledger, entry, event);
    this.#transcript.apply(entry, event);
    return this.#ledger.changes.splice(0);
  }

  /** Rule 1: whether this entry counts, if it is not that of an owner. */
  #admits({ lane: name, id, off, run, events }: Entry): boolean {
    if (name === null) return true;
    if (off !== null && this.#isUnder(name, id)) return true; // a repeated delta changes nothing anyway
    const match = LANE_ID.exec(id);
    if (!match) return false;
    const fence = Number(match[1]);
    const number = Number(match[2]);
    const ledger = this.#ledger;
    if (ledger.partial && !ledger.lanes.has(name)) {
      ledger.lanes.set(name, { owner: null, fence, run: null, can: [], paused: null });
    }
    if (ledger.lanes.get(name)?.fence !== fence) return false;
    if (off !== null) return true;
    const written = ledger.written.get(name);
    if (number <= (written ?? -1)) return false;
    ledger.written.set(name, number);
    if (ledger.partial && written === undefined) this.#adopt(name, run, events);
    return true;
  }

  /** Whether a delta's id is of the lane's fence. Asked for every token: it makes nothing new. */
  #isUnder(name: string, id: string): boolean {
    const fence = this.#ledger.lanes.get(name)?.fence;
    if (fence === undefined) return false;
    if (fence !== this.#fence) {
      this.#fence = fence;
      this.#prefix = `${fence}-`;
    }
    return id.startsWith(this.#prefix) && LANE_ID.test(id);
  }

  /** A reader who began in the middle meets a lane: the entry tells of a run whose start it missed. */
  #adopt(lane: string, runId: string | null, events: Entry['events']): void {
    if (runId === null || events.some((event) => event.type === 'RUN_STARTED') || this.isRunning(runId)) return;
    const inputId = inputOf(runId);
    this.#ledger.addRun({ runId, lane, inputId, attempt: 1, cancel: null, parent: null, agent: null });
  }

  /** Rule 18: nothing is left; who waits for an input or a run is told that it is over. */
  #delete(): void {
    const before = this.#ledger;
    const outcome = { kind: 'cancelled', reason: 'deleted' };
    this.#ledger = before.cleared();
    this.#ledger.changes.push(
      ...Array.from(
        [...before.queue.keys(), ...before.scheduled.keys()],
        (inputId): Change => ({ kind: 'dropped', inputId, code: 'deleted' }),
      ),
      ...Array.from(before.runs.keys(), (runId): Change => ({ kind: 'ended', runId, outcome, rolledBack: false })),
      { kind: 'emptied' },
    );
  }

  /** What a change of the state is to the transcript. */
  #tell({ seq, lane, run }: Entry, change: Change): void {
    const transcript = this.#transcript;
    switch (change.kind) {
      case 'applied':
        if (change.messageId !== null && change.source) {
          transcript.addInput(seq, change.messageId, change.source, { lane, run, role: 'user' });
        }
        return;
      case 'spoken': {
        const { inputId, source, role } = change;
        return transcript.addInput(seq, `msg_${inputId}`, source, { lane: source.lane, run: null, role });
      }
      case 'ended':
        return transcript.endLane(lane);
      case 'emptied':
        return transcript.clear();
      case 'imported':
        return transcript.importMessages(seq, change.messages);
    }
  }
}

// ---- rules 17 and 19: what a session is told about itself

const updated: Rule = (ledger, _entry, event) => {
  ledger.title = asString(event['title']) ?? ledger.title;
  ledger.metadata = asObject(event['metadata']) ?? ledger.metadata;
  if (asObject(event['config'])) ledger.config = configured(ledger.config, event['config']);
};

const created: Rule = (ledger, entry, event) => {
  if (!ledger.created) updated(ledger, entry, event);
  ledger.created = true;
};

const closed =
  (isClosed: boolean): Rule =>
  (ledger) => {
    ledger.closed = isClosed;
  };

const imported: Rule = (ledger, _entry, event) => {
  if (ledger.seen.size || !(ledger.partial || !ledger.lanes.size)) return;
  ledger.changes.push({ kind: 'imported', messages: asObjects(event['messages']) });
};

/** Maps, because an event's type is whatever the log says. */
const OF_ANYBODY: ReadonlyMap<string, Rule> = new Map(
  Object.entries({
    ...inputs.OF_ANYBODY,
    ...runs.OF_ANYBODY,
    ...tools.OF_ANYBODY,
    ...approvals.OF_ANYBODY,
    'session.created': created,
    'session.updated': updated,
    'session.closed': closed(true),
    'session.reopened': closed(false),
    'messages.imported': imported,
  }),
);

const OF_OWNERS: ReadonlyMap<string, Rule> = new Map(
  Object.entries({ ...inputs.OF_OWNERS, ...runs.OF_OWNERS, ...tools.OF_OWNERS, ...approvals.OF_OWNERS }),
);
