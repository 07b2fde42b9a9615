/** What the transcript shows, row by row: a message's text, a thought, or a tool's call together with its result. */
import type { Message } from '@antiphon/client';

export interface Row {
  readonly key: string;
  readonly kind: 'text' | 'reasoning' | 'tool';
  readonly message: Message;
  /** Of a call: the message with what came of it. */
  readonly result: Message | null;
  /** Somebody else speaks than in the row before: their name stands above. */
  readonly isFirst: boolean;
}

/** Whose part a message is in: rows of one run and of one speaker stand together. */
function turnOf({ role, run, lane, by }: Message): string {
  const side = role === 'user' ? 'user' : 'agent';
  return `${side} ${lane} ${role === 'user' ? '' : run} ${by?.kind} ${by?.id}`;
}

const kindOf = ({ role }: Message): Row['kind'] =>
  role === 'reasoning' ? 'reasoning' : role === 'tool_call' ? 'tool' : 'text';

/** Makes rows, and the same objects again for messages that have stayed the same. */
export class Rows {
  #known = new Map<string, Row>();

  of(messages: readonly Message[]): readonly Row[] {
    const results = new Map<string, Message>();
    const calls = new Set<string>();
    for (const message of messages) {
      if (message.role === 'tool' && message.toolCallId) results.set(message.toolCallId, message);
      if (message.role === 'tool_call') calls.add(message.id);
    }
    const rows: Row[] = [];
    const known = new Map<string, Row>();
    let turn = '';
    for (const message of messages) {
      if (message.role === 'tool' && message.toolCallId && calls.has(message.toolCallId)) continue;
      const isFirst = turn !== turnOf(message);
      turn = turnOf(message);
      const row = this.#row(message, results.get(message.id) ?? null, isFirst);
      known.set(row.key, row);
      rows.push(row);
    }
    this.#known = known;
    return rows;
  }

  #row(message: Message, result: Message | null, isFirst: boolean): Row {
    const before = this.#known.get(message.id);
    if (before?.message === message && before.result === result && before.isFirst === isFirst) return before;
    return { key: message.id, kind: kindOf(message), message, result, isFirst };
  }
}
