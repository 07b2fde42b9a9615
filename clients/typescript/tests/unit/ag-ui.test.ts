/** What an application of AG-UI asks for: what is new in it, what it decides, what is passed on. */
import { describe, expect, test } from 'vitest';
import { agentMetadata, attached, textOf, userContent } from '../../src/ag-ui/content.js';
import { decision } from '../../src/ag-ui/interrupts.js';
import { inPlace, lacks, olderThan, type Shown } from '../../src/ag-ui/messages.js';
import { passedOn } from '../../src/ag-ui/passing.js';
import { checkHistory, declarations, freshMessages, resultOf } from '../../src/ag-ui/request.js';
import type { Approval } from '../../src/model.js';

const user = (id: string, content: unknown = id): Shown => ({ id, role: 'user', content });
const agent = (id: string, content = id): Shown => ({ id, role: 'assistant', content });
const FILE = { id: 'f', name: 'a.png', mediaType: 'image/png', size: 3, sha256: '0'.repeat(64) };
const approval = (options: readonly string[], kind = 'approval') => ({ kind, options }) as unknown as Approval;

describe('messages', () => {
  test('those after the last that is known are new', () => {
    const known = new Set(['a', 'b']);
    expect(freshMessages([user('a'), agent('x'), user('c'), user('d')], known, 's').map(({ id }) => id)).toEqual([
      'c',
      'd',
    ]);
    expect(freshMessages([user('taken-back'), user('b')], known, 's')).toEqual([]);
    expect(freshMessages([], known, 's')).toEqual([]);
    const parts = [{ type: 'text', text: 'a' }];
    expect(freshMessages([user('c', parts)], known, 's')).toHaveLength(1);
    for (const content of ['', [], [{ type: 'text', text: '' }]]) {
      expect(() => freshMessages([user('c', content)], known, 's')).toThrow(/bad_command/);
    }
  });

  test.each([
    undefined,
    5,
    { type: 'file', value: 'f' },
    { type: 'file', value: 'f', provider: 'openai' },
    { type: 'file', value: 'a/b', provider: 'antiphon' },
    { type: 'url', value: 'https://example.com/v1/sessions/s/attachments/f' },
    { type: 'url', value: '/v1/sessions/other/attachments/f' },
    { type: 'url', value: '/v1/sessions/s/attachments/f/../g' },
    { type: 'data', value: 'AAAA', mimeType: 'image/png' },
  ])('what is no attachment of the session is to be uploaded first: %j', (source) => {
    const content = [
      { type: 'text', text: 'a' },
      { type: 'image', source },
    ];
    expect(() => freshMessages([user('c', content)], new Set(), 's')).toThrow(/not_supported.*'image'.*upload/);
  });

  test.each([true, false])('files go to applications and come back (1.0: %s)', (isModern) => {
    const shown = user('a', userContent('look', [FILE], 's', isModern));
    expect(attached(shown, 's')).toEqual(['f']);
    expect(attached(shown, 'other')).toEqual(isModern ? ['f'] : []);
    expect(textOf(shown)).toBe('look');
    expect(freshMessages([shown], new Set(), 's')).toEqual([shown]);
    const filesAlone = user('a', userContent('', [FILE], 's', isModern));
    expect(freshMessages([filesAlone], new Set(), 's')).toEqual([filesAlone]);
    expect(userContent('look', [], 's', isModern)).toBe('look');
  });

  test('a history that was changed is refused', () => {
    checkHistory([user('a'), user('new')], [user('a')], 's');
    const shown = user('b', userContent('b', [FILE], 's', true));
    const asBytes = [
      { type: 'text', text: 'b' },
      { type: 'image', source: { type: 'data', value: 'AA' } },
    ];
    for (const known of ['b', shown['content'], asBytes, userContent('b', [FILE], 's', false)]) {
      checkHistory([user('b', known)], [shown], 's');
    }
    const other = userContent('b', [{ ...FILE, id: 'g' }], 's', true);
    for (const message of [user('a', 'other'), user('b', 'other'), user('b', other)]) {
      expect(() => checkHistory([message], [user('a'), shown], 's')).toThrow(/history_changed/);
    }
  });

  test('who lacks something is given all, in order', () => {
    const call = { id: 'c', function: { arguments: '{}' } };
    const called: Shown = { id: 'c', role: 'assistant', toolCalls: [call] };
    const result: Shown = { id: 'r', role: 'tool', toolCallId: 'c', content: '1' };
    const reasoning: Shown = { id: 't', role: 'reasoning', content: 'hm' };
    const shown = [user('a'), called, result, agent('b')];
    expect(lacks(shown, [...shown, reasoning], 's')).toBe(false);
    expect(lacks([...shown, { ...reasoning, content: '' }], [...shown, reasoning], 's')).toBe(true);
    for (let n = 0; n < shown.length; n += 1) expect(lacks(shown.toSpliced(n, 1), shown, 's')).toBe(true);
    const withFile = user('a', userContent('a', [FILE], 's', true));
    expect(lacks([user('a')], [withFile], 's')).toBe(true);
    expect(lacks([withFile], [user('a')], 's')).toBe(false);
    const given = { ...agent('b'), metadata: agentMetadata([FILE]) };
    expect(lacks([agent('b')], [given], 's')).toBe(true);
    expect(lacks([given], [given], 's')).toBe(false);
    expect(olderThan([user('old'), { id: 's', role: 'system' }, user('a'), user('new')], shown)).toEqual([user('old')]);
    expect(olderThan([user('new')], shown)).toEqual([]);
    expect(inPlace([user('a')], shown)).toBe(null);
    expect(inPlace([user('a'), agent('b')], shown)).toEqual([user('a')]);
    expect(inPlace([agent('b')], shown)).toEqual([]);
  });
});

test.each([
  [['allow_once', 'reject_once'], { status: 'resolved', payload: true }, { option: 'allow_once' }],
  [['allow_once', 'reject_once'], { status: 'resolved', payload: { approved: false } }, { option: 'reject_once' }],
  [['allow_always', 'reject_once'], { status: 'resolved', payload: true }, { option: 'allow_always' }],
  [
    ['allow_once'],
    { status: 'resolved', payload: { approved: true, editedArgs: 1 } },
    { option: 'allow_once', payload: 1 },
  ],
  [['allow_once'], { status: 'resolved', payload: { option: 'allow_always' } }, { option: 'allow_always' }],
  [['allow_once', 'reject_always'], { status: 'cancelled' }, { option: 'reject_always' }],
  [['allow_once'], { status: 'resolved', payload: 'yes' }, null],
  [['allow_once'], { status: 'resolved' }, null],
])('of %j, %j is %j', (options, answer, decided) => {
  expect(decision(approval(options), answer)).toEqual(decided);
});

test('questions are answered, or declined', () => {
  expect(decision(approval([], 'question'), { status: 'resolved', payload: 0 })).toEqual({
    option: 'answer',
    payload: 0,
  });
  expect(decision(approval([], 'question'), { status: 'cancelled' })).toEqual({ option: 'decline' });
});

test('results are JSON, text, or errors', () => {
  const result = (fields: object) => resultOf({ id: 'r', role: 'tool', ...fields });
  expect(result({ content: '{"a":1}' })).toEqual({ result: { a: 1 } });
  expect(result({ content: 'red' })).toEqual({ result: 'red' });
  expect(result({ content: 'red', error: 'no' })).toEqual({ error: 'no' });
  expect(result({ content: [1] })).toEqual({ result: [1] });
});

test('tools are declared as far as they are such', () => {
  const tools = [{ name: 'a', description: 'A', parameters: {} }, { name: 'b', parameters: { type: 'object' } }, 5];
  expect(declarations(tools)).toEqual([
    { name: 'a', description: 'A' },
    { name: 'b', description: '', parameters: { type: 'object' } },
  ]);
});

test('patches are passed on if they are such', () => {
  const passes = (delta: unknown) => passedOn({ type: 'STATE_DELTA', delta }) !== null;
  expect(passes([{ op: 'move', from: '/a~1', path: '' }])).toBe(true);
  for (const op of [{ op: 'add', path: '/a' }, { op: 'copy', path: '/a' }, { op: 'remove', path: 'a' }, 5]) {
    expect(passes([op])).toBe(false);
  }
  expect(passedOn({ type: 'RUN_STARTED' })).toBe(null);
});
