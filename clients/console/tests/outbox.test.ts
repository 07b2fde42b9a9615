/** What was written is kept until the log has it: through refusals, clients that stop, and reloads. */
import { CommandRefused, ConnectionClosed, type SendOptions } from '@antiphon/client';
import { beforeEach, expect, test } from 'vitest';
import { MAX_ITEMS, Outbox, type Sender } from '../src/composer/outbox.js';

interface Sent {
  readonly content: string;
  readonly options: SendOptions;
  stored(): void;
  refused(error: Error): void;
}

class Wire {
  readonly sent: Sent[] = [];
  readonly sender = {
    send: (content: string, options: SendOptions) =>
      new Promise((resolve, reject) => {
        this.sent.push({ content, options, stored: () => resolve(undefined), refused: reject });
        options.signal?.addEventListener('abort', () => reject(options.signal?.reason));
      }),
  } as unknown as Sender;
}

/** Everything that is under way has come. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 0));
const contents = (outbox: Outbox) => outbox.items.value.map(({ content }) => content);
const codes = (outbox: Outbox) => outbox.items.value.map(({ refusal }) => refusal?.code ?? null);

let wire: Wire;
let outbox: Outbox;

beforeEach(() => {
  sessionStorage.clear();
  wire = new Wire();
  outbox = new Outbox('demo', 'user-1');
});

test('what is written is sent in order, with ids of its own, and gone once it is stored', async () => {
  outbox.use(wire.sender);
  outbox.add('one', null);
  outbox.add('two', 'interrupt');
  expect(wire.sent.map(({ content, options }) => [content, options.mode])).toEqual([
    ['one', undefined],
    ['two', 'interrupt'],
  ]);
  expect(wire.sent[0]?.options.inputId).not.toBe(wire.sent[1]?.options.inputId);
  wire.sent[0]?.stored();
  await settled();
  expect(contents(outbox)).toEqual(['two']);
  expect(outbox.written.value).toBe(2);
});

test('what is written without a client is sent by the next one', () => {
  outbox.add('early', null);
  outbox.use(wire.sender);
  expect(wire.sent.map(({ content }) => content)).toEqual(['early']);
});

test('a client that stops loses nothing: the next one sends it again, with the same id', async () => {
  outbox.use(wire.sender);
  outbox.add('kept', null);
  wire.sent[0]?.refused(new ConnectionClosed('token_expired'));
  await settled();
  expect(codes(outbox)).toEqual([null]);
  const next = new Wire();
  outbox.use(next.sender);
  expect(next.sent[0]?.options.inputId).toBe(wire.sent[0]?.options.inputId);
});

test('a reload loses nothing, and neither does another user take it', () => {
  outbox.add('kept', 'enqueue');
  const again = new Outbox('demo', 'user-1');
  expect(contents(again)).toEqual(['kept']);
  again.use(wire.sender);
  expect(wire.sent[0]?.options).toMatchObject({ mode: 'enqueue', inputId: outbox.items.value[0]?.inputId });
  expect(contents(new Outbox('demo', 'user-2'))).toEqual([]);
  expect(contents(new Outbox('other', 'user-1'))).toEqual([]);
});

test('what is refused stays with its reason, until it is sent again as a new one, or discarded', async () => {
  outbox.use(wire.sender);
  outbox.add('no', 'inject');
  wire.sent[0]?.refused(new CommandRefused('cannot_inject', 'the agent cannot'));
  await settled();
  expect(outbox.items.value[0]?.refusal).toEqual({ code: 'cannot_inject', message: 'the agent cannot' });
  const [{ inputId } = { inputId: '' }] = outbox.items.value;
  outbox.retry(inputId, 'enqueue');
  expect(wire.sent[1]?.options.mode).toBe('enqueue');
  expect(wire.sent[1]?.options.inputId).not.toBe(inputId);
  outbox.discard(wire.sent[1]?.options.inputId ?? '');
  await settled();
  expect(contents(outbox)).toEqual([]);
  expect(wire.sent[1]?.options.signal?.aborted).toBe(true);
});

test('what the tab kept is read with care', () => {
  sessionStorage.setItem('antiphon.outbox.demo.user-1', 'nonsense');
  expect(contents(new Outbox('demo', 'user-1'))).toEqual([]);
  const many = Array.from({ length: 40 }, (_, at) => ({ inputId: `i${at}`, content: 'x', mode: null, refusal: null }));
  sessionStorage.setItem('antiphon.outbox.demo.user-1', JSON.stringify([null, 7, ...many]));
  expect(contents(new Outbox('demo', 'user-1'))).toHaveLength(MAX_ITEMS);
});
