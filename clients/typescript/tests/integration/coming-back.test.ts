/** The client when connections end: gateways that are killed, sockets that are cut at any byte, tokens that run out. */
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import {
  AntiphonClient,
  type ClientOptions,
  type Entry,
  type Message,
  type WebSocketConstructor,
} from '../../src/index.js';
import { until } from '../support/network.js';
import { randomOf } from '../support/random.js';
import { Line, Servers, type Started } from '../support/servers.js';

const CUTS = 1000;
const READERS = 12;
const TOKENS = 300;
const ANSWER = tokens(TOKENS);

const servers = new Servers();
let gateways: Started[] = [];
let token = '';
const ends: (() => unknown)[] = [];

beforeAll(async () => {
  // the second one has to go back to the log for almost everything
  gateways = [await servers.gateway(), await servers.gateway({ ring_entries: '8' })];
  await servers.worker();
  token = await servers.token();
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

afterAll(() => servers.end());

function client(options: Partial<ClientOptions> & Pick<ClientOptions, 'url'>): AntiphonClient {
  const Socket = WebSocket as unknown as WebSocketConstructor;
  const made = new AntiphonClient({ token, WebSocket: Socket, ...options });
  ends.push(() => made.close());
  return made;
}

async function lineTo(targets: readonly Started[] = gateways): Promise<[Line, string]> {
  const made = new Line(targets);
  ends.push(() => made.close());
  return [made, await made.listen()];
}

function tokens(count: number): string {
  return Array.from({ length: count }, (_, n) => `t${n} `).join('');
}

/** Iterates over a session until it is told to stop; checks the chain. */
async function follow(session: ReturnType<AntiphonClient['session']>, signal: AbortSignal): Promise<Entry[]> {
  const entries: Entry[] = [];
  let last: number | null = null;
  try {
    for await (const event of session.events({ signal })) {
      if (event.type === 'snapshot') last = event.asOf;
      if (event.type !== 'entry') continue;
      if (last !== null && event.prev !== last) throw new Error(`entry ${event.seq} does not follow ${last}`);
      last = event.seq;
      entries.push(event);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return entries;
}

test('gateways that are killed and that leave in the middle of an answer', async () => {
  const [dying, leaving] = [await servers.gateway(), await servers.gateway()];
  const all = [dying, leaving, gateways[0] as Started];
  const session = client({ url: all.map(({ url }) => url) }).session(`s-${randomUUID()}`);
  const stop = new AbortController();
  const following = follow(session, stop.signal);
  const receipt = await session.send(`stream ${TOKENS} tokens at 150/s`);
  const said = () => session.messages.find(({ role }) => role === 'assistant')?.text.length ?? 0;
  await until(() => said() > ANSWER.length / 4);
  await servers.kill(dying);
  await until(() => said() > ANSWER.length / 2);
  const [meanwhile] = await Promise.all([session.send('hello'), servers.ask({ terminate: leaving.number })]);
  expect((await receipt.finished()).kind).toBe('success');
  expect((await meanwhile.finished()).kind).toBe('success');
  stop.abort();
  const seqs = (await following).map(({ seq }) => seq);
  expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b));
  expect(session.messages.filter(({ role }) => role === 'assistant').map(({ text }) => text)).toEqual([
    ANSWER,
    'hello',
  ]);
});

test('a thousand sockets cut at any byte: nothing is lost, nothing comes twice', async () => {
  const seed = Number(process.env['ANTIPHON_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
  process.stdout.write(`seed ${seed}\n`);
  const random = randomOf(seed);
  const name = `cut-${randomUUID()}`;
  const writer = client({ url: gateways[0]?.url ?? '' }).session(name);
  await writer.create();
  const stop = new AbortController();
  setMaxListeners(READERS, stop.signal);
  const lines: Line[] = [];
  const cuts = () => lines.reduce((sum, line) => sum + line.cuts, 0);
  const readers = await Promise.all(
    Array.from({ length: READERS }, async (_, n) => {
      const [line, url] = await lineTo();
      lines.push(line);
      const one = client({ url, random: () => random() * 0.1, settings: { bufferEvents: n % 2 ? 32 : 1024 } });
      one.subscribe(() => {
        if (one.status.phase !== 'connecting') return;
        // often in the middle of the handshake or the replay, else some way into the stream
        const somewhere = Math.floor(random() < 0.5 ? random() * 3000 : 3000 + random() * 9000);
        line.cutAfter = cuts() < CUTS ? somewhere : Number.POSITIVE_INFINITY;
      });
      const session = one.session(name, { every: n % 4 < 2 });
      return { session, following: follow(session, stop.signal) };
    }),
  );
  let runs = 0;
  while (cuts() < CUTS) {
    runs += 1;
    await (await writer.send(`stream ${TOKENS} tokens at 500/s`)).finished();
  }
  for (const line of lines) line.cutAfter = Number.POSITIVE_INFINITY;
  await (await writer.send('last')).finished();
  await until(() => readers.every(({ session }) => session.state.status === 'idle' && said(session).at(-1) === 'last'));
  stop.abort();
  const expected = [...Array.from({ length: runs }, () => ANSWER), 'last'];
  expect(said(writer)).toEqual(expected);
  for (const { session, following } of readers) {
    const seqs = (await following).map(({ seq }) => seq);
    expect(seqs).toEqual([...new Set(seqs)].sort((a, b) => a - b));
    expect(said(session)).toEqual(expected);
    expect(session.messages.map(plain)).toEqual(writer.messages.map(plain));
  }
  process.stdout.write(`${cuts()} cuts over ${runs} runs, text identical\n`);
}, 110_000);

const said = (session: ReturnType<AntiphonClient['session']>): string[] =>
  session.messages.filter(({ role }) => role === 'assistant').map(({ text }) => text);

const plain = ({ id, role, text, status, reason }: Message) => ({ id, role, text, status, reason });

test('a token is renewed in place, before it expires', async () => {
  const gateway = await servers.gateway({ jwt_leeway_s: '0' });
  let asked = 0;
  const one = client({
    url: gateway.url,
    token: () => {
      asked += 1;
      return servers.token({}, 2.2);
    },
  });
  const { connection } = await one.connect();
  const session = one.session(`s-${randomUUID()}`);
  const receipt = await session.send('stream 240 tokens at 60/s');
  expect((await receipt.finished()).kind).toBe('success');
  expect(asked).toBeGreaterThan(1);
  expect(one.welcome?.connection).toBe(connection);
  expect(await servers.output(gateway)).not.toContain('token_expired');
});

test('a network that is gone without a word is noticed, and nothing is lost', async () => {
  const [line, url] = await lineTo();
  // a heartbeat of a second, so that the silence is noticed soon
  const one = client({ url, settings: { livenessTimeoutMs: 300, connectTimeoutMs: 500, backoffCapMs: 200 } });
  const session = one.session(`s-${randomUUID()}`);
  const receipt = await session.send(`stream ${TOKENS} tokens at 150/s`);
  await until(() => (session.messages[1]?.text.length ?? 0) > 100);
  line.isGone = true;
  globalThis.dispatchEvent?.(new Event('offline'));
  const queued = session.send('sent while the network is gone', { inputId: randomUUID().replaceAll('-', '') });
  await until(() => session.view.sending.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  line.isGone = false;
  line.cut();
  expect((await receipt.finished()).kind).toBe('success');
  expect((await (await queued).finished()).kind).toBe('success');
  expect(said(session)).toEqual([ANSWER, 'sent while the network is gone']);
});
