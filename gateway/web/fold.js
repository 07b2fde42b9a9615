// @ts-check
/**
 * The fold of a session's log into its state and its transcript: docs/PROTOCOL.md, section 6.
 * No DOM, no clock, no network: the conformance cases run on this file and `fold/` alone.
 *
 * @typedef {{kind: string, id?: string, name?: string, roles?: string[]}} Actor
 * @typedef {{type: string, [field: string]: any}} Event
 * @typedef {{seq: number, prev: number, id: string, lane?: string, run?: string, ts: number,
 *            by?: Actor, off?: number, events: Event[]}} Entry
 * @typedef {{inputId: string, seq: number, ts: number, by: Actor | null, content: string, mode: string,
 *            lane: string, parent: string | null, agent?: string | null, detached?: boolean}} Input
 * @typedef {{mode: string, by: Actor | null, reason: string}} Cancel
 * @typedef {{runId: string, lane: string, inputId: string, attempt: number, cancel: Cancel | null,
 *            parent: string | null, agent: string | null, detached?: boolean}} Run
 * @typedef {{owner: Actor | null, fence: number, run: string | null, can: string[],
 *            paused: string | null}} Lane
 * @typedef {{claimId: string, by: Actor | null, device: string | null, expiresAt: number}} Claim
 * @typedef {{toolCallId: string, lane: string, runId: string, name: string, args: any, executor: string,
 *            idempotent: boolean, participant: string | null, device: string | null,
 *            anyAfter: number | null, deadline: number | null, claim: Claim | null,
 *            isOpen: boolean, progress: any}} Call
 * @typedef {{approvalId: string, kind: string, lane: string, runId: string, message: string,
 *            options: string[], default: string | null, expiresAt: number | null,
 *            toolCallId: string | null, key: string | null, roles: string[], quorum: number,
 *            responseSchema: any, details: any, votes: {by: Actor | null, option: string}[],
 *            isPending: boolean}} Approval
 * @typedef {{handoffId: string, lane: string, runId: string, to: string, reason: string,
 *            summary: string, expiresAt: number | null, isWaiting: boolean}} Handoff
 * @typedef {{option: string, by: Actor | null}} Remembered
 * @typedef {Record<string, any>} State as it goes over the wire
 * @typedef {{id: string, role: string, by: Actor | null, lane: string | null, run: string | null,
 *            text: string, status: 'streaming' | 'done', reason: string | null, name?: string,
 *            toolCallId?: string, rolledBack?: boolean, seq?: number, ts?: number}} WireMessage
 * @typedef {WireMessage & {points: number}} Message `points`: the text's length in code points
 * @typedef {{takenOver: string | null, error: {code: string, message: string} | null,
 *            errorAt: string | null}} RunNote
 * @typedef {{status: string, by?: Actor | null}} CallNote `status`: `done`, or why there is no result
 * @typedef {(fold: Fold, event: Event, entry: Entry) => void} Rule
 */
import * as approvals from './fold/approvals.js';
import * as calls from './fold/calls.js';
import { DEFAULTS, configured, isObject } from './fold/config.js';
import * as inputs from './fold/inputs.js';
import * as runs from './fold/runs.js';
import { Transcript } from './fold/transcript.js';

/** The id of a lane's write: its fence and its number under it. */
const WRITE_ID = /^([0-9]{1,18})-([0-9]{1,18})$/;

export class Fold {
  /** @type {string | null} */ title = null;
  /** @type {Record<string, any>} */ metadata = {};
  config = DEFAULTS;
  isCreated = false;
  isClosed = false;
  /** @type {Map<string, Lane & {lastWrite: number}>} */ lanes = new Map();
  /** @type {Run[]} */ runs = [];
  /** @type {Input[]} */ inputs = [];
  /** Of runs that are running. @type {Map<string, Call>} */ calls = new Map();
  /** Of runs that are running. @type {Map<string, Approval>} */ approvals = new Map();
  /** Of runs that are running. @type {Map<string, Handoff>} */ handoffs = new Map();
  /** Oldest first. @type {Map<string, Remembered>} */ remembered = new Map();
  transcript = new Transcript();
  /** Every input seen; false: refused. @type {Map<string, boolean>} */ seenInputs = new Map();
  /** Inputs taken out of the queue: their run may still start, in a race.
   * @type {Map<string, Cancel>} */ takenBack = new Map();
  /** What the transcript does not say about a run: who took it over, how it failed.
   * @type {Map<string, RunNote>} */ runNotes = new Map();
  /** What became of calls, for the reader. @type {Map<string, CallNote>} */ callNotes = new Map();

  /** @param {State} [state] the folded state to go on from (of a `session.snapshot`) */
  constructor(state) {
    if (!state) return;
    this.title = state.title ?? null;
    this.metadata = state.metadata ?? {};
    this.config = configured(DEFAULTS, state.config);
    this.isClosed = state.status === 'closed';
    for (const [name, lane] of Object.entries(state.lanes ?? {})) {
      this.lanes.set(name, { can: [], paused: null, ...lane, lastWrite: 0 });
    }
    this.runs = copied(state.runs);
    this.inputs = copied(state.inputs);
    for (const input of this.inputs) this.seenInputs.set(input.inputId, true);
    for (const call of copied(state.calls)) this.calls.set(call.toolCallId, { ...call, isOpen: true, progress: null });
    for (const approval of copied(state.approvals)) {
      this.approvals.set(approval.approvalId, { ...approval, votes: [...approval.votes], isPending: true });
    }
    for (const handoff of copied(state.handoffs)) this.handoffs.set(handoff.handoffId, { ...handoff, isWaiting: true });
    this.remembered = new Map(Object.entries(state.remembered ?? {}));
  }

  get messages() {
    return this.transcript.messages;
  }

  get changed() {
    return this.transcript.changed;
  }

  get openCalls() {
    return [...this.calls.values()].filter((call) => call.isOpen);
  }

  get pendingApprovals() {
    return [...this.approvals.values()].filter((approval) => approval.isPending);
  }

  get waitingHandoffs() {
    return [...this.handoffs.values()].filter((handoff) => handoff.isWaiting);
  }

  /** The first that holds. */
  get status() {
    if (this.isClosed) return 'closed';
    if ([...this.lanes.values()].some((lane) => lane.paused !== null)) return 'paused';
    const isClientWanted = this.openCalls.some((call) => call.executor === 'client');
    if (isClientWanted || this.pendingApprovals.length || this.waitingHandoffs.length) return 'requires_action';
    if (this.runs.length || this.inputs.length) return 'running';
    return inputs.humanIn(this, 'main') ? 'human' : 'idle';
  }

  /** @returns {State} the state in its wire form */
  state() {
    const { title, metadata, config, status } = this;
    return { status, title, metadata, config,
      lanes: Object.fromEntries([...this.lanes].map(([name, { lastWrite, ...lane }]) => [name, lane])),
      runs: this.runs.map(({ detached, ...run }) => run),
      inputs: this.inputs.map(({ agent, detached, ...input }) => input),
      calls: this.openCalls.map(({ isOpen, progress, ...call }) => call),
      approvals: this.pendingApprovals.map(({ isPending, ...approval }) => approval),
      handoffs: this.waitingHandoffs.map(({ isWaiting, ...handoff }) => handoff),
      remembered: Object.fromEntries(this.remembered) };
  }

  /** @param {string} id @returns {Message | undefined} */
  message(id) {
    return this.transcript.get(id);
  }

  /** @param {string} lane @returns {Run | undefined} */
  runIn(lane) {
    const runId = this.lanes.get(lane)?.run ?? null;
    return runId === null ? undefined : this.runs.find((run) => run.runId === runId);
  }

  /** @param {string} id @returns {Call | undefined} */
  openCall(id) {
    const call = this.calls.get(id);
    return call?.isOpen ? call : undefined;
  }

  /** @param {string} inputId @returns {boolean} whether the log has shown it, and took it */
  hasTaken(inputId) {
    return this.seenInputs.get(inputId) ?? false;
  }

  /** Folds one entry in. The caller has checked the chain (section 3). @param {Entry} entry */
  apply(entry) {
    if (!this.#counts(entry)) return;
    const rules = entry.lane === undefined ? PARTICIPANTS : OWNERS;
    for (const event of entry.events) {
      rules.get(event.type)?.(this, event, entry);
      if (rules === OWNERS) this.transcript.apply(event, entry);
    }
  }

  /** @param {WireMessage[]} page of `history`, oldest first */
  prepend(page) {
    this.transcript.prepend(page);
  }

  /** @param {number} limit @returns {boolean} whether older messages were forgotten */
  trim(limit) {
    return this.transcript.trim(limit);
  }

  /** Rule 1, and each write once: one repeated after an unknown outcome has the same number.
   * @param {Entry} entry */
  #counts(entry) {
    if (entry.lane === undefined || (entry.events.length === 1 && entry.events[0].type === 'session.owner')) return true;
    const id = WRITE_ID.exec(entry.id);
    const lane = this.lanes.get(entry.lane);
    if (id === null || lane === undefined || Number(id[1]) !== lane.fence) return false;
    if (entry.off !== undefined) return true;
    if (Number(id[2]) <= lane.lastWrite) return false;
    lane.lastWrite = Number(id[2]);
    return true;
  }
}

/** Rule 17. @param {Fold} fold @param {Event} event */
function described(fold, event) {
  if (event.type === 'session.created' && fold.isCreated) return;
  fold.isCreated ||= event.type === 'session.created';
  if (typeof event.title === 'string') fold.title = event.title;
  if (isObject(event.metadata)) fold.metadata = event.metadata;
  fold.config = configured(fold.config, event.config);
}

/** Rule 19. @param {Fold} fold @param {Event} event @param {Entry} entry */
function imported(fold, event, entry) {
  if (fold.lanes.size === 0 && fold.seenInputs.size === 0) fold.transcript.imported(event, entry);
}

/** What participants write. Maps: the type is whatever the log says.
 * @type {Map<string, Rule>} */
const PARTICIPANTS = new Map(Object.entries({ ...inputs.participants, ...runs.participants, ...calls.participants,
  ...approvals.participants, 'session.created': described, 'session.updated': described,
  'session.deleted': (/** @type {Fold} */ fold) => void Object.assign(fold, new Fold()), 'messages.imported': imported,
  'session.closed': (/** @type {Fold} */ fold) => void (fold.isClosed = true),
  'session.reopened': (/** @type {Fold} */ fold) => void (fold.isClosed = false) }));

/** What a lane's owner writes. @type {Map<string, Rule>} */
const OWNERS = new Map(Object.entries({ ...inputs.owners, ...runs.owners, ...calls.owners, ...approvals.owners }));

/** @template T @param {T[] | undefined} list @returns {T[]} */
function copied(list) {
  return (list ?? []).map((item) => ({ ...item }));
}
