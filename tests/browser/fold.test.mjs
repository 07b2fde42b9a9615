// The page's pure parts under Node: `node --test tests/browser/`. No package is needed.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

import { afterClose, backoffMs } from '../../gateway/web/closing.js';
import { Fold } from '../../gateway/web/fold.js';
import { blocksFrom } from '../../gateway/web/text.js';

const CASES = new URL('../conformance/cases/', import.meta.url);
const MESSAGE_FIELDS = ['id', 'role', 'by', 'lane', 'run', 'text', 'status', 'reason', 'name', 'toolCallId', 'rolledBack'];

/** A message as the protocol has it; a field that is absent is null. */
function plain(message) {
  return Object.fromEntries(MESSAGE_FIELDS.map((field) => [field, message[field] ?? null]));
}

function conformanceCases() {
  const names = readdirSync(CASES).filter((name) => name.endsWith('.json'));
  return names.flatMap((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')));
}

test('there are conformance cases', () => {
  assert.ok(conformanceCases().length > 0, `no conformance cases in ${CASES.pathname}: nothing was checked`);
});

for (const { name, entries, state, messages } of conformanceCases()) {
  test(`conformance: ${name}`, () => {
    const fold = new Fold();
    for (const entry of entries) fold.apply(entry);
    assert.deepEqual(JSON.parse(JSON.stringify(fold.state())), state);
    assert.deepEqual(fold.messages.map(plain), messages.map(plain));
  });
}

for (const { name, state } of conformanceCases()) {
  test(`a snapshot holds the state: ${name}`, () => {
    assert.deepEqual(JSON.parse(JSON.stringify(new Fold(state).state())), state);
  });
}

const LANE = { lane: 'main', by: { kind: 'agent', id: 'w' }, ts: 1 };

/** A fold in which message `m` has been opened under fence 1. */
function opened() {
  const fold = new Fold();
  const owner = { type: 'session.owner', lane: 'main', kind: 'agent', id: 'w' };
  fold.apply({ ...LANE, seq: 1, prev: 0, id: 'claim', events: [owner] });
  fold.apply({ ...LANE, seq: 2, prev: 1, id: '1-1', events: [{ type: 'TEXT_MESSAGE_START', messageId: 'm' }] });
  return fold;
}

function delta(fold, off, piece, fence = 1) {
  const event = { type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: piece };
  fold.apply({ ...LANE, seq: 3, prev: 2, id: `${fence}-2`, off, events: [event] });
}

function segment(fold, write, offset, text, rest = {}) {
  const event = { type: 'message.segment', messageId: 'm', offset, text, length: [...text].length, ...rest };
  fold.apply({ ...LANE, seq: 4, prev: 3, id: `1-${write}`, events: [event] });
}

/** Small deterministic random numbers: mulberry32. */
function randomOf(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

test('deltas, segments and any mix of them, even twice, give the same text', () => {
  const alphabet = [...'ab \n`é日😀👩\u200d', '𝒳'];
  for (let seed = 0; seed < 300; seed += 1) {
    const random = randomOf(seed);
    const below = (limit) => Math.floor(random() * limit);
    const points = Array.from({ length: 1 + below(60) }, () => alphabet[below(alphabet.length)]);
    const fold = opened();
    let write = 2;
    for (let at = 0; at < points.length;) {
      const start = Math.max(0, at - below(8));
      const end = Math.min(points.length, start + 1 + below(12));
      const piece = points.slice(start, end).join('');
      if (random() < 0.3) segment(fold, write++, start, piece);
      else delta(fold, start, piece);
      if (random() < 0.2) delta(fold, start, piece);
      at = Math.max(at, end);
    }
    assert.equal(fold.message('m').text, points.join(''), `seed ${seed}`);
    assert.equal(fold.message('m').points, points.length);
  }
});

test('a piece beyond a hole waits for the segment that brings it again', () => {
  const fold = opened();
  delta(fold, 0, '😀a');
  delta(fold, 4, 'later');
  assert.equal(fold.message('m').text, '😀a');
  segment(fold, 2, 0, '😀abclater', { final: true, reason: 'worker_lost' });
  fold.apply({ ...LANE, seq: 5, prev: 4, id: '1-3', events: [{ type: 'TEXT_MESSAGE_END', messageId: 'm' }] });
  const { text, status, reason } = fold.message('m');
  assert.deepEqual({ text, status, reason }, { text: '😀abclater', status: 'done', reason: 'worker_lost' });
});

test('nothing counts under an old fence, nor a write that comes twice', () => {
  const fold = opened();
  delta(fold, 0, 'kept');
  const owner = { type: 'session.owner', lane: 'main', kind: 'agent', id: 'w2' };
  fold.apply({ ...LANE, seq: 9, prev: 3, id: 'claim-2', events: [owner] });
  delta(fold, 4, ' zombie');
  assert.equal(fold.message('m').text, 'kept');
  const result = (write, messageId) => fold.apply({ ...LANE, seq: 10, prev: 9, id: `9-${write}`,
    events: [{ type: 'TOOL_CALL_RESULT', messageId, toolCallId: 't', content: 'x' }] });
  result(1, 'r1');
  result(1, 'r2');
  assert.deepEqual(fold.messages.map((message) => message.id), ['m', 'r1']);
});

test('a full queue refuses, and an id is spent for ever', () => {
  const fold = new Fold();
  const send = (inputId, seq) => fold.apply({ seq, prev: seq - 1, ts: 1, id: inputId,
    events: [{ type: 'input.sent', inputId, content: 'x' }] });
  for (let n = 1; n <= 17; n += 1) send(`i${n}`, n);
  fold.apply({ seq: 18, prev: 17, ts: 1, id: 'c', events: [{ type: 'input.cancel.requested', inputId: 'i1' }] });
  send('i17', 19);
  send('i1', 20);
  assert.deepEqual(fold.inputs.map((input) => input.inputId), Array.from({ length: 15 }, (_, n) => `i${n + 2}`));
  assert.equal(fold.hasTaken('i17'), false);
});

test('of 257 that are remembered the oldest goes, whatever their keys look like', () => {
  const fold = opened();
  const by = { kind: 'user', id: 'u' };
  const start = { type: 'RUN_STARTED', threadId: 's', runId: 'r' };
  fold.apply({ ...LANE, seq: 3, prev: 2, id: '1-2', events: [start] });
  for (let n = 256; n >= 0; n -= 1) { // integer-like keys: in an object, they would be sorted
    const request = { type: 'approval.requested', approvalId: `a${n}`, kind: 'approval', message: '?',
      options: ['allow_always'], default: 'allow_always', key: String(n), quorum: 1 };
    fold.apply({ ...LANE, seq: 1000 - 2 * n, prev: 0, id: `1-${300 - n}`, events: [request] });
    const answer = { type: 'approval.responded', approvalId: `a${n}`, option: 'allow_always' };
    fold.apply({ seq: 1001 - 2 * n, prev: 0, ts: 1, id: `v${n}`, by, events: [answer] });
  }
  assert.deepEqual([...fold.remembered.keys()], Array.from({ length: 256 }, (_, n) => String(255 - n)));
});

test('history goes before what is there, each message once', () => {
  const fold = opened();
  const old = (id) => ({ id, role: 'user', text: 'old', status: 'done', reason: 'complete', by: null, lane: 'main', run: null });
  fold.prepend([old('a'), old('b'), old('m')]);
  assert.deepEqual(fold.messages.map((message) => message.id), ['a', 'b', 'm']);
  assert.equal(fold.message('m').role, 'assistant');
  assert.equal(fold.trim(1), true);
  assert.deepEqual(fold.messages.map((message) => message.id), ['m']);
});

test('blocks hold every character once, however the text grows', () => {
  const pieces = ['a', ' ', '\n', '\n\n', '```', '```py\n', 'x = 1\n', '😀', '  ', 'word '.repeat(700), '\n```\n'];
  for (let seed = 0; seed < 200; seed += 1) {
    const random = randomOf(seed);
    let text = '';
    const blocks = [];
    for (let n = 0; n < 40; n += 1) {
      text += pieces[Math.floor(random() * pieces.length)];
      const last = blocks.pop();
      blocks.push(...blocksFrom(text, last?.start ?? 0));
      assert.equal(blocks.map(({ lead, body, tail }) => lead + body + tail).join(''), text, `seed ${seed}`);
      assert.ok(blocks.every(({ kind, tail }) => kind === 'code' || tail.trim() === ''), 'only blanks are hidden');
    }
  }
});

test('paragraphs and code are told apart', () => {
  const text = 'One\ntwo\n\nthree\n```js\nlet a;\n\nlet b;\n```\n\nfour ``` five';
  const shown = blocksFrom(text, 0).map(({ kind, body }) => [kind, body]);
  assert.deepEqual(shown, [['prose', 'One\ntwo'], ['prose', 'three'], ['code', 'let a;\n\nlet b;'], ['prose', 'four ``` five']]);
});

test('close codes say what to do', () => {
  assert.equal(afterClose(4401, '{"code":"unauthorized"}', 0, 0.5).next, 'refused');
  assert.equal(afterClose(4300, '', 0, 0.5).next, 'expired');
  assert.equal(afterClose(1001, '', 0, 0.5).next, 'closed');
  assert.deepEqual(afterClose(4200, '{"code":"draining","retry_after_ms":350}', 3, 0.5), { next: 'reconnect', delayMs: 350 });
  assert.deepEqual(afterClose(1006, 'not json', 2, 0.5), { next: 'reconnect', delayMs: 500 });
  assert.equal(backoffMs(40, 0.5), 15_000);
});
