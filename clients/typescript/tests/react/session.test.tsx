/** `useSession` under React 19, and (as another project of vitest.config.ts) under React 18. */
import { act, type ReactNode, StrictMode, version } from 'react';
import { createRoot, hydrateRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest';
import { AntiphonClient } from '../../src/index.js';
import {
  AntiphonProvider,
  type UsedSession,
  type UseSessionOptions,
  useConnection,
  useSession,
} from '../../src/react/index.js';
import {
  applied,
  caughtUp,
  delta,
  entry,
  finished,
  Network,
  type Peer,
  START,
  sent,
  snapshot,
  started,
} from '../support/network.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

let network: Network;
let client: AntiphonClient;
let root: Root | null = null;
let place: HTMLElement;
let used: UsedSession;
let renders: number;
const frames: (() => void)[] = [];

beforeEach(() => {
  network = new Network();
  client = made();
  place = document.body.appendChild(document.createElement('div'));
  renders = 0;
  frames.length = 0;
  vi.stubGlobal('requestAnimationFrame', (draw: () => void) => frames.push(draw));
  vi.stubGlobal('cancelAnimationFrame', (n: number) => {
    frames[n - 1] = () => {};
  });
});

afterEach(async () => {
  act(() => root?.unmount());
  root = null;
  await client.close();
  place.remove();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const made = () =>
  new AntiphonClient({ url: 'http://gateway', token: 't1', random: () => 0, WebSocket: network.WebSocket });

/** The next frame is drawn. */
const draw = () =>
  act(async () => {
    for (const frame of frames.splice(0)) frame();
  });

/** Something comes, from the network or from the browser. */
const comes = (what: () => unknown) =>
  act(async () => {
    await what();
  });

function Chat({ name = 'demo', ...options }: { name?: string } & UseSessionOptions) {
  used = useSession(name, options);
  renders += 1;
  return (
    <main data-status={used.status} data-phase={useConnection().phase}>
      {used.messages.map((message) => (
        <p key={message.id}>{message.text}</p>
      ))}
    </main>
  );
}

const texts: string[] = [];

function Other() {
  texts.push(
    useSession('demo')
      .messages.map(({ text }) => text)
      .join(),
  );
  return null;
}

async function show(children: ReactNode): Promise<void> {
  const now = root ?? createRoot(place);
  root = now;
  await act(async () => now.render(<AntiphonProvider client={client}>{children}</AntiphonProvider>));
}

async function shown(children: ReactNode = <Chat />): Promise<Peer> {
  await show(children);
  const peer = await network.accept();
  await act(() => peer.opened());
  await draw();
  return peer;
}

test('this is the React that the project says', () => {
  expect(version.split('.')[0]).toBe(inject('react'));
});

describe('what is shown', () => {
  test('messages, what waits apart from them, approvals, people, the connection', async () => {
    const peer = await shown();
    const by = { kind: 'user', id: 'user-1', name: 'A user', roles: [] };
    peer.send(sent(1, 0, 'i'), started(2, 1), applied(3, 2), entry(4, 3, [START]), delta(5, 4, 0, 'Hello'));
    peer.send(sent(6, 5, 'next', 'And then?'));
    const approval = {
      type: 'approval.requested',
      approvalId: 'a',
      message: 'Delete?',
      options: ['allow_once'],
      quorum: 1,
    };
    peer.send(entry(7, 6, [approval], { run: 'run_i' }));
    peer.send({ op: 'session.presence', session: 'demo', participants: [{ ...by, state: 'active', devices: [] }] });
    await draw();
    expect(used.messages.map(({ role, text }) => [role, text])).toEqual([
      ['user', 'hi'],
      ['assistant', 'Hello'],
    ]);
    expect(used.queue.map(({ content }) => content)).toEqual(['And then?']);
    expect(used.approvals.map(({ message }) => message)).toEqual(['Delete?']);
    expect(used.people.map(({ name }) => name)).toEqual(['A user']);
    expect(used).toMatchObject({ status: 'requires_action', isLive: true, error: null, connection: { phase: 'open' } });
    expect(place.innerHTML).toContain('<p>Hello</p>');
    await comes(() => peer.close(4200, { code: 'draining', retry_after_ms: 60_000 }));
    await draw();
    expect(used).toMatchObject({ isLive: false, connection: { phase: 'waiting' } });
  });

  test('deltas are drawn once per frame, and what has not changed is the same', async () => {
    const peer = await shown();
    peer.send(entry(1, 0, [START]));
    await draw();
    const before = used;
    renders = 0;
    for (let n = 0; n < 100; n += 1) peer.send(delta(2 + n, 1 + n, n, 'x'));
    expect(renders).toBe(0);
    await draw();
    expect(renders).toBe(1);
    expect(used.messages.at(-1)?.text).toBe('x'.repeat(100));
    expect(used.state).toBe(before.state);
    expect(used.send).toBe(before.send);
    expect(used.messages[0]).not.toBe(before.messages[0]);
    await draw();
    expect(renders).toBe(1);
  });

  test('a hidden tab, which draws no frames, is kept up to date', async () => {
    const peer = await shown();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const visibility = vi.spyOn(document, 'visibilityState', 'get').mockReturnValue('hidden');
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'unseen'));
    await act(() => vi.advanceTimersByTimeAsync(250));
    expect(used.messages.at(-1)?.text).toBe('unseen');
    visibility.mockRestore();
    // a frame that was asked for while it was visible, and then never comes
    peer.send(delta(3, 2, 6, '!'));
    await act(async () => document.dispatchEvent(new Event('visibilitychange')));
    expect(used.messages.at(-1)?.text).toBe('unseen!');
  });

  test('two components show the same, by one subscription', async () => {
    texts.length = 0;
    const peer = await shown([<Chat key="a" />, <Other key="b" />]);
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'both'));
    await draw();
    expect(used.messages[0]?.text).toBe('both');
    expect(texts.at(-1)).toBe('both');
    expect(peer.all.filter(({ op }) => op === 'subscribe').length).toBe(1);
  });

  test('another session by another name', async () => {
    const peer = await shown();
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'first'));
    await draw();
    await show(<Chat name="other" />);
    expect(used.messages).toEqual([]);
    await peer.subscribed(null, 'other');
    peer.send(snapshot(0, { title: 'Other' }, 'other'), caughtUp(0, 'other'));
    await draw();
    expect(used.state.title).toBe('Other');
  });
});

describe('what a person does', () => {
  test('sends, and sees it at once; stops; responds; takes over and gives back', async () => {
    const peer = await shown();
    const sending = used.send('hi', { inputId: 'i' });
    await draw();
    expect(used.sending).toEqual([{ inputId: 'i', content: 'hi', mode: null }]);
    await peer.takeInput(1);
    peer.send(sent(1, 0, 'i'), started(2, 1), applied(3, 2));
    await draw();
    expect(used.sending).toEqual([]);
    const receipt = await sending;
    const stopping = used.stop();
    peer.ok(await peer.expect('run.cancel', { session: 'demo', runId: 'run_i' }), { status: 'cancelling' });
    await stopping;
    peer.send(finished(4, 3, 'i', 'cancelled'));
    expect((await receipt.finished()).kind).toBe('cancelled');
    await draw();
    await used.stop(); // there is nothing to stop
    const responding = used.respond('a', 'allow_once');
    peer.ok(await peer.expect('approval.respond', { approvalId: 'a', option: 'allow_once' }), { status: 'resolved' });
    expect(await responding).toMatchObject({ status: 'resolved' });
    const taking = used.takeOver({ handoffId: 'h' });
    peer.ok(await peer.expect('handoff.claim', { handoffId: 'h' }), { fence: 9 });
    expect(await taking).toBe(9);
    const giving = used.giveBack({ note: 'go on' });
    peer.ok(await peer.expect('handoff.return', { note: 'go on' }));
    await giving;
  });

  test('a refusal reaches whoever sent', async () => {
    const peer = await shown();
    const sending = used.send('hi');
    peer.error(await peer.expect('input.send'), 'session_closed');
    await expect(sending).rejects.toMatchObject({ code: 'session_closed' });
    await draw();
    expect(used.sending).toEqual([]);
  });

  test('a tool of the page is declared before the first subscription, and its latest code is executed', async () => {
    const tool = (said: string) => [{ name: 'say', execute: () => ({ said }) }];
    await show(<Chat tools={tool('old')} />);
    await show(<Chat tools={tool('new')} />);
    const peer = await network.accept();
    await comes(() => peer.welcome());
    const command = await peer.subscribed();
    expect(command['tools']).toMatchObject([{ name: 'say', parameters: { type: 'object' } }]);
    const run = { runId: 'run_i', lane: 'main', inputId: 'i', attempt: 1, cancel: null, parent: null, agent: null };
    const call = { toolCallId: 'c', lane: 'main', runId: 'run_i', name: 'say', args: {}, executor: 'client' };
    await act(async () => peer.send(snapshot(1, { runs: [run], calls: [call] }), caughtUp(1)));
    const claim = await peer.expect('tool.claim', { toolCallId: 'c' });
    peer.ok(claim);
    const result = await peer.expect('tool.result', { claimId: claim['claimId'] });
    expect(result).toMatchObject({ result: { said: 'new' } });
    peer.ok(result, { status: 'resolved' });
    await show(<Chat />);
    peer.ok(await peer.expect('unsubscribe'));
    expect((await peer.subscribed('mb1x9k:1'))['tools']).toBe(undefined);
  });
});

describe('lifetime', () => {
  test('unmounting detaches and cancels nothing; what was being sent is sent', async () => {
    const peer = await shown();
    const sending = used.send('hi', { inputId: 'i' });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    act(() => root?.unmount());
    root = null;
    await vi.advanceTimersByTimeAsync(5000);
    const ops = peer.all.map(({ op }) => op);
    expect(ops).toEqual(['hello', 'subscribe', 'input.send', 'unsubscribe']);
    expect(await peer.takeInput(1)).toBe('i');
    expect((await sending).seq).toBe(1);
    expect(client.status.phase).toBe('open');
  });

  test('StrictMode, and a component that comes back at once: one subscription, nothing lost', async () => {
    const peer = await shown(
      <StrictMode>
        <Chat />
      </StrictMode>,
    );
    await show(null);
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'meanwhile'));
    await show(
      <StrictMode>
        <Chat />
      </StrictMode>,
    );
    expect(used.messages[0]?.text).toBe('meanwhile');
    expect(peer.all.map(({ op }) => op)).toEqual(['hello', 'subscribe']);
  });

  test('a component that comes back later reads anew', async () => {
    const peer = await shown();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    await show(null);
    await vi.advanceTimersByTimeAsync(2000);
    peer.ok(await peer.expect('unsubscribe'));
    await show(<Chat />);
    await peer.subscribed();
    peer.send(snapshot(7), caughtUp(7));
    await draw();
    expect(used.isLive).toBe(true);
  });

  test('on a server nothing is connected, and the page takes over what it sent', async () => {
    const page = (
      <AntiphonProvider client={client}>
        <Chat />
      </AntiphonProvider>
    );
    const html = renderToString(page);
    expect(html).toBe('<main data-status="idle" data-phase="idle"></main>');
    expect(network.peers).toEqual([]);
    place.innerHTML = html;
    const faults = vi.spyOn(console, 'error');
    await act(async () => {
      root = hydrateRoot(place, page);
    });
    const peer = await network.accept();
    await act(() => peer.opened());
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'Hello'));
    await draw();
    expect(place.textContent).toBe('Hello');
    expect(faults).not.toHaveBeenCalled();
  });

  test('a client that has stopped says why', async () => {
    const peer = await shown();
    await comes(() => peer.close(4401, { code: 'unauthorized' }));
    await draw();
    expect(used).toMatchObject({ error: { code: 'unauthorized' }, connection: { phase: 'stopped' } });
  });
});
