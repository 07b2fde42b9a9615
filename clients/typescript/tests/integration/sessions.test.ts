/** The client against a real gateway and real workers: what it sends, reads, folds, and executes. */
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, inject, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import {
  AntiphonClient,
  type AntiphonError,
  type ClientOptions,
  CoreClient,
  type Entry,
  type WebSocketConstructor,
} from '../../src/index.js';
import { until } from '../support/network.js';

const url = inject('url');
const opened: { close(): Promise<void> }[] = [];

function client(options: Partial<ClientOptions> = {}): AntiphonClient {
  const Socket = WebSocket as unknown as WebSocketConstructor;
  const made = new AntiphonClient({ url, token: inject('token'), WebSocket: Socket, ...options });
  opened.push(made);
  return made;
}

const as = (user: string) => client({ token: inject('people')[user] ?? '' });
const fresh = () => `s-${randomUUID()}`;

afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
});

const TOKENS = 150;
const ANSWER = Array.from({ length: TOKENS }, (_, n) => `t${n} `).join('');

describe('sending', () => {
  test('later: scheduled, taken back, and sent at its time', async () => {
    const session = client().session(fresh());
    const gone = await session.send('never', { afterMs: 3_600_000 });
    const receipt = await session.send('hello there', { at: new Date(Date.now() + 2000) });
    expect(gone).toMatchObject({ status: 'scheduled', position: null });
    await until(() => session.state.scheduled.length === 2 || receipt.status !== 'scheduled');
    await session.cancelInput(gone.inputId);
    expect(await receipt.finished()).toMatchObject({ kind: 'success' });
    expect(await gone.finished()).toMatchObject({ kind: 'cancelled' });
    expect(session.messages.map(({ text }) => text)).toEqual(['hello there', 'hello there']);
    expect(session.state.scheduled).toEqual([]);
  });

  test('from sending to the end of the run', async () => {
    const session = client().session(fresh());
    const receipt = await session.send('hello there');
    expect(receipt).toMatchObject({ isDuplicate: false, runId: `run_${receipt.inputId}` });
    expect(await receipt.applied()).toMatchObject({ messageId: `msg_${receipt.inputId}`, runId: receipt.runId });
    expect(await receipt.finished()).toMatchObject({ kind: 'success' });
    expect(receipt.status).toBe('ended');
    expect(session.messages.map(({ role, text, status }) => [role, text, status])).toEqual([
      ['user', 'hello there', 'done'],
      ['assistant', 'hello there', 'done'],
    ]);
    expect(session.view.sending).toEqual([]);
    const again = await session.send('hello there', { inputId: receipt.inputId });
    expect(again).toMatchObject({ isDuplicate: true, seq: receipt.seq });
    expect((await again.finished()).kind).toBe('unknown'); // over before this receipt began to note
    expect(await (await session.send('raise')).finished()).toMatchObject({ kind: 'error', code: 'agent_error' });
  });

  test('stopping and taking back', async () => {
    const session = client().session(fresh());
    const [running, waiting, unwanted] = await Promise.all(['hang', 'hang', 'hang'].map((text) => session.send(text)));
    if (!running || !waiting || !unwanted) throw new Error('three were sent');
    await running.applied();
    await session.cancelInput(waiting.inputId);
    expect(await session.cancelRun(unwanted.runId)).toBe('cancelled');
    await session.cancelRun(running.runId);
    expect((await running.finished()).kind).toBe('cancelled');
    await expect(waiting.applied()).rejects.toMatchObject({ name: 'InputNotApplied', code: 'cancelled' });
    expect((await unwanted.finished()).kind).toBe('cancelled');
    expect(unwanted.status).toBe('cancelled');
    await expect(session.cancelRun('run_none')).rejects.toMatchObject({
      name: 'CommandRefused',
      code: 'run_not_found',
    });
  });

  test('an interrupt stops the run and goes first', async () => {
    const session = client().session(fresh());
    const first = await session.send('stream 100000 tokens at 50/s');
    await until(() => (session.messages[1]?.text.length ?? 0) > 20);
    const second = await session.send('now this', { mode: 'interrupt' });
    expect(await first.finished()).toMatchObject({ kind: 'cancelled', reason: 'interrupt' });
    await second.finished();
    const said = session.messages.map(({ role, reason, text }) => [role, reason, text.slice(0, 8)]);
    expect(said.at(1)).toEqual(['assistant', 'cancelled', 't0 t1 t2']);
    expect(said.at(-1)).toEqual(['assistant', 'complete', 'now this']);
  });

  test('refusals are typed', async () => {
    const name = fresh();
    const reader = as('reader').session(name);
    const refused = { name: 'CommandRefused', code: 'not_allowed', data: { right: 'send' } };
    await expect(reader.send('hi')).rejects.toMatchObject(refused);
    expect(reader.view.sending).toEqual([]);
    const session = client().session(name);
    await expect(session.send('x'.repeat(65_537))).rejects.toMatchObject({ code: 'content_too_large' });
    await expect(session.send('')).rejects.toThrow(RangeError);
    await expect(client({ token: 'nonsense' }).connect()).rejects.toMatchObject({ code: 'unauthorized' });
  });

  test('two people see the same', async () => {
    const name = fresh();
    const [one, two] = [client().session(name), as('user-2').session(name)];
    for (const session of [one, two]) session.follow();
    await until(() => one.view.isCaughtUp && two.view.isCaughtUp);
    const receipts = await Promise.all([one.send('stream 30 tokens at 200/s'), two.send('hello')]);
    await Promise.all(receipts.map((receipt) => receipt.finished()));
    await until(() => one.state.status === 'idle' && two.state.status === 'idle');
    expect(one.messages).toEqual(two.messages);
    expect(
      one.messages
        .filter(({ role }) => role === 'user')
        .map(({ by }) => by?.id)
        .sort(),
    ).toEqual(['user-1', 'user-2']);
    await until(() => one.presence?.participants.length === 2);
    two.setPresence('typing');
    await until(
      () => one.presence?.participants.some(({ id, state }) => id === 'user-2' && state === 'typing') === true,
    );
  });
});

describe('reading', () => {
  test('a cursor that another client goes on from', async () => {
    const name = fresh();
    const receipt = await client().session(name).send(`stream ${TOKENS} tokens at 300/s`);
    let text = '';
    let cursor: string | undefined;
    for (let part = 1; part <= 4; part += 1) {
      const reader = client();
      for await (const event of reader.session(name, { cursor }).events()) {
        if (event.type !== 'entry') continue;
        for (const each of event.events) if (each.type === 'TEXT_MESSAGE_CONTENT') text += each['delta'];
        cursor = JSON.parse(JSON.stringify(event.cursor));
        if (text.length >= (ANSWER.length * part) / 4) break;
      }
      await reader.close();
    }
    expect(text).toBe(ANSWER);
    expect((await receipt.finished()).kind).toBe('success');
  });

  test('history, and older messages in the view', async () => {
    const name = fresh();
    const writer = client().session(name);
    for (let n = 0; n < 30; n += 1) {
      const receipt = await writer.send(`hello ${n}`);
      if (n % 10 === 9) await receipt.finished();
    }
    const session = client().session(name);
    session.follow();
    await until(() => session.view.isCaughtUp);
    while (session.view.hasOlder) await session.loadOlder({ limit: 7 });
    const expected = Array.from({ length: 30 }, (_, n) => [`hello ${n}`, `hello ${n}`]).flat();
    expect(session.messages.map(({ text }) => text)).toEqual(expected);
    const page = await session.history({ limit: 4 });
    expect(page.messages.map(({ text }) => text)).toEqual(expected.slice(-4));
  });

  test.each([
    { how: 'whose socket is held up', listens: false },
    { how: 'beside a view, so that what does not fit is read again', listens: true },
  ])('a consumer that is slow gets every entry, in order: one $how', async ({ listens }) => {
    const name = fresh();
    const slow = client({ settings: { bufferEvents: 16 } }).session(name, { every: true });
    if (listens) slow.subscribe(() => {});
    const events = slow.events();
    await events.next();
    const receipt = await client().session(name).send('stream 600 tokens at 1500/s');
    await receipt.finished();
    const entries: Entry[] = [];
    let text = '';
    for await (const event of events) {
      if (event.type !== 'entry') continue;
      entries.push(event);
      for (const each of event.events) if (each.type === 'TEXT_MESSAGE_CONTENT') text += each['delta'];
      if (entries.length % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      if (event.events.some(({ type }) => type === 'RUN_FINISHED')) break;
    }
    for (const [n, each] of entries.entries()) if (n) expect(each.prev).toBe(entries[n - 1]?.seq);
    expect(entries.length).toBeGreaterThan(2 * 16);
    expect(text).toBe(Array.from({ length: 600 }, (_, n) => `t${n} `).join(''));
    expect(slow.messages.at(-1)?.text).toBe(text);
  });

  test('a session that may not be read says so', async () => {
    const token = inject('people')['reader'] ?? '';
    const session = client({ token }).session('bad name');
    const events = session.events();
    await expect(events.next()).rejects.toMatchObject({ code: 'bad_name' });
    expect(session.view.error?.code).toBe('bad_name');
  });

  test('without the fold', async () => {
    const Socket = WebSocket as unknown as WebSocketConstructor;
    const core = new CoreClient({ url, token: inject('token'), WebSocket: Socket });
    opened.push(core);
    const session = core.session(fresh());
    const stored = await session.send('hello');
    for await (const event of session.events()) {
      if (event.type === 'entry' && event.events.some(({ type }) => type === 'RUN_FINISHED')) {
        expect(event.run).toBe(stored.runId);
        break;
      }
    }
  });
});

describe('the session plane', () => {
  test('a tool that is executed here', async () => {
    const session = client().session(fresh());
    await session.create({ title: 'Files', config: { pool: 'picking' } });
    const progress: unknown[] = [];
    session.addTools([
      {
        name: 'pick_file',
        result: { type: 'object', required: ['file'] },
        async execute(args, execution) {
          expect(args).toEqual({ kind: 'pdf' });
          await execution.progress({ asked: true });
          return { file: 'a.pdf' };
        },
      },
    ]);
    const seen = (async () => {
      for await (const event of session.events()) {
        if (event.type !== 'entry') continue;
        for (const each of event.events) if (each.type === 'tool.progress') progress.push(each['value']);
        if (event.events.some(({ type }) => type === 'RUN_FINISHED')) return;
      }
    })();
    const receipt = await session.send('{"anybody": true, "deadline_s": 20}');
    expect((await receipt.finished()).kind).toBe('success');
    await seen;
    expect(progress).toEqual([{ asked: true }]);
    expect(session.messages.at(-1)?.text).toBe('got a.pdf');
    expect(session.state).toMatchObject({ title: 'Files', calls: [] });
  });

  test('a tool that throws, and one that is stopped', async () => {
    const session = client().session(fresh());
    await session.create({ config: { pool: 'picking' } });
    let aborted: unknown;
    let calls = 0;
    session.addTools([
      {
        name: 'pick_file',
        execute: (_args, { signal }) => {
          calls += 1;
          if (calls === 1) throw new Error('no such file');
          return new Promise((_, reject) => {
            signal.addEventListener('abort', () => {
              aborted = (signal.reason as AntiphonError).code;
              reject(signal.reason);
            });
          });
        },
      },
    ]);
    const first = await session.send('{"anybody": true, "deadline_s": 20}');
    await first.finished();
    expect(session.messages.at(-1)?.text).toBe('failed: error');
    const second = await session.send('{"anybody": true, "deadline_s": 20}');
    await until(() => calls === 2);
    await session.cancelRun(second.runId);
    expect((await second.finished()).kind).toBe('cancelled');
    await until(() => aborted !== undefined);
    expect(aborted).toBe('call_over');
  });

  test('an approval, and a question', async () => {
    const session = client().session(fresh());
    await session.create({ config: { pool: 'approving' } });
    const asked = await session.send('{"default": "reject_once"}');
    await until(() => session.state.approvals.length === 1);
    expect(session.state).toMatchObject({ status: 'requires_action', approvals: [{ message: 'Delete 3 files?' }] });
    const approval = session.state.approvals[0];
    const response = await session.respond(approval?.approvalId ?? '', 'allow_once');
    expect(response).toMatchObject({ status: 'resolved', decision: 'allow_once' });
    await asked.finished();
    expect(session.messages.at(-1)?.text).toContain('allow_once');
    await expect(session.respond(approval?.approvalId ?? '', 'allow_once')).rejects.toMatchObject({
      code: 'already_resolved',
      data: { status: 'resolved', decision: 'allow_once' },
    });
    const question = await session.send('{"schema": {"type": "object", "required": ["size"]}}');
    await until(() => session.state.approvals.length === 1);
    const { approvalId = '', options } = session.state.approvals[0] ?? {};
    expect(options).toEqual(['answer', 'decline']);
    await expect(session.respond(approvalId, 'answer', { payload: {} })).rejects.toMatchObject({
      code: 'payload_invalid',
    });
    await session.respond(approvalId, 'answer', { payload: { size: 'L' } });
    await question.finished();
    expect(session.messages.at(-1)?.text).toBe('answer {"size":"L"}');
  });

  test('a hand-over, and back', async () => {
    const name = fresh();
    const session = client().session(name);
    await session.create({ config: { pool: 'desk' } });
    const asked = await session.send('hand over');
    const expert = as('expert');
    await until(() => session.state.handoffs.length === 1);
    // the list is made from what is told of sessions, a moment later
    const waiting = await vi.waitUntil(async () => (await expert.handoffs()).find((each) => each.session === name));
    expect(waiting).toMatchObject({ to: 'support', reason: 'refund' });
    const desk = expert.session(name);
    await desk.claimHandoff({ handoffId: waiting.handoffId });
    expect(await asked.finished()).toMatchObject({ kind: 'cancelled', reason: 'handed_over' });
    const question = await session.send('are you human?');
    expect((await question.finished()).kind).toBe('no_run');
    await (await desk.send('I am')).applied();
    await until(() => session.messages.at(-1)?.text === 'I am');
    expect(session.messages.at(-1)).toMatchObject({ role: 'assistant', by: { id: 'expert' } });
    expect(session.state.status).toBe('human');
    await desk.returnHandoff({ note: 'go on' });
    await until(() => session.messages.at(-1)?.text === 'go on' && session.state.status === 'idle');
  });

  test('sessions are created, listed, changed, forked, closed and deleted', async () => {
    const name = fresh();
    const user = client();
    const session = user.session(name);
    expect(await session.create({ title: 'One', metadata: { a: 1 } })).toMatchObject({ isDuplicate: false });
    expect(await session.create({ title: 'One' })).toMatchObject({ isDuplicate: true });
    await session.update({ title: 'Two', config: { onBusy: 'reject' } });
    await (await session.send('hello')).finished();
    const listed: string[] = [];
    for await (const info of user.sessions({ pageSize: 2 })) {
      listed.push(info.session);
      if (info.session === name) expect(info).toMatchObject({ title: 'Two', metadata: { a: 1 } });
    }
    expect(listed.length).toBeGreaterThan(2);
    expect(listed.filter((each) => each === name).length).toBe(1);
    expect(await session.fork(`${name}-2`)).toBe(2);
    await session.closeSession();
    await expect(session.send('more')).rejects.toMatchObject({ code: 'session_closed' });
    await session.reopenSession();
    expect(session.state.config.onBusy).toBe('reject');
    await session.delete();
    await until(() => session.messages.length === 0);
    expect(session.state.title).toBe(null);
  });
});
