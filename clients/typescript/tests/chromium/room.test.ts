/** Rooms in real Chromium, under React 18 and 19, against real gateways that are killed and a network that goes away. */
import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { build } from 'esbuild';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { AntiphonClient, type WebSocketConstructor } from '../../src/index.js';
import { Line, Servers, type Started } from '../support/servers.js';

const HERE = new URL('.', import.meta.url).pathname;
const EXECUTABLE = process.env['ANTIPHON_TEST_CHROMIUM'] ?? '/usr/bin/chromium';
/** How long the network is away; the laptop that sleeps for 30 s is ANTIPHON_TEST_OFFLINE_S=30. */
const OFFLINE_MS = Number(process.env['ANTIPHON_TEST_OFFLINE_S'] ?? 3) * 1000;
const ANSWER = Array.from({ length: 300 }, (_, n) => `t${n} `).join('');
const QUESTION = 'stream 300 tokens at 100/s';

const servers = new Servers();
let gateway: Started;
let browser: Browser;
let site: Server;
let token = '';
const apps: Record<string, string> = {};
const ends: (() => unknown)[] = [];

/** The page, with the React of that version. */
async function bundled(react: string): Promise<string> {
  const at = `${HERE}../../${react === '18' ? 'tests/react18/' : ''}node_modules/`;
  const alias = { react: `${at}react`, 'react-dom': `${at}react-dom` };
  const options = {
    bundle: true,
    write: false,
    jsx: 'automatic',
    format: 'esm',
    define: { 'process.env.NODE_ENV': '"production"' },
  };
  const { outputFiles } = await build({ ...options, alias, entryPoints: [`${HERE}app.tsx`] } as Parameters<
    typeof build
  >[0]);
  return outputFiles?.[0]?.text ?? '';
}

/** The pages of this test are not the gateways' own. */
const OPEN = { cors_origins: '*' };

beforeAll(async () => {
  [gateway, browser, apps['18'], apps['19']] = await Promise.all([
    servers.gateway(OPEN),
    chromium.launch({ executablePath: EXECUTABLE, args: ['--no-sandbox', '--disable-gpu'] }),
    bundled('18'),
    bundled('19'),
  ]);
  await Promise.all([servers.worker(), servers.worker('tests.support.agents_people:picking', 'picking')]);
  await servers.worker('tests.support.agents_people:approving', 'approving');
  token = await servers.token();
  site = createServer((request, response) => {
    const react = request.url?.slice(1) ?? '';
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(`<!doctype html><title>page</title><body><script type="module">${apps[react] ?? ''}</script>`);
  });
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

afterAll(async () => {
  await browser?.close();
  site?.close();
  await servers.end();
});

/** Somebody's page. It must log no error but that its network is away. */
async function open(react: string, session: string, url: string, sub = 'user-1'): Promise<Page> {
  const context = await browser.newContext();
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on(
    'console',
    (said) => said.type() === 'error' && !/WebSocket|ERR_|favicon|404/.test(said.text()) && faults.push(said.text()),
  );
  ends.push(
    () => context.close(),
    () => expect(faults).toEqual([]),
  );
  const link = new URLSearchParams({ gateway: url, session, token: await servers.token({ sub, name: sub }) });
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/${react}#${link}`);
  await page.waitForSelector('main[data-live=true]');
  return page;
}

async function say(page: Page, text: string, button = 'send'): Promise<void> {
  await page.fill('input', text);
  await page.click(`button:text-is("${button}")`);
}

const texts = (page: Page, role: string): Promise<string[]> => page.locator(`#messages > .${role}`).allTextContents();

const until = (page: Page, holds: string): Promise<unknown> => page.waitForFunction(holds);

const longerThan = (length: number) =>
  `(document.querySelector('#messages > .assistant')?.textContent.length ?? 0) > ${length}`;

/** The session as the log has it, by a reader of its own. */
async function logged(name: string): Promise<string[]> {
  const Socket = WebSocket as unknown as WebSocketConstructor;
  const reader = new AntiphonClient({ url: gateway.url, token, WebSocket: Socket });
  const { messages } = await reader.session(name).history({ limit: 200 });
  await reader.close();
  return messages.map(({ role, text }) => `${role}: ${text}`);
}

const seen = (page: Page): Promise<string[]> =>
  page.locator('#messages > li').evaluateAll((items) => items.map((item) => `${item.className}: ${item.textContent}`));

async function fresh(pool?: string): Promise<string> {
  const name = `s-${randomUUID()}`;
  const Socket = WebSocket as unknown as WebSocketConstructor;
  const maker = new AntiphonClient({ url: gateway.url, token, WebSocket: Socket });
  await maker.session(name).create(pool === undefined ? {} : { config: { pool } });
  await maker.close();
  return name;
}

describe.each(['18', '19'])('React %s', (react) => {
  test('an answer is drawn once a frame; a reload and leaving the room in the middle of it lose nothing', async () => {
    const name = await fresh();
    const page = await open(react, name, gateway.url);
    expect(await page.evaluate('reactVersion')).toMatch(new RegExp(`^${react}\\.`));
    await say(page, 'stream 3000 tokens at 1500/s');
    await until(page, longerThan(4000));
    await page.click('button:text-is("leave")');
    await page.click('button:text-is("come back")');
    await until(page, longerThan(8000));
    await page.reload();
    await page.waitForSelector('main[data-live=true]');
    await page.waitForSelector('main[data-status=idle]');
    expect(await texts(page, 'assistant')).toEqual([Array.from({ length: 3000 }, (_, n) => `t${n} `).join('')]);
    expect(await seen(page)).toEqual(await logged(name));
    await say(page, 'stream 2000 tokens at 1000/s');
    await page.evaluate('counts.renders = 0');
    await page.waitForSelector('main[data-status=running]');
    await page.waitForSelector('main[data-status=idle]');
    expect(await page.evaluate('counts.renders')).toBeLessThan(2 * 2 * 60 * 2.5); // StrictMode, 2 s, 60 a second
    expect(await seen(page)).toEqual(await logged(name));
  });
});

describe('React 19, with more to go wrong', () => {
  const react = '19';

  test('two people, one gateway that is killed, and a network that goes away, in the middle of an answer', async () => {
    const dying = await servers.gateway(OPEN);
    const line = new Line([dying, gateway]);
    const url = await line.listen();
    ends.push(() => line.close());
    const name = await fresh();
    const [one, two] = [await open(react, name, url), await open(react, name, gateway.url, 'user-2')];
    await one.waitForFunction('document.querySelector("#people").textContent.includes("user-2")');
    await say(one, QUESTION);
    await until(one, longerThan(300));
    await servers.kill(dying);
    await until(one, longerThan(600));
    line.isGone = true;
    await one.context().setOffline(true);
    await say(one, 'sent while the network is away');
    await two.waitForSelector('main[data-status=idle]');
    await new Promise((resolve) => setTimeout(resolve, OFFLINE_MS));
    line.isGone = false;
    line.cut();
    await one.context().setOffline(false);
    await one.waitForFunction('document.querySelectorAll("#messages > .assistant").length === 2');
    await one.waitForSelector('main[data-status=idle]');
    expect(await texts(one, 'assistant')).toEqual([ANSWER, 'sent while the network is away']);
    await two.waitForFunction('document.querySelectorAll("#messages > .assistant").length === 2');
    await two.waitForSelector('main[data-status=idle]');
    expect(await seen(two)).toEqual(await seen(one));
    expect(await seen(one)).toEqual(await logged(name));
  });

  test('steering, stopping, an approval from another page, and a tool that is executed in the page', async () => {
    const name = await fresh();
    const [one, two] = [await open(react, name, gateway.url), await open(react, name, gateway.url, 'user-2')];
    await say(one, 'stream 100000 tokens at 100/s');
    await until(two, longerThan(20));
    await say(two, 'waits');
    await one.waitForFunction('document.querySelector("#queue").textContent === "waits"');
    await say(two, 'at once', 'interrupt');
    await one.waitForFunction('document.querySelectorAll("#messages > .assistant").length === 3');
    await one.waitForSelector('main[data-status=idle]');
    expect((await texts(one, 'assistant')).slice(1)).toEqual(['at once', 'waits']);
    await say(one, 'hang');
    await one.waitForSelector('main[data-status=running]');
    await two.waitForFunction('document.querySelectorAll("#messages > .user").length === 4');
    await two.click('button:text-is("stop")');
    await one.waitForSelector('main[data-status=idle]');
    expect(await seen(one)).toEqual(await logged(name));

    const asking = await fresh('approving');
    const [asker, approver] = [
      await open(react, asking, gateway.url),
      await open(react, asking, gateway.url, 'user-2'),
    ];
    await say(asker, '{"default": "reject_once"}');
    await approver.click('button:text-is("allow_once")');
    await asker.waitForFunction(
      'document.querySelector("#messages > .assistant")?.textContent.startsWith("allow_once")',
    );

    const picking = await fresh('picking');
    const picker = await open(react, picking, gateway.url);
    await say(picker, '{"deadline_s": 20}');
    await picker.waitForFunction('document.querySelector("#messages > .assistant")?.textContent === "got page.pdf"');
  });
});
