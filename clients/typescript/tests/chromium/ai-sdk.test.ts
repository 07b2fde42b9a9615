/**
 * `useChat` of the AI SDK 5, 6 and 7, unmodified, in real Chromium: over this package's transport and over the SDK's own,
 * against real gateways, one of which is killed. The tests mostly wait, so they run at once.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { build } from 'esbuild';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { AntiphonClient, type WebSocketConstructor } from '../../src/index.js';
import { Line, Servers, type Started } from '../support/servers.js';

const HERE = new URL('.', import.meta.url).pathname;
const EXECUTABLE = process.env['ANTIPHON_TEST_CHROMIUM'] ?? '/usr/bin/chromium';
const PACKAGE = `${HERE}../../`;
const MAJORS = ['5', '6', '7'];
const OPEN = { cors_origins: '*' };
const ENDLESS = 'stream 100000 tokens at 100/s';

const servers = new Servers();
let gateway: Started;
let browser: Browser;
let site: Server;
const apps: Record<string, string> = {};

/** The page, with the AI SDK of that version. */
async function bundled(major: string): Promise<void> {
  // one of them is beside the package's own dependencies
  const places = [`${PACKAGE}tests/ai-sdk${major}/node_modules/`, `${PACKAGE}node_modules/`];
  const at = (name: string) => `${places.find((place) => existsSync(place + name))}${name}`;
  const alias = { ai: at('ai'), '@ai-sdk/react': at('@ai-sdk/react') };
  expect(JSON.parse(readFileSync(`${alias.ai}/package.json`, 'utf8')).version).toMatch(new RegExp(`^${major}\\.`));
  const { outputFiles } = await build({
    entryPoints: [`${HERE}chat.tsx`],
    bundle: true,
    write: false,
    jsx: 'automatic',
    format: 'esm',
    target: 'es2022',
    alias,
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  apps[major] = outputFiles[0]?.text ?? '';
}

beforeAll(async () => {
  [gateway, browser] = await Promise.all([
    servers.gateway(OPEN),
    chromium.launch({ executablePath: EXECUTABLE, args: ['--no-sandbox', '--disable-gpu'] }),
    servers.worker(),
    servers.worker('tests.support.agents_people:picking', 'picking'),
    servers.worker('tests.support.agents_people:approving', 'approving'),
    ...MAJORS.map(bundled),
  ]);
  site = createServer((request, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(
      `<!doctype html><title>chat</title><body><script type="module">${apps[request.url?.slice(1) ?? ''] ?? ''}</script>`,
    );
  });
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
});

afterAll(async () => {
  await browser?.close();
  site?.close();
  await servers.end();
});

/** Does something when the test is over. */
type Finally = (end: () => void | Promise<void>) => void;

interface Opened {
  readonly major: string;
  readonly transport: string;
  readonly session: string;
  readonly url?: string;
  readonly sub?: string;
}

/** Somebody's page. */
async function open(finally_: Finally, { major, transport, session, url = gateway.url, sub = 'user-1' }: Opened) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  finally_(() => context.close());
  finally_(() => expect(faults).toEqual([]));
  const token = await servers.token({ sub, name: sub });
  const link = new URLSearchParams({ gateway: url, session, token, transport, major });
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/${major}#${link}`);
  await page.waitForSelector('main');
  return page;
}

async function say(page: Page, text: string): Promise<void> {
  await page.fill('input', text);
  await page.click('button:text-is("send")');
}

const idle = (page: Page, answers = 1): Promise<unknown> =>
  page.waitForFunction(
    `document.querySelector('main[data-status=ready]') && document.querySelectorAll('.assistant').length === ${answers}`,
  );

const longerThan = (page: Page, length: number): Promise<unknown> =>
  page.waitForFunction(`(document.querySelector('#messages > .assistant')?.textContent.length ?? 0) > ${length}`);

/** What the page shows, tools left out. */
const shown = (page: Page): Promise<string[]> =>
  page.locator('#messages > li').evaluateAll((items) =>
    items.map((item) => {
      const text = [...item.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ textContent }) => textContent);
      return `${item.className}: ${text.join('')}`;
    }),
  );

/** The session as the log has it, by a reader of its own. */
async function logged(session: string): Promise<string[]> {
  const client = await newClient();
  const { messages } = await client.session(session).history({ limit: 200 });
  await client.close();
  const told = messages.filter(({ role }) => role === 'user' || role === 'assistant');
  return told.map(({ role, text }) => `${role}: ${text}`);
}

async function newClient(): Promise<AntiphonClient> {
  const Socket = WebSocket as unknown as WebSocketConstructor;
  return new AntiphonClient({ url: gateway.url, token: await servers.token(), WebSocket: Socket });
}

async function fresh(pool?: string): Promise<string> {
  const session = `s-${randomUUID()}`;
  const client = await newClient();
  await client.session(session).create(pool === undefined ? {} : { config: { pool } });
  await client.close();
  return session;
}

describe.each(MAJORS)('ai %s', (major) => {
  describe.each(['ours', 'default'])('%s transport', (transport) => {
    test.concurrent('an answer is streamed, resumed after a reload, stopped; another one fails', async ({
      onTestFinished,
    }) => {
      const session = await fresh();
      const page = await open(onTestFinished, { major, transport, session });
      await say(page, ENDLESS);
      await longerThan(page, 200);
      await page.reload();
      await longerThan(page, 400);
      expect(await page.getAttribute('main', 'data-status')).toBe('streaming');
      await page.click('button:text-is("stop")');
      await idle(page);
      expect(await shown(page)).toEqual(await logged(session));

      await say(page, 'raise');
      await page.waitForSelector('main[data-status=error]');
      expect(await page.textContent('#error')).toBe('agent_error: the agent raised RuntimeError');
      await say(page, 'well again');
      await idle(page, 2);
      expect(await shown(page)).toEqual(await logged(session));
    });

    test.concurrent('a tool is executed in the page, and an approval decided', async ({ onTestFinished }) => {
      const picking = await fresh('picking');
      const page = await open(onTestFinished, { major, transport, session: picking });
      await say(page, '{"deadline_s": 60}');
      await page.waitForSelector('button:text-is("pick")');
      await page.waitForSelector('main[data-status=ready]');
      await page.reload(); // the call is still there to be executed
      await page.click('button:text-is("pick")');
      await page.waitForFunction('document.querySelector(".assistant")?.textContent.includes("got page.pdf")');
      await idle(page);
      expect(await shown(page)).toEqual(await logged(picking));
      expect(await page.getAttribute('fieldset', 'data-state')).toBe('output-available');
      const { executed } = await page.evaluate<{ executed: number }>('seen');
      await page.click('button:text-is("resume")'); // told again, it is not to be executed again
      await idle(page);
      expect(await page.evaluate('seen')).toMatchObject({ executed });

      const approving = await fresh('approving');
      const other = await open(onTestFinished, { major, transport, session: approving });
      await say(other, '{"default": "reject_once"}');
      await other.click('button:text-is("allow")');
      await other.waitForFunction(
        'document.querySelector(".assistant")?.textContent.includes("allow_once resolved by")',
      );
      await idle(other);
      expect(await shown(other)).toEqual(await logged(approving));
    });
  });

  test.concurrent('our transport: another tab is in step with what it did not ask for', async ({ onTestFinished }) => {
    const session = await fresh();
    const transport = 'ours';
    const one = await open(onTestFinished, { major, transport, session });
    const two = await open(onTestFinished, { major, transport, session, sub: 'user-2' });
    await say(one, ENDLESS);
    await longerThan(two, 100);
    expect(await two.getAttribute('main', 'data-status')).toBe('streaming');
    await two.click('button:text-is("stop")');
    await idle(one);
    await idle(two);
    await say(two, 'from the other one');
    await idle(one, 2);
    await idle(two, 2);
    const expected = await logged(session);
    expect(expected).toHaveLength(4);
    expect(await shown(one)).toEqual(expected);
    expect(await shown(two)).toEqual(expected);

    const picking = await fresh('picking');
    const first = await open(onTestFinished, { major, transport, session: picking });
    const second = await open(onTestFinished, { major, transport, session: picking });
    await say(first, '{"deadline_s": 60}');
    await second.click('button:text-is("pick")');
    await first.waitForFunction('document.querySelector(".assistant")?.textContent.includes("got page.pdf")');
    await idle(first);
    await idle(second);
    expect(await shown(first)).toEqual(await logged(picking));
    expect(await shown(second)).toEqual(await logged(picking));
  });

  test.concurrent('a gateway is killed: our transport goes on, the default one is resumed', async ({
    onTestFinished,
  }) => {
    const dying = await servers.gateway(OPEN);
    const targets = [dying];
    const line = new Line(targets);
    const url = await line.listen();
    onTestFinished(() => line.close());
    const sessions = [await fresh(), await fresh()] as const;
    const ours = await open(onTestFinished, { major, transport: 'ours', session: sessions[0], url });
    const fallback = await open(onTestFinished, { major, transport: 'default', session: sessions[1], url });
    const before = await ours.evaluate<number>('seen.finished');
    for (const page of [ours, fallback]) await say(page, ENDLESS);
    for (const page of [ours, fallback]) await longerThan(page, 200);
    targets[0] = gateway;
    await servers.kill(dying);
    await longerThan(ours, 1000);
    await ours.click('button:text-is("stop")');
    await idle(ours);
    expect(await shown(ours)).toEqual(await logged(sessions[0]));
    expect(await ours.textContent('#error')).toBe('');
    expect(await ours.evaluate('seen.finished')).toBe(before + 1);

    await fallback.waitForSelector('main[data-status=error]');
    // before version 7 `useChat` adds what is replayed in the same page to what it had: there it takes a reload
    if (major === '7') await fallback.click('button:text-is("resume")');
    else await fallback.reload();
    await fallback.waitForSelector('main[data-status=streaming]');
    await fallback.click('button:text-is("stop")');
    await idle(fallback);
    expect(await shown(fallback)).toEqual(await logged(sessions[1]));
  });
});
