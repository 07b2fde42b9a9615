/** The replay: any place of a log, reached from anywhere, shows what folding up to there gives; and time passes as it did. */
import { type Entry, Fold, type JsonObject, readEntry } from '@antiphon/client';
import { describe, expect, test } from 'vitest';
import { LogWindow } from '../src/panels/log-window.js';
import { advance, kindsOf, LONGEST_PAUSE_MS, Player } from '../src/panels/player.js';
import { bandsOf } from '../src/panels/replay.js';

function log(): Entry[] {
  const frames: JsonObject[] = [];
  const put = (events: JsonObject[], more: JsonObject = {}) => {
    const seq = frames.length + 1;
    frames.push({ seq, prev: seq - 1, id: `1-${seq}`, lane: 'main', ts: 1000 + seq * 100, events, ...more });
  };
  put([{ type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' }], { id: 'own' });
  for (const name of ['a', 'b', 'c']) {
    put([{ type: 'TEXT_MESSAGE_START', messageId: name, role: 'assistant' }]);
    for (let at = 0; at < 10; at += 1) {
      put([{ type: 'TEXT_MESSAGE_CONTENT', messageId: name, delta: `${name}${at} ` }], { off: at * 3 });
    }
    put([{ type: 'TEXT_MESSAGE_END', messageId: name }]);
  }
  return frames.map((frame) => readEntry(frame) as Entry);
}

const ENTRIES = log();
const fresh = () => ({ fold: new Fold(), before: [] });
const textsOf = (messages: readonly { text: string }[]) => messages.map(({ text }) => text);

function folded(count: number): string[] {
  const fold = new Fold();
  for (const entry of ENTRIES.slice(0, count)) fold.apply(entry);
  return textsOf(fold.messages);
}

describe('seeking', () => {
  test('every place, forward and backward', () => {
    const player = new Player(fresh, 0);
    for (const at of [0, 5, 37, 36, 12, 20, 1, 37, 0, 19]) {
      expect(textsOf(player.seek(ENTRIES, 0, at).messages), `place ${at}`).toEqual(folded(at));
    }
  });

  test('a log that has grown meanwhile', () => {
    const growing = ENTRIES.slice(0, 10);
    const player = new Player(fresh, 0);
    player.seek(growing, 0, 10);
    growing.push(...ENTRIES.slice(10));
    expect(textsOf(player.seek(growing, 0, 37).messages)).toEqual(folded(37));
  });

  test('a log whose beginning is not kept: its messages are there all the same', () => {
    const dropped = 13; // after the first message
    const base = new Fold();
    for (const entry of ENTRIES.slice(0, dropped)) base.apply(entry);
    const begin = () => ({
      fold: new Fold({ state: JSON.parse(JSON.stringify(base.state)) }),
      before: base.messages,
    });
    const player = new Player(begin, dropped);
    const kept = ENTRIES.slice(dropped);
    for (const at of [37, 20, 13]) {
      expect(textsOf(player.seek(kept, dropped, at).messages), `place ${at}`).toEqual(folded(at));
    }
  });
});

describe('the window onto a log', () => {
  const taken = (entries: readonly Entry[], bounds?: ConstructorParameters<typeof LogWindow>[0]) => {
    const made = new LogWindow(bounds);
    for (const entry of entries) made.take(entry);
    return made;
  };

  test('is bounded; what is dropped is folded, so that every place that is kept shows what it showed', () => {
    for (const bounds of [
      { entries: 20, chars: 1e9, dropped: 7 },
      { entries: 1e9, chars: 4000, dropped: 5 },
    ]) {
      const log = taken(ENTRIES, bounds);
      expect(log.dropped).toBeGreaterThan(10);
      expect(log.entries.length + log.dropped).toBe(ENTRIES.length);
      expect(log.entries.length).toBeLessThanOrEqual(20);
      const player = new Player(() => log.begin(), log.dropped);
      expect(textsOf(player.seek(log.entries, log.dropped, ENTRIES.length).messages)).toEqual(folded(ENTRIES.length));
    }
  });

  test('texts that are open at once where it begins go on', () => {
    const start = (messageId: string, type: string, more: JsonObject = {}) => ({ type, messageId, ...more });
    const frame = (seq: number, event: JsonObject, off: number | null = null): JsonObject => {
      const id = seq === 1 ? 'own' : `1-${seq}`;
      return { seq, prev: seq - 1, id, lane: 'main', ts: seq, events: [event], ...(off !== null && { off }) };
    };
    const frames = [
      frame(1, { type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' }),
      frame(2, start('t', 'TEXT_MESSAGE_START', { role: 'assistant' })),
      frame(3, start('r', 'REASONING_MESSAGE_START', { role: 'reasoning' })),
      frame(4, { type: 'TOOL_CALL_START', toolCallId: 'c', toolCallName: 'look' }),
      frame(5, start('t', 'TEXT_MESSAGE_CONTENT', { delta: 'one ' }), 0),
      frame(6, start('r', 'REASONING_MESSAGE_CONTENT', { delta: 'why ' }), 0),
      frame(7, { type: 'TOOL_CALL_ARGS', toolCallId: 'c', delta: '{"a"' }, 0),
      frame(8, start('t', 'TEXT_MESSAGE_CONTENT', { delta: 'two' }), 4),
      frame(9, start('r', 'REASONING_MESSAGE_CONTENT', { delta: 'not' }), 4),
      frame(10, { type: 'TOOL_CALL_ARGS', toolCallId: 'c', delta: ':1}' }, 4),
    ].map((each) => readEntry(each) as Entry);
    const log = taken(frames, { entries: 3, chars: 1e9, dropped: 7 });
    const player = new Player(() => log.begin(), log.dropped);
    const { messages } = player.seek(log.entries, log.dropped, 10);
    expect(messages.map(({ role, text, name }) => [role, text, name])).toEqual([
      ['assistant', 'one two', undefined],
      ['reasoning', 'why not', undefined],
      ['tool_call', '{"a":1}', 'look'],
    ]);
  });

  const segment = (seq: number, offset: number, text: string, isFinal = false): Entry => ({
    ...(ENTRIES[0] as Entry),
    seq,
    events: [{ type: 'message.segment', messageId: 'a', offset, length: [...text].length, text, final: isFinal }],
  });
  const delta = (seq: number, off: number, text: string): Entry => ({
    ...(ENTRIES[0] as Entry),
    seq,
    off,
    events: [{ type: 'TEXT_MESSAGE_CONTENT', messageId: 'a', delta: text }],
  });

  test('knows where tokens have aged out: where a segment brings what no token has brought', () => {
    expect([...taken([delta(1, 0, 'ab😀'), segment(2, 0, 'ab😀')]).aged]).toEqual([]);
    expect([...taken([segment(1, 0, 'ab'), delta(2, 2, 'cd'), segment(3, 2, 'cd', true)]).aged]).toEqual([1]);
    expect([...taken([delta(1, 0, 'ab'), segment(2, 0, 'abcd'), segment(3, 4, 'ef', true)]).aged]).toEqual([2, 3]);
  });
});

describe('playing', () => {
  const start = { at: 1, sinceMs: 0 };

  test('takes as long as it took, at any speed', () => {
    expect(advance(ENTRIES, start, 250, 1)).toEqual({ at: 3, sinceMs: 50 });
    expect(advance(ENTRIES, start, 125, 2)).toEqual({ at: 3, sinceMs: 50 });
    expect(advance(ENTRIES, { at: 3, sinceMs: 50 }, 50, 1)).toEqual({ at: 4, sinceMs: 0 });
  });

  test('shortens long pauses, and survives clocks that go back', () => {
    const at = (ts: number) => ({ ...(ENTRIES[0] as Entry), ts });
    const slow = [at(0), at(3_600_000), at(3_500_000)];
    expect(advance(slow, start, LONGEST_PAUSE_MS - 1, 1).at).toBe(1);
    expect(advance(slow, start, LONGEST_PAUSE_MS, 1).at).toBe(3);
  });

  test('ends at the end', () => {
    expect(advance(ENTRIES, start, 1e9, 64)).toEqual({ at: ENTRIES.length, sinceMs: 0 });
    expect(advance([], { at: 0, sinceMs: 0 }, 16, 1)).toEqual({ at: 0, sinceMs: 0 });
  });
});

test('what an entry says', () => {
  const events = ['A', 'B', 'A', 'C', 'D'].map((type) => ({ type }));
  expect(kindsOf({ ...(ENTRIES[0] as Entry), events })).toBe('A, B, C +1');
});

test('where tokens have aged out is marked once for neighbours', () => {
  const entries = Array.from({ length: 1000 }, (_, at) => ({ ...(ENTRIES[0] as Entry), seq: at }));
  const bands = bandsOf(entries, new Set([0, 1, 2, 500, 999]));
  expect(bands.map(([from]) => from)).toEqual([0, 0.5, 0.995]);
});
