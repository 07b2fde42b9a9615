/**
 * The transcript of a session (PROTOCOL, section 6, Transcript).
 *
 * Deltas and segments carry the place of their text, so that any mix of them, even applied twice, gives the same text.
 * Unknown and malformed events count as nothing.
 */
import { asCount, asObject, asString, type JsonObject } from '../json.js';
import type { Actor, Entry, Input, LogEvent, Message } from '../model.js';
import { readAttachments } from './read.js';

const COMPLETE = 'complete';

/** Reads a message as in the replies to `history`; null if it has no id. */
export function readMessage(raw: JsonObject): Message | null {
  const id = asString(raw['id']);
  if (id === null) return null;
  const name = asString(raw['name']);
  const toolCallId = asString(raw['toolCallId']);
  const seq = asCount(raw['seq']);
  return {
    id,
    role: asString(raw['role']) || 'assistant',
    by: asObject<Actor>(raw['by']),
    lane: asString(raw['lane']),
    run: asString(raw['run']),
    text: asString(raw['text']) ?? '',
    status: raw['status'] === 'streaming' ? 'streaming' : 'done',
    reason: asString(raw['reason']),
    ...(name !== null && { name }),
    ...(toolCallId !== null && { toolCallId }),
    ...(seq !== null && { seq }),
    ...(raw['rolledBack'] === true && { rolledBack: true }),
    ...readAttachments(raw),
  };
}

/** The length of a text in Unicode code points. */
export function pointsIn(text: string): number {
  let points = text.length;
  for (let n = 1; n < text.length; n += 1) {
    // a low surrogate after a high one
    if ((text.charCodeAt(n) & 0xfc00) === 0xdc00 && (text.charCodeAt(n - 1) & 0xfc00) === 0xd800) points -= 1;
  }
  return points;
}

/** A message while it is folded: what will not change, and what may. */
class Draft {
  text = '';
  points = 0;
  reason: string | null = null;
  isOpen: boolean;
  view: Message | null = null;

  constructor(
    public base: Message,
    readonly streams: boolean,
    public index: number,
  ) {
    this.isOpen = streams;
  }

  /** Takes over what reaches beyond the end; returns whether the text changed. A piece beyond the end is dropped. */
  put(offset: number, piece: string): boolean {
    const length = pointsIn(piece);
    const known = this.points - offset;
    if (known < 0 || known >= length) return false;
    if (known === 0) this.text += piece;
    else this.text += length === piece.length ? piece.slice(known) : [...piece].slice(known).join('');
    this.points = offset + length;
    return true;
  }

  message(): Message {
    const reason = this.isOpen ? null : (this.reason ?? COMPLETE);
    this.view ??= { ...this.base, text: this.text, status: this.isOpen ? 'streaming' : 'done', reason };
    return this.view;
  }
}

export class Transcript {
  readonly #drafts = new Map<string, Draft>();
  readonly #open = new Set<Draft>();
  readonly #changed = new Set<Draft>();
  #list: readonly Message[] = [];
  #isRearranged = false;

  /** `limit` bounds how many messages are kept: the oldest go first, `history` has them. */
  constructor(readonly limit = Number.POSITIVE_INFINITY) {}

  /** The messages, in order of appearance; the same list, and the same messages, as far as nothing has changed. */
  view(): readonly Message[] {
    if (this.#isRearranged) {
      let index = 0;
      for (const draft of this.#drafts.values()) draft.index = index++;
      this.#list = Array.from(this.#drafts.values(), (draft) => draft.message());
    } else if (this.#changed.size) {
      const list = this.#list.slice();
      for (const draft of this.#changed) list[draft.index] = draft.message();
      this.#list = list;
    }
    this.#isRearranged = false;
    this.#changed.clear();
    return this.#list;
  }

  /** The message as it is now; undefined if there is none. */
  message(id: string): Message | undefined {
    return this.#drafts.get(id)?.message();
  }

  /** Folds one event that counts. Messages of participants come by `addInput`. */
  apply(entry: Entry, event: LogEvent): void {
    if (entry.lane === null) return;
    if (entry.off !== null) this.#delta(entry.off, event);
    else this.#record(entry, event);
  }

  #delta(off: number, event: LogEvent): void {
    switch (event.type) {
      case 'TEXT_MESSAGE_CONTENT':
      case 'REASONING_MESSAGE_CONTENT':
        return this.#put(event['messageId'], off, event['delta']);
      case 'TOOL_CALL_ARGS':
        return this.#put(event['toolCallId'], off, event['delta']);
    }
  }

  #record(entry: Entry, event: LogEvent): void {
    const messageId = event['messageId'];
    const toolCallId = event['toolCallId'];
    switch (event.type) {
      case 'message.segment':
        return this.#segment(event);
      case 'message.attached':
        return this.#attached(entry, event);
      case 'TEXT_MESSAGE_START':
        return this.#add(entry, messageId, asString(event['role']) || 'assistant');
      case 'REASONING_MESSAGE_START':
        return this.#add(entry, messageId, 'reasoning');
      case 'TOOL_CALL_START':
        return this.#add(entry, toolCallId, 'tool_call', { name: asString(event['toolCallName']) });
      case 'TOOL_CALL_RESULT': {
        const text = asString(event['content']) ?? '';
        return this.#add(entry, messageId, 'tool', { toolCallId: asString(toolCallId) }, text);
      }
      case 'TEXT_MESSAGE_END':
      case 'REASONING_MESSAGE_END':
        return this.#end(this.#streamed(messageId));
      case 'TOOL_CALL_END':
        return this.#end(this.#streamed(toolCallId));
    }
  }

  /** A run has ended in this lane, and with it every text that is still open there. */
  endLane(lane: string | null): void {
    for (const draft of [...this.#open]) if (draft.base.lane === lane) this.#end(draft);
  }

  /** The messages of this run are no part of the conversation any more. */
  rollBack(runId: string): void {
    for (const draft of this.#drafts.values()) {
      if (draft.base.run === runId) {
        draft.base = { ...draft.base, rolledBack: true };
        this.#touch(draft);
      }
    }
  }

  clear(): void {
    this.#drafts.clear();
    this.#open.clear();
    this.#changed.clear();
    this.#isRearranged = true;
  }

  /** The entry `seq` brings messages of another session; one may continue another's text. */
  importMessages(seq: number, messages: readonly JsonObject[]): void {
    messages.forEach((raw, position) => {
      const id = asString(raw['id']);
      const text = asString(raw['text']) ?? '';
      if (raw['continued'] === true) {
        const draft = this.#drafts.get(id ?? '');
        if (draft?.put(draft.points, text)) this.#touch(draft);
        return;
      }
      const message = readMessage({ ...raw, id: id || `imported_${seq}_${position}` });
      if (!message) return;
      const role = asString(raw['role']) ?? 'user';
      this.#keep({ ...message, role, lane: message.lane || 'main', status: 'done', seq }, text, message.reason);
    });
  }

  /** An input enters the transcript, by its sender. */
  addInput(seq: number, id: string, source: Input, place: Pick<Message, 'lane' | 'run' | 'role'>): void {
    const { by, content, attachments } = source;
    const more = attachments && { attachments };
    this.#keep({ id, role: place.role, by, lane: place.lane, run: place.run, ...NEW, seq, ...more }, content);
  }

  #add(entry: Entry, id: unknown, role: string, more: Extra = {}, text: string | null = null): void {
    if (typeof id !== 'string') return;
    const { by, lane, run, seq } = entry;
    const extra = Object.fromEntries(Object.entries(more).filter(([, value]) => value !== null));
    this.#keep({ id, role, by, lane, run, ...NEW, ...extra, seq }, text);
  }

  /** Adds a message, with its text or (null) to stream. An id that is there stays as it is. */
  #keep(base: Message, text: string | null, reason: string | null = null): void {
    if (this.#drafts.has(base.id)) return;
    const draft = new Draft(base, text === null, this.#drafts.size);
    draft.put(0, text ?? '');
    draft.reason = reason;
    this.#drafts.set(base.id, draft);
    this.#isRearranged = true;
    if (draft.isOpen) this.#open.add(draft);
    if (this.#drafts.size <= this.limit) return;
    for (const [oldest, gone] of this.#drafts) {
      this.#drafts.delete(oldest);
      this.#open.delete(gone);
      this.#changed.delete(gone);
      return;
    }
  }

  #segment(event: LogEvent): void {
    this.#put(event['messageId'], asCount(event['offset']), event['text']);
    const draft = this.#streamed(event['messageId']);
    if (!draft || event['final'] !== true) return;
    draft.reason = asString(event['reason']) || COMPLETE;
    this.#touch(draft);
  }

  #attached({ lane }: Entry, event: LogEvent): void {
    const draft = this.#drafts.get(event['messageId'] as string);
    const { attachments: more } = readAttachments(event);
    if (!draft || !more || draft.base.lane !== lane) return;
    draft.base = { ...draft.base, attachments: [...(draft.base.attachments ?? []), ...more] };
    this.#touch(draft);
  }

  /** A streamed message, by its id: the others have their whole text from the start. */
  #streamed(id: unknown): Draft | undefined {
    const draft = this.#drafts.get(id as string);
    return draft?.streams ? draft : undefined;
  }

  #put(id: unknown, offset: number | null, piece: unknown): void {
    const draft = this.#streamed(id);
    if (draft && offset !== null && typeof piece === 'string' && draft.put(offset, piece)) this.#touch(draft);
  }

  #end(draft: Draft | undefined): void {
    if (!draft) return;
    draft.isOpen = false;
    this.#open.delete(draft);
    this.#touch(draft);
  }

  #touch(draft: Draft): void {
    draft.view = null;
    this.#changed.add(draft);
  }
}

type Extra = { readonly [field: string]: string | null };

/** What `Draft.message` fills in. */
const NEW = { text: '', status: 'done', reason: null } as const;
