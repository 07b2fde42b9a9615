// @ts-check
/**
 * The fold of a session's log into its state and its transcript: docs/PROTOCOL.md, section 6.
 * No DOM, no clock, no network: the conformance cases run on this file alone.
 *
 * @typedef {{kind: string, id?: string, name?: string}} Actor
 * @typedef {{type: string, [field: string]: any}} Event
 * @typedef {{seq: number, prev: number, id: string, lane?: string, run?: string, ts: number,
 *            by?: Actor, off?: number, events: Event[]}} Entry
 * @typedef {{inputId: string, seq: number, ts: number, by: Actor | null, content: string,
 *            mode: string | null}} Input
 * @typedef {{mode: string, by: Actor | null}} Cancel
 * @typedef {{runId: string, lane: string, inputId: string, attempt: number,
 *            cancel: Cancel | null}} Run
 * @typedef {{owner: Actor | null, fence: number, run: string | null}} Lane
 * @typedef {{lanes: Record<string, Lane>, runs: Run[], inputs: Input[]}} State
 * @typedef {{id: string, role: string, by: Actor | null, lane: string | null, run: string | null,
 *            text: string, status: 'streaming' | 'done', reason: string | null, name?: string,
 *            toolCallId?: string, seq?: number, ts?: number}} WireMessage
 * @typedef {WireMessage & {points: number}} Message `points`: the text's length in code points
 * @typedef {{takenOver: string | null, error: {code: string, message: string} | null,
 *            errorAt: string | null}} RunNote
 */

/** Inputs that may wait in a session; one more is refused by every reader alike. */
const MAX_QUEUED_INPUTS = 16;
/** The id of a lane's write: its fence and its number under it. */
const WRITE_ID = /^([0-9]{1,18})-([0-9]{1,18})$/;

export class Fold {
  /** @type {Map<string, Lane & {lastWrite: number}>} */ lanes = new Map();
  /** @type {Run[]} */ runs = [];
  /** @type {Input[]} */ inputs = [];
  /** @type {Message[]} */ messages = [];
  /** What the transcript does not say about a run: who took it over, how it failed.
   * @type {Map<string, RunNote>} */ runNotes = new Map();
  /** Ids of messages changed since the reader last emptied the set. @type {Set<string>} */
  changed = new Set();
  /** @type {Map<string, Message>} */ #byId = new Map();
  /** Every input seen; false: refused. @type {Map<string, boolean>} */ #seenInputs = new Map();
  /** Inputs taken out of the queue: their run may still start, in a race.
   * @type {Map<string, Cancel>} */ #takenBack = new Map();

  /** @param {State} [state] the folded state to go on from (of a `session.snapshot`) */
  constructor(state) {
    for (const [name, lane] of Object.entries(state?.lanes ?? {})) this.lanes.set(name, { ...lane, lastWrite: 0 });
    this.runs = (state?.runs ?? []).map((run) => ({ ...run }));
    this.inputs = [...(state?.inputs ?? [])];
    for (const input of this.inputs) this.#seenInputs.set(input.inputId, true);
  }

  /** @returns {State} the state in its wire form */
  state() {
    const lanes = [...this.lanes].map(([name, { owner, fence, run }]) => [name, { owner, fence, run }]);
    return { lanes: Object.fromEntries(lanes), runs: this.runs, inputs: this.inputs };
  }

  /** @param {string} id @returns {Message | undefined} */
  message(id) {
    return this.#byId.get(id);
  }

  /** @param {string} inputId @returns {boolean} whether the log has shown it, and took it */
  hasTaken(inputId) {
    return this.#seenInputs.get(inputId) ?? false;
  }

  /** Folds one entry in. The caller has checked the chain (section 3). @param {Entry} entry */
  apply(entry) {
    if (!this.#counts(entry)) return;
    for (const event of entry.events) {
      if (entry.lane === undefined || event.type === 'session.owner') this.#session(event, entry);
      else this.#lane(event, entry.lane, entry);
    }
  }

  /** Puts a page of `history` before what is there; messages already there stay as they are.
   * @param {WireMessage[]} page oldest first */
  prepend(page) {
    const fresh = page.filter((message) => !this.#byId.has(message.id));
    this.messages = [...fresh.map((message) => this.#known(message)), ...this.messages];
  }

  /** Forgets the oldest messages beyond `limit`. @param {number} limit
   * @returns {boolean} whether there were any: `history` has them */
  trim(limit) {
    const dropped = this.messages.splice(0, Math.max(0, this.messages.length - limit));
    for (const message of dropped) this.#byId.delete(message.id);
    return dropped.length > 0;
  }

  /** Rule 1, and each write once: one repeated after an unknown outcome has the same number.
   * @param {Entry} entry */
  #counts(entry) {
    if (entry.lane === undefined || entry.events[0]?.type === 'session.owner') return true;
    const id = WRITE_ID.exec(entry.id);
    const lane = this.lanes.get(entry.lane);
    if (id === null || lane === undefined || Number(id[1]) !== lane.fence) return false;
    if (entry.off !== undefined) return true;
    if (Number(id[2]) <= lane.lastWrite) return false;
    lane.lastWrite = Number(id[2]);
    return true;
  }

  /** What participants write, and ownership. @param {Event} event @param {Entry} entry */
  #session(event, entry) {
    switch (event.type) {
      case 'session.owner':
        return this.#owned(event, entry);
      case 'input.sent':
        return this.#sent(event, entry);
      case 'input.cancel.requested':
        return this.#takeBack(event.inputId, { mode: 'immediate', by: entry.by ?? null });
      case 'run.cancel.requested':
        return this.#cancelRun(event.runId, { mode: event.mode ?? 'immediate', by: entry.by ?? null });
    }
  }

  /** @param {Event} event @param {Entry} entry */
  #owned({ kind, id, lane: name }, { seq, lane }) {
    const key = name ?? lane ?? 'main';
    const owner = kind === 'none' ? null : { kind, id };
    this.lanes.set(key, { owner, fence: seq, run: this.lanes.get(key)?.run ?? null, lastWrite: 0 });
  }

  /** @param {Event} event @param {Entry} entry */
  #sent({ inputId, content, mode = null }, { seq, ts, by }) {
    if (this.#seenInputs.has(inputId)) return;
    const hasRoom = this.inputs.length < MAX_QUEUED_INPUTS;
    this.#seenInputs.set(inputId, hasRoom);
    if (hasRoom) this.inputs.push({ inputId, seq, ts, by: by ?? null, content, mode });
  }

  /** @param {string} inputId @returns {Input | undefined} */
  #unqueue(inputId) {
    const at = this.inputs.findIndex((input) => input.inputId === inputId);
    return at < 0 ? undefined : this.inputs.splice(at, 1)[0];
  }

  /** @param {string} inputId @param {Cancel} cancel */
  #takeBack(inputId, cancel) {
    if (this.#unqueue(inputId)) this.#takenBack.set(inputId, cancel);
  }

  /** @param {string} runId @param {Cancel} cancel */
  #cancelRun(runId, cancel) {
    const run = this.runs.find((candidate) => candidate.runId === runId);
    if (run) run.cancel ??= cancel;
    else this.#takeBack(inputOf(runId), cancel);
  }

  /** What a lane's owner writes: runs and their messages.
   * @param {Event} event @param {string} lane @param {Entry} entry */
  #lane(event, lane, entry) {
    const { messageId, toolCallId } = event;
    switch (event.type) {
      case 'RUN_STARTED':
        return this.#started(event.runId, lane);
      case 'RUN_FINISHED':
      case 'RUN_ERROR':
        return this.#ended(event, lane);
      case 'run.taken_over':
        return this.#takenOver(event, lane);
      case 'input.applied':
        return this.#applied(event, entry);
      case 'input.failed':
        return void this.#unqueue(event.inputId);
      case 'TEXT_MESSAGE_START':
        return this.#add(entry, { id: messageId, role: event.role ?? 'assistant' });
      case 'REASONING_MESSAGE_START':
        return this.#add(entry, { id: messageId, role: 'reasoning' });
      case 'TOOL_CALL_START':
        return this.#add(entry, { id: toolCallId, role: 'tool_call', name: event.toolCallName });
      case 'TOOL_CALL_RESULT':
        return this.#add(entry, { id: messageId, role: 'tool', toolCallId,
          text: typeof event.content === 'string' ? event.content : '', status: 'done', reason: 'complete' });
      case 'TEXT_MESSAGE_CONTENT':
      case 'REASONING_MESSAGE_CONTENT':
      case 'TOOL_CALL_ARGS':
        return entry.off === undefined ? undefined : this.#put(messageId ?? toolCallId, entry.off, event.delta);
      case 'message.segment':
        return this.#segment(event);
      case 'TEXT_MESSAGE_END':
      case 'REASONING_MESSAGE_END':
      case 'TOOL_CALL_END':
        return this.#end(messageId ?? toolCallId);
    }
  }

  /** @param {string} runId @param {string} name */
  #started(runId, name) {
    const lane = this.lanes.get(name);
    if (!lane || lane.run !== null || this.runs.some((run) => run.runId === runId)) return;
    const inputId = inputOf(runId);
    lane.run = runId;
    this.runs.push({ runId, lane: name, inputId, attempt: 1, cancel: this.#takenBack.get(inputId) ?? null });
  }

  /** @param {Event} event @param {Entry} entry */
  #applied(event, entry) {
    const input = this.#unqueue(event.inputId);
    if (!input) return;
    this.#add(entry, { id: event.messageId, role: 'user', by: input.by, run: event.runId,
      text: input.content, status: 'done', reason: 'complete' });
  }

  /** @param {Event} event @param {string} lane */
  #takenOver({ runId, attempt, policy }, lane) {
    const run = this.runs.find((candidate) => candidate.runId === runId && candidate.lane === lane);
    if (!run) return;
    run.attempt = attempt;
    this.#note(runId).takenOver = policy ?? null;
  }

  /** @param {Event} event @param {string} name */
  #ended(event, name) {
    const lane = this.lanes.get(name);
    const runId = lane?.run;
    if (!lane || !runId || (event.type === 'RUN_FINISHED' && event.runId !== runId)) return;
    lane.run = null;
    this.runs = this.runs.filter((run) => run.runId !== runId);
    for (const message of this.messages) {
      if (message.lane === name && message.status === 'streaming') this.#end(message.id);
    }
    const note = this.#note(runId);
    if (event.type === 'RUN_FINISHED') return;
    note.error = { code: String(event.code ?? 'error'), message: String(event.message ?? '') };
    note.errorAt = this.messages.findLast((message) => message.run === runId)?.id ?? null;
  }

  /** The note of a run that has just changed: its messages look different now.
   * @param {string} runId @returns {RunNote} */
  #note(runId) {
    for (const message of this.messages) if (message.run === runId) this.changed.add(message.id);
    const note = this.runNotes.get(runId) ?? { takenOver: null, error: null, errorAt: null };
    this.runNotes.set(runId, note);
    return note;
  }

  /** @param {Entry} entry @param {Partial<WireMessage> & {id: string, role: string}} fields */
  #add({ lane, run, by, seq, ts }, fields) {
    if (this.#byId.has(fields.id)) return;
    const from = { by: by ?? null, lane: lane ?? null, run: run ?? null, seq, ts };
    this.messages.push(this.#known({ ...from, text: '', status: 'streaming', reason: null, ...fields }));
  }

  /** @param {WireMessage} fields @returns {Message} */
  #known(fields) {
    const message = { ...fields, points: countPoints(fields.text) };
    this.#byId.set(message.id, message);
    this.changed.add(message.id);
    return message;
  }

  /** @param {Event} event */
  #segment({ messageId, offset, text, final, reason }) {
    if (typeof text === 'string') this.#put(messageId, offset, text);
    const message = this.#byId.get(messageId);
    if (message && final) message.reason = reason ?? null;
  }

  /** @param {string} id */
  #end(id) {
    const message = this.#byId.get(id);
    if (!message) return;
    message.status = 'done';
    message.reason ??= 'complete';
    this.changed.add(id);
  }

  /** Puts a piece where it belongs. What is there already is the same text, so only what goes
   * beyond the end counts; a piece beyond a hole waits for the segment that brings it again.
   * @param {string} id @param {number} offset in code points @param {string} piece */
  #put(id, offset, piece) {
    const message = this.#byId.get(id);
    if (!message || offset > message.points) return;
    const length = countPoints(piece);
    if (offset + length <= message.points) return;
    message.text += piece.slice(unitAt(piece, message.points - offset));
    message.points = offset + length;
    this.changed.add(id);
  }
}

/** @param {string} text @returns {number} its length in Unicode code points */
function countPoints(text) {
  let count = 0;
  for (let unit = 0; unit < text.length; count += 1) unit += unitsAt(text, unit);
  return count;
}

/** @param {string} text @param {number} point @returns {number} the UTF-16 index of a code point */
function unitAt(text, point) {
  let unit = 0;
  for (let seen = 0; seen < point; seen += 1) unit += unitsAt(text, unit);
  return unit;
}

/** @param {string} text @param {number} unit @returns {number} 2 for a surrogate pair */
function unitsAt(text, unit) {
  return /** @type {number} */ (text.codePointAt(unit)) > 0xffff ? 2 : 1;
}

/** @param {string} runId @returns {string} the id of the input that starts this run */
function inputOf(runId) {
  return runId.startsWith('run_') ? runId.slice(4) : runId;
}
