// @ts-check
/**
 * The messages of a session, in order of appearance, and the texts that grow in them.
 *
 * @typedef {import('../fold.js').Entry} Entry
 * @typedef {import('../fold.js').Event} Event
 * @typedef {import('../fold.js').Input} Input
 * @typedef {import('../fold.js').Actor} Actor
 * @typedef {import('../fold.js').Message} Message
 * @typedef {import('../fold.js').WireMessage} WireMessage
 */
import { isObject } from './config.js';

export class Transcript {
  /** @type {Message[]} */ messages = [];
  /** Ids of messages changed since the reader last emptied the set. @type {Set<string>} */
  changed = new Set();
  /** @type {Map<string, Message>} */ #byId = new Map();

  /** @param {string} id @returns {Message | undefined} */
  get(id) {
    return this.#byId.get(id);
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

  /** @param {Event} event @param {Entry} entry of the lane's owner */
  apply(event, entry) {
    const { messageId, toolCallId } = event;
    switch (event.type) {
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

  /** An input has reached the agent. @param {Input} input @param {Event} event @param {Entry} entry */
  applied({ by, content }, { messageId }, entry) {
    this.#add(entry, { id: messageId, role: 'user', by, text: content, status: 'done', reason: 'complete' });
  }

  /** A human has the lane: an input is a message at once; those of that human stand for the agent.
   * @param {Pick<Input, 'inputId' | 'by' | 'content' | 'lane'>} input @param {Actor} human
   * @param {Entry} entry */
  spoken({ inputId, by, content, lane }, human, entry) {
    const role = by?.kind === 'user' && by.id === human.id ? 'assistant' : 'user';
    this.#add(entry, { id: `msg_${inputId}`, role, by, lane, run: null, text: content, status: 'done', reason: 'complete' });
  }

  /** The session begins with messages of another. @param {any} event @param {Entry} entry */
  imported({ messages }, { seq, ts }) {
    if (!Array.isArray(messages)) return;
    messages.forEach((wire, position) => {
      if (!isObject(wire)) return;
      if (wire.continued === true) return this.#continued(wire);
      const message = fromElsewhere(wire, `imported_${seq}_${position}`);
      if (!this.#byId.has(message.id)) this.messages.push(this.#known({ ...message, seq, ts }));
    });
  }

  /** More of the text of a message that was too long for one entry. @param {Record<string, any>} wire */
  #continued({ id, text }) {
    const message = this.#byId.get(id);
    if (message && typeof text === 'string') this.#put(id, message.points, text);
  }

  /** No text of the lane goes on. @param {string} lane */
  endAll(lane) {
    for (const message of this.messages) {
      if (message.lane === lane && message.status === 'streaming') this.#end(message.id);
    }
  }

  /** What the run said is no part of the conversation any more. @param {string} runId */
  rollBack(runId) {
    for (const message of this.#of(runId)) message.rolledBack = true;
    this.touch(runId);
  }

  /** The messages of a run look different now. @param {string} runId */
  touch(runId) {
    for (const message of this.#of(runId)) this.changed.add(message.id);
  }

  /** @param {string} runId @returns {Message | undefined} */
  lastOf(runId) {
    return this.messages.findLast((message) => message.run === runId);
  }

  /** @param {string} runId */
  #of(runId) {
    return this.messages.filter((message) => message.run === runId);
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
    if (message && final) message.reason = reason ?? message.reason;
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

/** @param {Record<string, any>} wire what is odd in it is left out @param {string} id if it has none
 * @returns {WireMessage} */
function fromElsewhere(wire, id) {
  const text = (/** @type {string} */ name) => (typeof wire[name] === 'string' ? wire[name] : null);
  const [name, toolCallId] = [text('name'), text('toolCallId')];
  return { id: text('id') || id, role: text('role') || 'user', by: isObject(wire.by) ? wire.by : null,
    lane: text('lane') || 'main', run: text('run'), text: text('text') ?? '', status: 'done',
    reason: text('reason') || 'complete', ...(name !== null && { name }), ...(toolCallId !== null && { toolCallId }),
    ...(wire.rolledBack === true && { rolledBack: true }) };
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
