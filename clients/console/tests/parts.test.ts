/** Small decisions: links, rights, rows, forms, scrolling, words. */
import type { Message } from '@antiphon/client';
import { describe, expect, test } from 'vitest';
import { advice } from '../src/advice.js';
import { ago, initials, plural } from '../src/base/words.js';
import { found } from '../src/chrome/sessions.js';
import { may, readClaims } from '../src/link/claims.js';
import { readLink, readPasted } from '../src/link/link.js';
import { addressOf, readOf } from '../src/panels/raw-entry.js';
import { Sieve } from '../src/panels/sieve.js';
import { Rows } from '../src/transcript/rows.js';
import { hasLeft } from '../src/transcript/scrolling.js';
import { formFor, readField, written } from '../src/waits/fields.js';

const tokenOf = (claims: unknown) => {
  const bytes = new TextEncoder().encode(JSON.stringify(claims));
  const body = btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=/g, '');
  return `head.${body}.signature`;
};

describe('links', () => {
  test('carry a session and its token', () => {
    expect(readLink('#session=demo&token=t.t.t&tools=1')).toEqual({ session: 'demo', token: 't.t.t', hasTools: true });
    expect(readLink('')).toEqual({ session: '', token: '', hasTools: false });
  });

  test('may be pasted where a name is asked for', () => {
    expect(readPasted('https://example.com/#session=demo&token=t')).toEqual({ session: 'demo', token: 't' });
    expect(readPasted(' demo ')).toEqual({ session: 'demo', token: null });
  });
});

describe('rights', () => {
  const claims = readClaims(
    tokenOf({
      sub: 'Zoë',
      exp: 10,
      roles: ['support'],
      sessions: { 'team-*': ['read', 'send'], 'a.b': ['admin'], own: ['admin'] },
    }),
  );

  test('are read from a token, whatever letters are in it', () => {
    expect(claims).toMatchObject({ user: 'Zoë', roles: ['support'], expiresAt: 10_000 });
    expect(readClaims('nonsense')).toBeNull();
  });

  test.each([
    ['send', 'team-1', true],
    ['cancel', 'team-1', false],
    ['cancel', 'own', true],
    ['read', 'another', false],
    ['read', 'a-b', false],
    ['read', 'xteam-1', false],
  ] as const)('%s in %s: %s', (right, session, isGiven) => {
    expect(may(claims, right, session)).toBe(isGiven);
  });

  test('of a token that cannot be read, the gateway decides', () => {
    expect(may(null, 'admin', 'demo')).toBe(true);
  });
});

describe('rows', () => {
  const message = (id: string, fields: Partial<Message> = {}): Message => ({
    id,
    role: 'assistant',
    by: { kind: 'agent', id: 'w' },
    lane: 'main',
    run: 'r',
    text: 'x',
    status: 'done',
    reason: 'complete',
    ...fields,
  });

  test('a call and its result are one; a name stands above the first of who speaks', () => {
    const rows = new Rows().of([
      message('u', { role: 'user', by: { kind: 'user', id: 'user-1' } }),
      message('r', { role: 'reasoning' }),
      message('c', { role: 'tool_call', name: 'look' }),
      message('t', { role: 'tool', toolCallId: 'c', text: 'found' }),
      message('a'),
      message('b', { lane: 'helper' }),
    ]);
    expect(rows.map(({ key, kind, isFirst }) => [key, kind, isFirst])).toEqual([
      ['u', 'text', true],
      ['r', 'reasoning', true],
      ['c', 'tool', false],
      ['a', 'text', false],
      ['b', 'text', true],
    ]);
    expect(rows[2]?.result?.text).toBe('found');
  });

  test('are the same objects for what has stayed the same', () => {
    const maker = new Rows();
    const [settled, streaming] = [message('a'), message('b', { status: 'streaming' })];
    const before = maker.of([settled, streaming]);
    const after = maker.of([settled, message('b', { text: 'xy', status: 'streaming' })]);
    expect(after[0]).toBe(before[0]);
    expect(after[1]).not.toBe(before[1]);
  });
});

describe('fields by their schema', () => {
  test.each([
    [null, 'text'],
    [{ type: 'string' }, 'text'],
    [{ type: 'integer' }, 'number'],
    [{ type: 'boolean' }, 'choice'],
    [{ enum: ['a', 2] }, 'choice'],
    [{ properties: { a: {} } }, 'json'],
    [{ type: ['array', 'null'] }, 'json'],
  ])('%j', (schema, kind) => {
    expect(formFor(schema).kind).toBe(kind);
  });

  test('values go in and come out as they were', () => {
    for (const [schema, value] of [
      [{ type: 'string' }, 'text'],
      [{ type: 'number' }, 1.5],
      [{ enum: ['a', 2] }, 2],
      [{ type: 'object' }, { files: ['a'] }],
    ] as const) {
      const form = formFor(schema);
      expect(readField(form, written(form, value))).toEqual({ value });
    }
  });

  test('what is no value is said', () => {
    expect(readField(formFor({ type: 'number' }), ' ')).toEqual({ problem: 'This must be a number.' });
    expect(readField(formFor({ type: 'object' }), '{')).toEqual({ problem: 'This must be JSON.' });
  });
});

describe('scrolling away from the end', () => {
  const last = { top: 1000, height: 2000, shown: 500 };

  test('a reader who moves up leaves it', () => {
    expect(hasLeft(last, { ...last, top: 900 }, false)).toBe(true);
    expect(hasLeft(last, { top: 900, height: 2100, shown: 500 }, true)).toBe(true);
    expect(hasLeft(last, { top: 200, height: 2100, shown: 500 }, false)).toBe(true);
  });

  test('what moves because something has grown or shrunk does not', () => {
    expect(hasLeft(last, { top: 900, height: 2100, shown: 600 }, false)).toBe(false);
    expect(hasLeft(last, { top: 1100, height: 2500, shown: 500 }, true)).toBe(false);
    expect(hasLeft({ top: 1500, height: 2000, shown: 500 }, { top: 1470, height: 2000, shown: 500 }, true)).toBe(false);
  });
});

describe('entries of the inspector', () => {
  const entry = (seq: number, off: number | null, type: string) => ({
    type: 'entry' as const,
    cursor: `e:${seq}`,
    seq,
    prev: seq - 1,
    id: `1-${seq}`,
    ts: 1,
    lane: 'main',
    run: null,
    by: null,
    off,
    merged: null,
    events: [{ type }],
  });
  const all = [entry(1, null, 'RUN_STARTED'), entry(2, 0, 'TEXT_MESSAGE_CONTENT')];

  test('are filtered by words, and by whether they are tokens', () => {
    const sift = (text: string, hasDeltas: boolean) => new Sieve().sift(all, 0, { text, hasDeltas });
    expect(sift('', true)).toEqual(all);
    expect(sift('', false)).toEqual([all[0]]);
    expect(sift('run_ main', true)).toEqual([all[0]]);
    expect(sift('nothing', true)).toEqual([]);
  });

  test('are looked at once, while a log grows at its end and is dropped at its beginning', () => {
    const sieve = new Sieve();
    const wanted = { text: 'run_', hasDeltas: true };
    const log = [...all];
    const before = sieve.sift(log, 0, wanted);
    expect(sieve.sift(log, 0, wanted)).toBe(before);
    log.push(entry(3, 4, 'TEXT_MESSAGE_CONTENT'), entry(4, null, 'RUN_FINISHED'));
    expect(sieve.sift(log, 0, wanted).map(({ seq }) => seq)).toEqual([1, 4]);
    log.splice(0, 2);
    expect(sieve.sift(log, 2, wanted).map(({ seq }) => seq)).toEqual([4]);
    log.push(entry(5, null, 'RUN_STARTED'));
    expect(sieve.sift(log, 2, wanted).map(({ seq }) => seq)).toEqual([4, 5]);
    expect(sieve.sift(log, 2, { ...wanted, text: 'content' }).map(({ seq }) => seq)).toEqual([3]);
  });

  test('are asked for one by one', () => {
    const address = new URL(addressOf({ ...(all[1] as (typeof all)[1]), cursor: 'ep:2' }, 'demo'));
    expect(address.pathname).toBe('/v1/sessions/demo/events');
    expect(Object.fromEntries(address.searchParams)).toEqual({
      after: 'ep:1',
      replay: 'every',
      format: 'json',
      limit: '1',
    });
  });

  test('are shown as they were read, until they have come', () => {
    expect(readOf(all[1] as (typeof all)[1])).toEqual({
      seq: 2,
      prev: 1,
      id: '1-2',
      ts: 1,
      lane: 'main',
      off: 0,
      events: [{ type: 'TEXT_MESSAGE_CONTENT' }],
    });
  });
});

describe('words', () => {
  test('of people', () => {
    expect([initials('user-1'), initials('A User'), initials('zoë'), initials('')]).toEqual(['U1', 'AU', 'Z', '?']);
  });

  test('of time', () => {
    const now = 1e12;
    expect([0, 59_000, 61_000, 7_300_000, 3 * 86_400_000].map((past) => ago(now - past, now))).toEqual([
      'now',
      'now',
      '1 min',
      '2 h',
      '3 d',
    ]);
  });

  test('of numbers, and of refusals that nobody has words for', () => {
    expect([plural(1, 'entry', 'entries'), plural(2, 'entry', 'entries')]).toEqual(['1 entry', '2 entries']);
    expect(advice('new_code', 'because')).toBe('The server refused: because');
  });

  test('sessions are found by all the words', () => {
    const info = (session: string, title: string | null) => ({
      session,
      title,
      metadata: {},
      createdBy: null,
      updatedAt: null,
      status: 'idle',
    });
    const sessions = [info('demo', 'A trip to Rome'), info('trip-2', null)];
    expect(found(sessions, 'trip rome').map(({ session }) => session)).toEqual(['demo']);
    expect(found(sessions, 'TRIP')).toHaveLength(2);
  });
});
