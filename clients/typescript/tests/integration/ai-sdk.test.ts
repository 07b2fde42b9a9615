/** The transport for `useChat`, as the SDK calls it, against a real gateway; pages are in tests/chromium. */
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, inject, test } from 'vitest';
import { WebSocket } from 'ws';
import { AntiphonChatTransport, type CommonChunk, type UIMessageLike } from '../../src/ai-sdk/index.js';
import { AntiphonClient, type Tool, type WebSocketConstructor } from '../../src/index.js';

const ENDLESS = 'stream 100000 tokens at 100/s';
const clients: AntiphonClient[] = [];

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
});

function newClient(token = inject('token')): AntiphonClient {
  const client = new AntiphonClient({
    url: inject('url'),
    token,
    WebSocket: WebSocket as unknown as WebSocketConstructor,
  });
  clients.push(client);
  return client;
}

const newTransport = (tools: readonly Tool[] = [], client = newClient()) =>
  new AntiphonChatTransport({ client, tools });

async function fresh(pool?: string): Promise<string> {
  const chatId = `s-${randomUUID()}`;
  await newClient()
    .session(chatId)
    .create(pool === undefined ? {} : { config: { pool } });
  return chatId;
}

const user = (text: string, id: string = randomUUID()): UIMessageLike => ({
  id,
  role: 'user',
  parts: [{ type: 'text', text } as { type: string }],
});

const asked = (chatId: string, ...messages: UIMessageLike[]) => ({
  trigger: 'submit-message' as const,
  messageId: undefined,
  abortSignal: undefined,
  chatId,
  messages,
});

async function whole(stream: ReadableStream<CommonChunk> | null): Promise<CommonChunk[]> {
  const chunks: CommonChunk[] = [];
  const reader = stream?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) chunks.push(part.value);
  return chunks;
}

/** Reads on until such a chunk. */
async function until(reader: ReadableStreamDefaultReader<CommonChunk>, type: string): Promise<void> {
  for (let part = await reader.read(); !part.done; part = await reader.read()) if (part.value.type === type) return;
  throw new Error(`no ${type}`);
}

const textOf = (chunks: readonly CommonChunk[]) =>
  chunks.map((chunk) => (chunk.type === 'text-delta' ? chunk.delta : '')).join('');

describe('an answer', () => {
  test('is told once for each time that its message is sent, and runs once', async () => {
    const [chatId, transport] = [await fresh(), newTransport()];
    const message = user('hello there');
    const first = await whole(await transport.sendMessages(asked(chatId, message)));
    expect(textOf(first)).toBe('hello there');
    expect(first.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop' });
    expect(textOf(await whole(await transport.sendMessages(asked(chatId, message))))).toBe('hello there');
    expect((await transport.messages(chatId)).map(({ id }) => id)).toEqual([message.id, `run_${message.id}`]);
    expect(await transport.reconnectToStream({ chatId })).toBe(null);
  });

  test('that is being given is told from its start, though the session was read already', async () => {
    const chatId = await fresh();
    const client = newClient();
    const session = client.session(chatId);
    await session.send(ENDLESS);
    while (!session.messages.at(-1)?.text.includes('t20 ')) {
      await new Promise<void>((resolve) => {
        const end = session.subscribe(() => {
          end();
          resolve();
        });
      });
    }
    const transport = newTransport([], client);
    const stream = await transport.reconnectToStream({ chatId });
    await transport.stop(chatId);
    const chunks = await whole(stream);
    expect(chunks.map(({ type }) => type)).toContain('abort');
    expect(textOf(chunks)).toBe((await session.history()).messages.at(-1)?.text);
    expect(textOf(chunks)).toMatch(/^t0 t1 t2 /);
  });

  test('is cut short by another message, which is told as an answer of its own', async () => {
    const [chatId, transport] = [await fresh(), newTransport()];
    const first = (await transport.sendMessages(asked(chatId, user(ENDLESS)))).getReader();
    await until(first, 'text-delta');
    const second = await transport.sendMessages({ ...asked(chatId, user('at once')), body: { mode: 'interrupt' } });
    await until(first, 'abort');
    expect(textOf(await whole(second))).toBe('at once');
  });

  test('is not begun when its message is taken back, and the stream says so', async () => {
    const [chatId, transport] = [await fresh(), newTransport()];
    const running = (await transport.sendMessages(asked(chatId, user(ENDLESS)))).getReader();
    await until(running, 'text-delta');
    const waiting = user('waits');
    const stream = await transport.sendMessages(asked(chatId, waiting));
    await newClient().session(chatId).cancelInput(waiting.id);
    expect((await whole(stream)).map(({ type }) => type)).toEqual(['data-run', 'abort', 'finish']);
    await transport.stop(chatId);
  });

  test('of a human who has the lane is no answer, but a message', async () => {
    const [chatId, transport] = [await fresh(), newTransport()];
    const human = newClient(inject('people')['user-2']).session(chatId);
    await human.claimHandoff();
    const stream = await transport.sendMessages(asked(chatId, user('anybody there?')));
    expect((await whole(stream)).at(-1)).toEqual({ type: 'finish', finishReason: 'stop' });
    await human.send('yes');
    await expect.poll(() => transport.messages(chatId)).toHaveLength(2);
    expect((await transport.messages(chatId)).at(-1)).toMatchObject({ role: 'assistant', parts: [{ text: 'yes' }] });
  });
});

test('what is older than the run that is going on is among the messages; sent again, it is answered at once', async () => {
  const [chatId, first] = [await fresh(), newTransport()];
  const old = user('long ago');
  await whole(await first.sendMessages(asked(chatId, old)));
  const current = user(ENDLESS);
  const reader = (await first.sendMessages(asked(chatId, current))).getReader();
  await until(reader, 'text-delta');
  const later = newTransport();
  const ids = (await later.messages(chatId)).map(({ id }) => id);
  expect(ids.slice(0, 3)).toEqual([old.id, `run_${old.id}`, current.id]);
  const again = await whole(await later.sendMessages(asked(chatId, old)));
  expect(again.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop' });
  await later.stop(chatId);
});

test('two transports of one client may show the same chat', async () => {
  const [chatId, client] = [await fresh(), newClient()];
  const [one, two] = [newTransport([], client), newTransport([], client)];
  const first = await one.sendMessages(asked(chatId, user(ENDLESS)));
  const second = await two.reconnectToStream({ chatId }); // has the session read again, under the first one
  await two.stop(chatId);
  const [said, heard] = await Promise.all([whole(first), whole(second)]);
  expect(said.at(-1)).toMatchObject({ finishReason: 'other' });
  expect(textOf(heard)).toBe(textOf(said));
});

test('a tool with `execute` is executed by the client, once, whoever shows the chat', async () => {
  const chatId = await fresh('picking');
  let executions = 0;
  const tool: Tool = {
    name: 'pick_file',
    execute: () => {
      executions += 1;
      return { file: 'a.pdf' };
    },
  };
  const [one, two] = [newTransport([tool]), newTransport([tool])];
  await two.messages(chatId);
  const chunks = await whole(await one.sendMessages(asked(chatId, user('{"deadline_s": 60}'))));
  expect(textOf(chunks)).toBe('got a.pdf');
  expect(chunks.find(({ type }) => type === 'tool-input-available')).toMatchObject({ providerExecuted: true });
  expect(executions).toBe(1);
});

test('attachments of the session are sent as files, and shown as such', async () => {
  const client = newClient();
  const [chatId, transport] = [await fresh(), newTransport([], client)];
  const stored = await client.session(chatId).upload(new File(['hello'], 'a.txt', { type: 'text/plain' }));
  const url = `/v1/sessions/${chatId}/attachments/${stored.id}`;
  const file = { type: 'file', mediaType: 'text/plain', filename: 'a.txt', url };
  const text = { type: 'text', text: 'look' };
  const message = { ...user('look'), parts: [text, file] };
  expect(textOf(await whole(await transport.sendMessages(asked(chatId, message))))).toBe('look');
  await whole(await transport.sendMessages(asked(chatId, { ...user(''), parts: [file] })));
  const shown = await transport.messages(chatId);
  expect(shown.filter(({ role }) => role === 'user').map(({ parts }) => parts)).toEqual([[text, file], [file]]);
  const missing = { ...file, url: `/v1/sessions/${chatId}/attachments/nothing` };
  const refused = transport.sendMessages(asked(chatId, { ...user(''), parts: [missing] }));
  await expect(refused).rejects.toMatchObject({ code: 'attachment_not_found' });
});

test('what a session cannot do is refused, and nothing is stored', async () => {
  const [chatId, transport] = [await fresh(), newTransport()];
  const message = user('hello');
  const file = { ...message, parts: [{ type: 'file' }] };
  const answer: UIMessageLike = { id: 'run_x', role: 'assistant', parts: [] };
  const refused = { code: 'not_supported' };
  for (const request of [
    { ...asked(chatId, message), trigger: 'regenerate-message' as const },
    { ...asked(chatId, message), messageId: message.id },
    asked(chatId, file),
    asked(chatId, {
      ...message,
      parts: [{ type: 'file', url: '/v1/sessions/other/attachments/a' } as { type: string }],
    }),
    asked(chatId),
    asked(chatId, answer),
    asked(chatId, { ...answer, metadata: { runId: 'run_x', cursor: 'e:1' } }),
  ]) {
    await expect(transport.sendMessages(request)).rejects.toMatchObject(refused);
  }
  await expect(
    newTransport([], newClient(inject('people')['reader'])).sendMessages(asked(chatId, message)),
  ).rejects.toMatchObject({ code: 'not_allowed' });
  expect(await transport.messages(chatId)).toEqual([]);
});

test('a chat that is left, or whose client is closed, ends its streams', async () => {
  const [chatId, transport] = [await fresh(), newTransport()];
  const stream = await transport.sendMessages(asked(chatId, user(ENDLESS)));
  const reader = stream.getReader();
  await until(reader, 'text-delta');
  transport.close();
  await until(reader, 'error');
  expect(await reader.read()).toMatchObject({ done: true });
  await transport.stop(chatId); // read anew
});
