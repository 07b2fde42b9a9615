/** What clients of AG-UI see of workers and gateways that die, or leave, in the middle of an answer. */
import { type HttpAgent, type HttpAgentConfig, HttpAgent as Modern } from '@ag-ui/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { AntiphonAgent } from '../../src/ag-ui/index.js';
import { until } from '../support/network.js';
import { Servers, type Started } from '../support/servers.js';
import { coreClient, fresh, opened, quietly, Seen } from './agents.js';

const WHOLE = Array.from({ length: 100 }, (_, n) => `t${n} `).join('');
const AGENT = 'tests.support.agents_agui:everything';
let servers: Servers;
let token: string;
let gateways: Started[];
let Legacy: new (config: HttpAgentConfig) => HttpAgent;
let checkQuiet = () => {};

beforeAll(async () => {
  const path = new URL('../agui0/node_modules/@ag-ui/client/dist/index.mjs', import.meta.url).pathname;
  Legacy = (await import(path)).HttpAgent;
  servers = new Servers(['default']);
  gateways = await servers.start(3, []);
  token = await servers.token();
});
afterAll(() => servers.end());
beforeEach(() => {
  checkQuiet = quietly();
  vi.spyOn(console, 'error').mockImplementation(() => {});
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
  checkQuiet();
  vi.restoreAllMocks();
});

const urlOf = (n: number) => gateways[n]?.url ?? '';
const http = (Agent: new (config: HttpAgentConfig) => HttpAgent, n: number, threadId = fresh()) =>
  new Seen(new Agent({ url: `${urlOf(n)}/v1/ag-ui`, headers: { Authorization: `Bearer ${token}` }, threadId }));
const socket = (...ns: readonly number[]) =>
  new Seen(new AntiphonAgent({ client: coreClient(ns.map(urlOf), token), threadId: fresh() }));

const said = (seen: Seen) =>
  seen.agent.messages.map(({ role, content }) => (role === 'assistant' ? content : '')).join('');

/** Runs until each is in the middle of its answer. */
async function speaking(all: readonly Seen[]): Promise<Promise<unknown>[]> {
  const running = all.map((seen) => seen.say('long'));
  await until(() => all.every((seen) => said(seen).length > 20));
  return running;
}

/**
 * `@ag-ui/client` cancels the reader of a body that has failed, and throws what comes of that at nobody. Everything else
 * that nobody handles still fails the tests.
 */
function pardonTerminated(): () => void {
  const listeners = process.listeners('unhandledRejection');
  const pardon = (error: unknown, promise: Promise<unknown>) => {
    if ((error as Error).message !== 'terminated') for (const listener of listeners) listener(error, promise);
  };
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', pardon);
  return () => {
    process.removeAllListeners('unhandledRejection');
    for (const listener of listeners) process.on('unhandledRejection', listener);
  };
}

test('another worker takes over', async () => {
  const worker = await servers.worker(AGENT);
  const all = [http(Modern, 0), http(Legacy, 0), socket(0)];
  const running = await speaking(all);
  await servers.kill(worker);
  const another = await servers.worker(AGENT);
  await Promise.all(running);
  for (const seen of all) {
    expect(said(seen)).toBe(WHOLE);
    expect(seen.outcome).toBe('success');
    const steps = seen.types.filter((type) => type.startsWith('STEP'));
    expect(steps).toEqual(['STEP_STARTED', 'STEP_FINISHED', 'STEP_STARTED', 'STEP_FINISHED']);
  }
  await servers.kill(another);
});

describe('a gateway goes', () => {
  let worker: Started;
  beforeAll(async () => {
    worker = await servers.worker(AGENT);
  });
  afterAll(() => servers.kill(worker));

  test('HttpAgents are told when it leaves, and go on elsewhere', async () => {
    const all = [http(Modern, 1), http(Legacy, 1)];
    const running = await speaking(all);
    await servers.terminate(gateways[1] as Started);
    await Promise.all(running);
    for (const seen of all) {
      expect(seen.last).toMatchObject({ type: 'RUN_ERROR', code: 'draining' });
      const later = http(Modern, 0, seen.agent.threadId);
      later.agent.setMessages(seen.agent.messages);
      await later.go();
      expect(said(later)).toBe(WHOLE);
    }
  });

  test('HttpAgents fail when it is killed; an AntiphonAgent does not even notice', async () => {
    onTestFinished(pardonTerminated());
    const [modern, legacy, resuming] = [http(Modern, 2), http(Legacy, 2), socket(2, 0)];
    const running = await speaking([modern, legacy, resuming]);
    await servers.kill(gateways[2] as Started);
    const ends = await Promise.allSettled(running);
    expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled']);
    expect([modern.errors.length, legacy.errors.length]).toEqual([1, 1]);
    expect(said(resuming)).toBe(WHOLE);
    expect(resuming.types).not.toContain('MESSAGES_SNAPSHOT');
  });
});
