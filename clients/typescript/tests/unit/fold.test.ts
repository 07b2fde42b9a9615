/** The fold beyond the shared cases: any pieces of a text, any nonsense, stored cursors, bounds. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Fold, type FoldOptions } from '../../src/index.js';
import type { JsonObject } from '../../src/json.js';
import { readEntry } from '../../src/protocol.js';
import { applied, delta, entry, finished, START, sent, started } from '../support/network.js';
import { randomOf } from '../support/random.js';

const OWNER = { type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' };

function folded(frames: readonly JsonObject[], options: FoldOptions = {}): Fold {
  const fold = new Fold(options);
  for (const frame of frames) {
    const read = readEntry(frame);
    if (read) fold.apply(read);
  }
  return fold;
}

/** A lane under fence 1, in which message m1 is open. */
const OPENED = [entry(1, 0, [OWNER], { id: 'own' }), entry(2, 1, [START])];

test('deltas, segments and any mix of them, even twice, give the same text; offsets count code points', () => {
  const alphabet = [...'ab \n`é日😀👩\u200d', '𝒳'];
  for (let seed = 0; seed < 300; seed += 1) {
    const random = randomOf(seed);
    const below = (limit: number) => Math.floor(random() * limit);
    const points = Array.from({ length: 1 + below(60) }, () => alphabet[below(alphabet.length)] ?? '');
    const frames: JsonObject[] = [...OPENED];
    for (let at = 0; at < points.length; ) {
      const start = Math.max(0, at - below(8));
      const end = Math.min(points.length, start + 1 + below(12));
      const text = points.slice(start, end).join('');
      const seq = frames.length + 1;
      const segment = { type: 'message.segment', messageId: 'm1', offset: start, text, length: end - start };
      frames.push(random() < 0.3 ? entry(seq, seq - 1, [segment]) : delta(seq, seq - 1, start, text));
      if (random() < 0.2) frames.push(delta(seq + 1, seq, start, text));
      at = Math.max(at, end);
    }
    expect(folded(frames).messages[0]?.text, `seed ${seed}`).toBe(points.join(''));
  }
});

test('nonsense counts as nothing: it never throws, and what is there stays readable', () => {
  const CASES = new URL('../../../../tests/conformance/cases/', import.meta.url);
  const names = readdirSync(CASES).filter((name) => name.endsWith('.json'));
  const logs: JsonObject[][] = names.map((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')).entries);
  const junk = [
    null,
    true,
    -1,
    1.5,
    1e30,
    '',
    '__proto__',
    'constructor',
    [],
    {},
    [null, 7, 'x', {}],
    { id: 7, roles: 'x' },
  ];
  for (let seed = 0; seed < 3000; seed += 1) {
    const random = randomOf(seed);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const spoiled = (value: unknown): unknown => (random() < 0.04 ? pick(junk) : within(value));
    const within = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(spoiled);
      if (typeof value !== 'object' || value === null) return value;
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, key === 'seq' ? item : spoiled(item)]),
      );
    };
    const fold = folded((pick(logs) as JsonObject[]).map((frame) => within(frame) as JsonObject));
    const again = new Fold({ state: JSON.parse(JSON.stringify(fold.state)) });
    expect(JSON.stringify(again.state.runs), `seed ${seed}`).toBe(JSON.stringify(fold.state.runs));
    expect(fold.messages.every(({ id, text }) => typeof id === 'string' && typeof text === 'string')).toBe(true);
  }
});

test('from a stored cursor it takes the fence and the run that it meets', () => {
  const fold = folded([entry(9, 8, [START], { id: '5-7', run: 'run_i' })], { partial: true });
  expect(fold.state).toMatchObject({ status: 'running', runs: [{ runId: 'run_i', inputId: 'i' }] });
  expect(fold.messages).toMatchObject([{ id: 'm1', status: 'streaming' }]);
  const frame = readEntry(finished(10, 9, 'i', 'success'));
  expect(fold.apply({ ...frame, id: '5-8' } as never)).toMatchObject([{ kind: 'ended', runId: 'run_i' }]);
  expect(fold.state.status).toBe('idle');
});

test('it keeps so many messages, the newest', () => {
  const frames: JsonObject[] = [...OPENED];
  for (let n = 0; n < 5; n += 1) {
    const seq = frames.length + 1;
    frames.push(sent(seq, seq - 1, `i${n}`), started(seq + 1, seq, `i${n}`), applied(seq + 2, seq + 1, `i${n}`));
    frames.push(finished(seq + 3, seq + 2, `i${n}`));
  }
  const fold = folded(frames, { messageLimit: 2 });
  expect(fold.messages.map(({ id }) => id)).toEqual(['msg_i3', 'msg_i4']);
  // what is gone is not touched any more
  fold.apply(readEntry(delta(99, 98, 0, 'late')) as never);
  expect(fold.messages.map(({ text }) => text)).toEqual(['hi', 'hi']);
});

test('what changes in one message leaves the others as they are', () => {
  const other = { ...START, messageId: 'm2' };
  const fold = folded([...OPENED, entry(3, 2, [other])]);
  const before = fold.messages;
  fold.apply(readEntry(delta(4, 3, 0, 'x')) as never);
  expect(fold.messages[0]).not.toBe(before[0]);
  expect(fold.messages[1]).toBe(before[1]);
  expect(before[0]?.text).toBe('');
});
