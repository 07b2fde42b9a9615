/** The client against the other end of its sockets: what the shared conversations do not say. */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AntiphonClient, AntiphonError, type ClientOptions, type SessionEvent } from '../../src/index.js';
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

let network: Network;
const opened: AntiphonClient[] = [];

beforeEach(() => {
  network = new Network();
});

afterEach(async () => {
  vi.useRealTimers();
  await Promise.all(opened.splice(0).map((each) => each.close()));
});

function client(options: Partial<ClientOptions> = {}): AntiphonClient {
  const { WebSocket } = network;
  const made = new AntiphonClient({ url: 'http://gateway', token: 't1', random: () => 0, WebSocket, ...options });
  opened.push(made);
  return made;
}

/** Lets everything happen that needs no time; with fake timers, too. */
const settle = async () => {
  for (let n = 0; n < 20; n += 1) await Promise.resolve();
};

const ALL_TIMERS: Parameters<typeof vi.useFakeTimers>[0] = {
  toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'],
};

describe('addresses', () => {
  test.each([
    ['http://host', 'ws://host/v1/connect'],
    ['https://host:8443/', 'wss://host:8443/v1/connect'],
    ['wss://host/behind/a/path?x=1', 'wss://host/behind/a/path?x=1'],
  ])('%s', async (url, expected) => {
    client({ url }).session('demo').follow();
    expect((await network.accept()).url).toBe(expected);
  });

  test('what is none', () => {
    expect(() => client({ url: 'ftp://host' })).toThrow(RangeError);
    expect(() => client({ url: [] })).toThrow(RangeError);
    expect(() => client({ device: 'not a name' })).toThrow(RangeError);
  });

  test('without any, nothing fails until it is needed: a page that is rendered on a server has none', async () => {
    const { WebSocket } = network;
    const one = new AntiphonClient({ token: 't1', WebSocket });
    await expect(one.connect()).rejects.toMatchObject({ code: 'no_address' });
  });

  test('without a WebSocket it says what to do', async () => {
    vi.stubGlobal('WebSocket', undefined);
    const one = new AntiphonClient({ url: 'http://gateway', token: 't1' });
    await expect(one.session('demo').send('hi')).rejects.toMatchObject({ code: 'no_websocket' });
    vi.unstubAllGlobals();
  });

  test('several are tried in turn', async () => {
    client({ url: ['http://one', 'http://two'] })
      .session('demo')
      .follow();
    const hosts: string[] = [];
    for (let n = 0; n < 3; n += 1) {
      const peer = await network.accept();
      hosts.push(new URL(peer.url).host);
      peer.cut();
    }
    expect(hosts).toEqual(['one', 'two', 'one']);
  });
});

describe('the connection', () => {
  test('is made when somebody needs it', async () => {
    const one = client();
    one.session('demo');
    await settle();
    expect(network.peers).toEqual([]);
    expect(one.status.phase).toBe('idle');
    const connecting = one.connect();
    const peer = await network.accept();
    await peer.welcome();
    expect(await connecting).toMatchObject({ gateway: 'gw', user: { id: 'user-1' }, heartbeatMs: 25_000 });
    expect(one.status.phase).toBe('open');
  });

  test('says who it is, and keeps its device', async () => {
    const one = client({ name: 'a-page/2' });
    one.session('demo').follow();
    const first = await network.accept();
    const hello = await first.welcome();
    expect(hello).toMatchObject({ client: 'a-page/2', device: one.device });
    first.cut();
    expect(await (await network.accept()).welcome()).toMatchObject({ device: one.device });
  });

  test('comes back with full jitter, from the shortest pause on after something new', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    client({ random: () => 0.5 })
      .session('demo')
      .follow();
    let peer = await network.accept();
    /** Cuts, and answers how long it took until the client came back. */
    const pause = async () => {
      const from = Date.now();
      const count = network.peers.length;
      peer.cut();
      while (network.peers.length === count) await vi.advanceTimersToNextTimerAsync();
      peer = await network.accept();
      return Date.now() - from;
    };
    const pauses: number[] = [];
    for (let n = 0; n < 9; n += 1) pauses.push(await pause());
    expect(pauses).toEqual([125, 250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
    await peer.opened();
    expect(await pause()).toBe(125);
  });

  test('an attempt that hangs is given up', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    client({ settings: { connectTimeoutMs: 7000 } })
      .session('demo')
      .follow();
    const hanging = await network.accept(false);
    await vi.advanceTimersByTimeAsync(7000);
    expect(hanging.closeCode).not.toBe(null);
    await vi.advanceTimersByTimeAsync(1);
    await (await network.accept()).opened();
  });

  test('a gateway that is silent is asked, and left when it does not answer', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    client().session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    await vi.advanceTimersByTimeAsync(25_000);
    await vi.advanceTimersByTimeAsync(25_000); // answered: it lives
    expect(peer.all.filter(({ op }) => op === 'ping').length).toBe(2);
    expect(peer.closeCode).toBe(null);
    peer.answersPings = false;
    await vi.advanceTimersByTimeAsync(49_999);
    expect(peer.closeCode).toBe(null);
    await vi.advanceTimersByTimeAsync(2);
    expect(peer.closeCode).not.toBe(null);
    const next = await network.accept();
    await next.welcome();
    await next.subscribed('mb1x9k:0');
  });

  test('what had been on its way is no answer of a gateway that has fallen silent', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const made = client();
    made.session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    peer.answersPings = false;
    await vi.advanceTimersByTimeAsync(25_000); // it is asked
    expect(peer.all.filter(({ op }) => op === 'ping').length).toBe(1);
    peer.send({ op: 'not.known' }); // it had been on its way
    await vi.advanceTimersByTimeAsync(25_001);
    expect(peer.closeCode).not.toBe(null);
    await (await network.accept()).welcome();
  });

  test('30 s without a network: what was sent meanwhile is sent once, and reading goes on', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const session = client({ random: Math.random }).session('demo');
    session.follow();
    const peer = await network.accept();
    await peer.opened();
    peer.answersPings = false;
    const receipt = session.send('sent without a network', { inputId: 'i' });
    expect(session.view.sending).toEqual([{ inputId: 'i', content: 'sent without a network', mode: null }]);
    dispatchEvent.offline();
    const until = Date.now() + 30_000;
    const attempts: Peer[] = [];
    while (Date.now() < until) {
      await vi.advanceTimersByTimeAsync(100);
      for (const attempt of network.peers.slice(1 + attempts.length)) {
        attempts.push(attempt);
        attempt.cut(); // the network is unreachable
      }
    }
    expect(attempts.length).toBeGreaterThan(3);
    const count = network.peers.length;
    while (network.peers.length === count) await vi.advanceTimersByTimeAsync(100);
    const back = network.peers.at(-1) as Peer;
    back.socket.onopen?.({} as never);
    await back.welcome();
    await back.subscribed('mb1x9k:0');
    expect(await back.takeInput(1)).toBe('i');
    back.send(sent(1, 0, 'i', 'sent without a network'), caughtUp(1));
    await receipt;
    expect(session.view).toMatchObject({ sending: [], isCaughtUp: true, state: { inputs: [{ inputId: 'i' }] } });
  });

  test('a tab that wakes up asks at once, and comes back at once', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const one = client({ random: () => 0.999, settings: { livenessTimeoutMs: 3000 } });
    one.session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    peer.answersPings = false;
    await vi.advanceTimersByTimeAsync(1000);
    dispatchEvent.wake();
    expect(peer.all.at(-1)).toMatchObject({ op: 'ping' });
    await vi.advanceTimersByTimeAsync(3000);
    expect(one.status.phase).toBe('waiting');
    expect(one.status.retryAt).toBeGreaterThan(Date.now());
    dispatchEvent.wake(); // it does not wait for the back-off
    await (await network.accept()).welcome();
    expect(one.status).toMatchObject({ phase: 'open', retryAt: null });
  });

  test('a computer that was asleep asks at once, without any event', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    client().session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    await vi.advanceTimersByTimeAsync(7000);
    expect(peer.all.filter(({ op }) => op === 'ping').length).toBe(0);
    vi.setSystemTime(Date.now() + 3_600_000); // the clock of the timers stood still meanwhile
    await vi.advanceTimersByTimeAsync(5000);
    expect(peer.all.filter(({ op }) => op === 'ping').length).toBe(1);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(peer.all.filter(({ op }) => op === 'ping').length).toBe(1);
    expect(peer.closeCode).toBe(null);
  });

  test('log.away and log.back', async () => {
    const one = client();
    one.session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    peer.send({ op: 'log.away' });
    expect(one.status.isLogAway).toBe(true);
    peer.send({ op: 'log.back' });
    expect(one.status.isLogAway).toBe(false);
  });

  test('a frame that is no JSON object ends it', async () => {
    client().session('demo').follow();
    const peer = await network.accept();
    await peer.opened();
    peer.socket.onmessage?.({ data: 'not JSON' } as never);
    expect(peer.closeCode).toBe(1000);
    await network.accept();
  });

  test('closing ends everything, and nothing is cancelled', async () => {
    const one = client();
    const session = one.session('demo');
    const receipt = session.send('hi', { inputId: 'i' });
    const peer = await network.accept();
    await peer.opened();
    await peer.takeInput(1);
    const finishing = (await receipt).finished();
    const unanswered = session.cancelRun('run_other');
    const events = session.events();
    await one.close();
    await expect(finishing).rejects.toMatchObject({ name: 'ConnectionClosed', code: 'closed' });
    await expect(unanswered).rejects.toMatchObject({ code: 'closed' });
    const given: SessionEvent[] = [];
    for await (const event of events) given.push(event);
    expect(given.map(({ type }) => type)).toEqual(['snapshot', 'caught_up']);
    await expect(session.send('more')).rejects.toMatchObject({ code: 'closed' });
    expect(peer.all.map(({ op }) => op)).not.toContain('input.cancel');
  });
});

/** The events of a browser: this runs in Node, whose global object is no EventTarget. */
const dispatchEvent = (() => {
  const target = new EventTarget();
  const stub = {
    addEventListener: target.addEventListener.bind(target),
    removeEventListener: target.removeEventListener.bind(target),
  };
  Object.assign(globalThis, stub);
  return {
    wake: () => target.dispatchEvent(new Event('online')),
    offline: () => target.dispatchEvent(new Event('offline')),
  };
})();

describe('tokens', () => {
  test('are asked for, and renewed in place before they expire, by the clock of the gateway', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const server = () => Date.now() + 7_200_000; // this machine is two hours slow
    let asked = 0;
    const token = async () => {
      asked += 1;
      return `t${asked}`;
    };
    client({ token }).session('demo').follow();
    const peer = await network.accept();
    peer.answersPings = false;
    await peer.welcome('t1', { token_expires_at: server() / 1000 + 60 });
    peer.send({ op: 'pong', id: (await peer.expect('ping'))['id'], ts: server() });
    await peer.subscribed();
    await vi.advanceTimersByTimeAsync(29_000);
    expect(asked).toBe(1);
    await vi.advanceTimersByTimeAsync(2000);
    expect(asked).toBe(2);
    await vi.waitFor(() => expect(peer.isQuiet).toBe(false));
    let command = await peer.receive();
    while (command['op'] === 'ping') {
      peer.send({ op: 'pong', id: command['id'], ts: server() });
      command = await peer.receive();
    }
    expect(command).toMatchObject({ op: 'auth.refresh', token: 't2' });
    peer.ok(command, { token_expires_at: server() / 1000 + 60 });
    await vi.advanceTimersByTimeAsync(31_000);
    expect(asked).toBe(3);
  });

  test('a provider that fails is asked again; one that says that there is no sense in it ends the client', async () => {
    let asked = 0;
    const one = client({
      token: () => {
        asked += 1;
        if (asked < 3) throw new Error('the network is gone');
        if (asked === 3) return 't3';
        throw new AntiphonError('signed_out');
      },
    });
    const connecting = one.connect();
    const peer = await network.accept();
    await peer.welcome('t3');
    await connecting;
    peer.close(4300, { code: 'token_expired' });
    await expect(one.session('demo').send('hi')).rejects.toMatchObject({ code: 'signed_out' });
    expect(one.status).toMatchObject({ phase: 'stopped', error: { code: 'signed_out' } });
  });

  test('a fresh token that is refused ends the client', async () => {
    const connecting = client({ token: () => 'new' }).connect();
    const peer = await network.accept();
    peer.error(await peer.expect('hello', { token: 'new' }), 'unauthorized');
    peer.close(4401, { code: 'unauthorized' });
    await expect(connecting).rejects.toMatchObject({ name: 'ConnectionClosed', code: 'unauthorized', closeCode: 4401 });
  });

  test('a provider that never answers is not asked twice at once', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    let asked = 0;
    const one = client({
      token: () => {
        asked += 1;
        return new Promise(() => {});
      },
    });
    one.session('demo').follow();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toBe(1);
  });
});

describe('commands', () => {
  test('keep to the pace that the gateway allows', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const session = client().session('demo');
    session.follow();
    const peer = await network.accept();
    await peer.welcome('t1', { limits: { commands_per_second: 10, commands_burst: 10 } });
    await peer.subscribed();
    for (let n = 0; n < 20; n += 1) void session.cancelRun(`run_${n}`).catch(() => {});
    await settle();
    const cancels = () => peer.all.filter(({ op }) => op === 'run.cancel').length;
    expect(cancels()).toBe(8); // nine tenths of the burst, and one was the subscription
    await vi.advanceTimersByTimeAsync(1000);
    expect(cancels()).toBe(17);
    await vi.advanceTimersByTimeAsync(1000);
    expect(cancels()).toBe(20);
  });

  test('are bounded, and one that is too large is refused here', async () => {
    const one = client({ settings: { pendingCommands: 2 } });
    const session = one.session('demo');
    const waiting = [session.cancelRun('run_a'), session.cancelRun('run_b')];
    await expect(session.cancelRun('run_c')).rejects.toMatchObject({ code: 'command_queue_full', retryable: true });
    const peer = await network.accept();
    await peer.welcome('t1', { limits: { frame_bytes: 1000 } });
    for (const _ of waiting) peer.ok(await peer.expect('run.cancel'), { status: 'cancelled' });
    expect(await Promise.all(waiting)).toEqual(['cancelled', 'cancelled']);
    await expect(session.respond('a', 'answer', { payload: 'ä'.repeat(500) })).rejects.toMatchObject({
      code: 'frame_too_large',
    });
  });

  test('that are aborted are not sent', async () => {
    const session = client().session('demo');
    const abort = new AbortController();
    const sending = session.send('not this', { signal: abort.signal });
    await settle();
    abort.abort(new Error('thought better of it'));
    await expect(sending).rejects.toThrow('thought better of it');
    expect(session.view.sending).toEqual([]);
    const kept = session.send('this', { inputId: 'i' });
    const peer = await network.accept();
    await peer.opened();
    expect(await peer.takeInput(1)).toBe('i');
    await kept;
    await expect(session.history({ signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before');
  });

  test('that no connection survives are given up', async () => {
    const session = client({ settings: { commandSends: 3 } }).session('demo');
    session.follow();
    await (await network.accept()).opened();
    const cancelling = session.cancelRun('run_a');
    let peer = network.peers[0] as Peer;
    for (let n = 0; n < 3; n += 1) {
      await peer.expect('run.cancel');
      peer.cut();
      peer = await network.accept();
      await peer.welcome();
      await peer.subscribed('mb1x9k:0');
    }
    await expect(cancelling).rejects.toMatchObject({ code: 'undeliverable' });
  });
});

describe('receipts', () => {
  const read = async (session = client().session('demo')) => {
    session.follow();
    const peer = await network.accept();
    await peer.opened();
    return { session, peer };
  };

  test('move on with the log', async () => {
    const { session, peer } = await read();
    const sending = session.send('hi', { inputId: 'i' });
    await peer.takeInput(1, { mode: 'enqueue' });
    const receipt = await sending;
    expect(receipt).toMatchObject({ status: 'queued', seq: 1, position: 1, mode: 'enqueue', runId: 'run_i' });
    expect(session.view.sending.length).toBe(1); // stored, and not yet read
    peer.send(sent(1, 0, 'i'));
    expect(session.view.sending).toEqual([]);
    peer.send(started(2, 1), applied(3, 2));
    expect(receipt.status).toBe('applied');
    expect(await receipt.applied()).toMatchObject({ messageId: 'msg_i', source: { content: 'hi' } });
    peer.send(finished(4, 3));
    expect(await receipt.finished()).toMatchObject({ kind: 'success' });
    expect(receipt.status).toBe('ended');
  });

  test('the entries may come before the reply', async () => {
    const { session, peer } = await read();
    const sending = session.send('hi', { inputId: 'i' });
    const command = await peer.expect('input.send');
    peer.send(sent(1, 0, 'i'), started(2, 1), applied(3, 2), finished(4, 3));
    expect(session.view.sending).toEqual([]);
    peer.ok(command, { inputId: 'i', runId: 'run_i', seq: 1, status: 'ended' });
    const receipt = await sending;
    expect((await receipt.finished()).kind).toBe('success');
  });

  test('of an input that lost a race', async () => {
    const { session, peer } = await read();
    peer.send(entry(1, 0, [{ type: 'session.closed' }], { lane: undefined, id: 'x' }));
    const sending = session.send('hi', { inputId: 'i' });
    await peer.takeInput(2);
    peer.send(sent(2, 1, 'i'));
    const receipt = await sending;
    await expect(receipt.applied()).rejects.toMatchObject({ name: 'InputNotApplied', code: 'session_closed' });
    expect(await receipt.finished()).toEqual({ kind: 'error', code: 'session_closed' });
    expect(receipt.status).toBe('failed');
  });

  test('of a run that ended where nobody looked', async () => {
    const { session, peer } = await read();
    const sending = session.send('hi', { inputId: 'i' });
    await peer.takeInput(1);
    const receipt = await sending;
    peer.send({ op: 'session.gap', session: 'demo', from: 0, to: 9 }, snapshot(9), caughtUp(9));
    expect(await receipt.finished()).toEqual({ kind: 'unknown' });
  });

  test('a wait can be aborted, and tried again', async () => {
    const { session, peer } = await read();
    const sending = session.send('hi', { inputId: 'i' });
    await peer.takeInput(1);
    const receipt = await sending;
    const abort = new AbortController();
    const waiting = receipt.finished({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    peer.send(sent(1, 0, 'i'), started(2, 1), applied(3, 2), finished(4, 3));
    expect((await receipt.finished()).kind).toBe('success');
  });
});

describe('sending later', () => {
  const at = 1_763_904_000_000;
  const said = { inputId: 'i', content: 'later', at };
  const participant = (seq: number, type: string) =>
    entry(seq, seq - 1, [{ type, ...said }], { lane: undefined, id: `x${seq}` });
  const read = async (limits: object = { scheduled_inputs: 64 }) => {
    const session = client().session('demo');
    session.follow();
    const peer = await network.accept();
    await peer.welcome('t1', { limits: { commands_per_second: 1000, commands_burst: 1000, ...limits } });
    await peer.subscribed();
    peer.send(snapshot(0), caughtUp(0));
    return { session, peer };
  };

  test('the receipt moves on with the log', async () => {
    const { session, peer } = await read();
    const sending = session.send('later', { inputId: 'i', at: new Date(at) });
    const command = await peer.expect('input.send', { at });
    peer.ok(command, { inputId: 'i', runId: 'run_i', seq: 1, status: 'scheduled', at });
    const receipt = await sending;
    expect(receipt).toMatchObject({ status: 'scheduled', at, position: null });
    peer.send(participant(1, 'input.scheduled'));
    expect(session.view.sending).toEqual([]);
    expect(session.state.scheduled).toMatchObject([said]);
    peer.send(participant(2, 'input.sent'));
    expect(receipt.status).toBe('queued');
    expect(session.state).toMatchObject({ scheduled: [], inputs: [{ inputId: 'i', seq: 2 }] });
    peer.send(started(3, 2), applied(4, 3), finished(5, 4));
    expect(await receipt.finished()).toMatchObject({ kind: 'success' });
  });

  test('a snapshot that has it does not end it', async () => {
    const { session, peer } = await read();
    const sending = session.send('later', { inputId: 'i', afterMs: 1500 });
    const command = await peer.expect('input.send', { delayMs: 1500 });
    peer.ok(command, { inputId: 'i', runId: 'run_i', seq: 1, status: 'scheduled', at });
    const receipt = await sending;
    const scheduled = [{ ...said, seq: 1, ts: 1, by: null, mode: null }];
    peer.send({ op: 'session.gap', session: 'demo', from: 0, to: 9 }, snapshot(9, { scheduled }), caughtUp(9));
    expect(receipt.status).toBe('scheduled');
    peer.send({ ...participant(10, 'input.cancel.requested'), prev: 9 });
    expect(receipt.status).toBe('cancelled');
  });

  test('a gateway that would send it now is not asked', async () => {
    const { session, peer } = await read({});
    await expect(session.send('later', { afterMs: 1 })).rejects.toMatchObject({ code: 'not_supported' });
    expect(peer.isQuiet).toBe(true);
  });
});

describe('events', () => {
  test('are bounded: what does not fit is read again, and nothing is skipped', async () => {
    const session = client({ settings: { bufferEvents: 4 } }).session('demo');
    const events = session.events();
    const peer = await network.accept();
    await peer.opened();
    const batch = Array.from({ length: 20 }, (_, n) => sent(n + 1, n, `i${n}`));
    peer.send(...batch);
    expect(session.state.inputs.length).toBe(16); // the fold has them all (a queue holds 16)
    const seen: string[] = [];
    let after = 2;
    const reading = (async () => {
      for await (const event of events) {
        seen.push(event.type === 'entry' ? String(event.seq) : event.type);
        if (seen.at(-1) === '20') return;
      }
    })();
    while (seen.at(-1) !== '20') {
      peer.ok(await peer.expect('unsubscribe'));
      await peer.subscribed(`mb1x9k:${after}`);
      peer.send(...batch.slice(after));
      after = Math.min(after + 4, 20);
      await settle();
      if (after === 20) break;
    }
    await reading;
    expect(seen).toEqual(['snapshot', 'caught_up', ...Array.from({ length: 20 }, (_, n) => `${n + 1}`)]);
  });

  test('hold up a socket that can be left unread, and its silence then says nothing', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    network.canPause = true;
    const session = client({ settings: { bufferEvents: 4 } }).session('demo');
    const events = session.events();
    const peer = await network.accept();
    await peer.opened();
    peer.send(...Array.from({ length: 40 }, (_, n) => sent(n + 1, n, `i${n}`)));
    expect(peer.socket.isPaused).toBe(true);
    await vi.advanceTimersByTimeAsync(120_000);
    expect(peer.closeCode).toBe(null);
    const seen: number[] = [];
    for await (const event of events) {
      if (event.type === 'entry') seen.push(event.seq);
      if (seen.length === 40) break;
    }
    expect(seen).toEqual(Array.from({ length: 40 }, (_, n) => n + 1));
    expect(peer.all.map(({ op }) => op)).toEqual(['hello', 'subscribe']);
    expect(peer.socket.isPaused).toBe(false);
  });

  test('do not hold it up while a reply, a receipt or another session is waited for', async () => {
    network.canPause = true;
    const one = client({ settings: { bufferEvents: 4 } });
    const session = one.session('demo');
    const events = session.events();
    const peer = await network.accept();
    await peer.opened();
    const batch = Array.from({ length: 20 }, (_, n) => sent(n + 1, n, `i${n}`));
    await events.next();
    const asking = session.history();
    const command = await peer.expect('history');
    peer.send(...batch);
    peer.ok(command, { messages: [], before: null });
    expect(await asking).toEqual({ messages: [], before: null }); // it came behind what did not fit
    expect(session.state.inputs.length).toBe(16);
  });

  test('one iteration at a time, that can be left and entered again', async () => {
    const session = client().session('demo');
    const events = session.events();
    expect(() => session.events()).toThrow('iterated already');
    const peer = await network.accept();
    await peer.opened();
    peer.send(sent(1, 0, 'a'), sent(2, 1, 'b'));
    for await (const event of events) if (event.type === 'entry') break;
    expect(session.cursor).toBe('mb1x9k:1');
    for await (const event of session.events()) {
      expect(event).toMatchObject({ seq: 2, cursor: 'mb1x9k:2' });
      break;
    }
  });

  test('can be aborted', async () => {
    const abort = new AbortController();
    const next = client().session('demo').events({ signal: abort.signal }).next();
    abort.abort(new Error('enough'));
    await expect(next).rejects.toThrow('enough');
  });
});

describe('views', () => {
  test('are immutable, share what has stayed the same, and tell once for a frame', async () => {
    const session = client().session('demo');
    let told = 0;
    session.subscribe(() => {
      told += 1;
    });
    session.follow();
    const peer = await network.accept();
    await peer.opened();
    peer.send(entry(1, 0, [START]), delta(2, 1, 0, 'Hel'));
    const before = session.view;
    const saved = JSON.stringify(before);
    expect(session.view).toBe(before);
    told = 0;
    peer.send(delta(3, 2, 3, 'lo'));
    expect(told).toBe(1);
    expect(session.view).not.toBe(before);
    expect(session.view.state).toBe(before.state);
    expect(session.view.messages[0]?.text).toBe('Hello');
    expect(JSON.stringify(before)).toBe(saved);
  });

  test('what nobody holds any more is closed, after a while; nothing is cancelled', async () => {
    vi.useFakeTimers(ALL_TIMERS);
    const one = client();
    const session = one.session('demo');
    const [first, second] = [session.hold(), session.hold()];
    const peer = await network.accept();
    await peer.opened();
    first();
    first();
    await vi.advanceTimersByTimeAsync(5000);
    second();
    session.hold()(); // held again within the time
    await vi.advanceTimersByTimeAsync(900);
    expect(one.session('demo')).toBe(session);
    await vi.advanceTimersByTimeAsync(200);
    await peer.expect('unsubscribe', { session: 'demo' });
    expect(peer.isQuiet).toBe(true);
    expect(one.session('demo')).not.toBe(session);
  });

  test('presence is said again after a reconnect, and stale without a connection', async () => {
    const session = client().session('demo');
    session.follow();
    let peer = await network.accept();
    await peer.opened();
    session.setPresence('typing');
    session.setPresence('typing');
    peer.ok(await peer.expect('presence.set', { session: 'demo', state: 'typing' }));
    const who = {
      kind: 'user',
      id: 'user-1',
      name: 'A user',
      state: 'typing',
      devices: [{ device: 'd', state: 'typing' }],
    };
    peer.send({ op: 'session.presence', session: 'demo', participants: [who, { nobody: true }], more: 2 });
    expect(session.presence).toMatchObject({ more: 2, isStale: false, participants: [{ id: 'user-1', roles: [] }] });
    peer.cut();
    expect(session.presence?.isStale).toBe(true);
    peer = await network.accept();
    await peer.welcome();
    await peer.subscribed('mb1x9k:0');
    await peer.expect('presence.set', { state: 'typing' });
  });

  test('older messages come a page at a time, each once', async () => {
    const session = client().session('demo');
    session.follow();
    const peer = await network.accept();
    await peer.welcome();
    await peer.subscribed();
    peer.send(snapshot(10, {}, 'demo', 3), caughtUp(10), entry(11, 10, [START]));
    expect(session.view.hasOlder).toBe(true);
    const loading = session.loadOlder({ limit: 2 });
    const again = session.loadOlder();
    const command = await peer.expect('history', { before: 11, limit: 2 });
    const old = (id: string) => ({ id, role: 'user', text: id, status: 'done', lane: 'main', run: null });
    peer.ok(command, { messages: [old('b'), old('m1')], before: 5 });
    expect(await Promise.all([loading, again])).toEqual([true, true]);
    expect(session.messages.map(({ id }) => id)).toEqual(['b', 'm1']);
    const last = session.loadOlder();
    peer.ok(await peer.expect('history', { before: 5 }), { messages: [old('a')], before: null });
    expect(await last).toBe(false);
    expect(session.messages.map(({ id }) => id)).toEqual(['a', 'b', 'm1']);
    expect(session.view.hasOlder).toBe(false);
  });
});

describe('marks', () => {
  async function asked(): Promise<Peer> {
    client().session('demo').follow();
    const peer = await network.accept();
    await peer.welcome();
    const subscribe = await peer.expect('subscribe', { acks: true });
    peer.ok(subscribe, { session: 'demo', epoch: 'e' });
    peer.send(snapshot(), sent(1, 0, 'i'), { op: 'session.mark', session: 'demo', seq: 1 });
    return peer;
  }

  test('a gateway that asks is told that an entry has been handled', async () => {
    const peer = await asked();
    peer.ok(await peer.expect('ack', { session: 'demo', seq: 1 }));
  });

  test('on a page, once it is on the screen; while nobody looks, not at all', async () => {
    const frames: (() => void)[] = [];
    const page = { visibilityState: 'visible' };
    vi.stubGlobal('document', page);
    vi.stubGlobal('requestAnimationFrame', (draw: () => void) => frames.push(draw));
    try {
      const peer = await asked();
      await settle();
      expect(peer.isQuiet).toBe(true);
      page.visibilityState = 'hidden';
      peer.send({ op: 'session.mark', session: 'demo', seq: 1 });
      await settle();
      expect(frames.length).toBe(1);
      frames[0]?.();
      peer.ok(await peer.expect('ack', { session: 'demo', seq: 1 }));
      expect(peer.isQuiet).toBe(true);
    } finally {
      vi.unstubAllGlobals();
    }
  });
});
