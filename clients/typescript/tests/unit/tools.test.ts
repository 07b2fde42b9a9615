/** Tools that are executed here, against the other end of the socket: claims that are refused, lost, held and let go of. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { AntiphonClient, type Execution, type Session, type Tool } from '../../src/index.js';
import { caughtUp, entry, Network, type Peer, snapshot } from '../support/network.js';

let network: Network;
let client: AntiphonClient;
let peer: Peer;
let session: Session;
let executions: { args: unknown; execution: Execution; finish(value: unknown): void; fail(error: unknown): void }[];

const RUN = { runId: 'run_i', lane: 'main', inputId: 'i', attempt: 1, cancel: null, parent: null, agent: null };

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'] });
  network = new Network();
  executions = [];
});

afterEach(async () => {
  const closing = client.close();
  await vi.advanceTimersByTimeAsync(2000);
  await closing;
  vi.useRealTimers();
});

const tool = (fields: Partial<Tool> = {}): Tool => ({
  name: 'pick',
  execute: (args, execution) =>
    new Promise((finish, fail) => {
      executions.push({ args, execution, finish, fail });
    }),
  ...fields,
});

/** A session in which a run goes on, and this client's tools are declared. */
async function opened(tools: Tool[] = [tool()], settings = {}): Promise<void> {
  const { WebSocket } = network;
  client = new AntiphonClient({ url: 'http://gateway', token: 't1', random: () => 0, WebSocket, settings });
  session = client.session('demo', { tools });
  peer = await network.accept();
  await peer.welcome();
  await peer.subscribed();
  peer.send(snapshot(1, { runs: [RUN] }), caughtUp(1));
}

function requested(seq: number, toolCallId = 'c', fields = {}): void {
  const call = { type: 'tool.requested', toolCallId, name: 'pick', args: { n: seq }, executor: 'client', ...fields };
  peer.send(entry(seq, seq - 1, [call], { run: 'run_i' }));
}

const by = { kind: 'user', id: 'user-1' };

function claimed(seq: number, claimId: unknown, toolCallId = 'c', who: { kind: string; id: string } = by): void {
  const event = { type: 'tool.claimed', toolCallId, claimId, expiresAt: seq + 15_000 };
  const { lane: _, ...frame } = entry(seq, seq - 1, [event], { id: `claim:${seq}`, by: who });
  peer.send(frame);
}

const settle = () => vi.advanceTimersByTimeAsync(0);

/** The claim is asked for and confirmed, by the reply and in the log. */
async function begun(seq: number): Promise<string> {
  const claim = await peer.expect('tool.claim', { toolCallId: 'c' });
  peer.ok(claim);
  claimed(seq, claim['claimId']);
  await settle();
  return claim['claimId'] as string;
}

test('it is claimed, executed once, its claim renewed, and its result sent', async () => {
  await opened();
  requested(2);
  const claimId = await begun(3);
  expect(executions.map(({ args }) => args)).toEqual([{ n: 2 }]);
  await vi.advanceTimersByTimeAsync(5000);
  peer.ok(await peer.expect('tool.claim', { claimId, leaseMs: 15_000 }));
  const progress = executions[0]?.execution.progress({ half: true });
  peer.ok(await peer.expect('tool.progress', { claimId, value: { half: true } }));
  await progress;
  executions[0]?.finish({ file: 'a' });
  peer.ok(await peer.expect('tool.result', { toolCallId: 'c', claimId, result: { file: 'a' } }));
  await vi.advanceTimersByTimeAsync(20_000);
  expect(peer.all.filter(({ op }) => op === 'tool.claim').length).toBe(2);
  expect(executions.length).toBe(1);
});

test('nothing is executed before the claim is confirmed, nor if somebody else has it', async () => {
  await opened();
  requested(2);
  const claim = await peer.expect('tool.claim');
  await settle();
  expect(executions).toEqual([]);
  peer.error(claim, 'already_claimed');
  claimed(3, 'theirs', 'c', { kind: 'user', id: 'user-2' });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(executions).toEqual([]);
  expect(peer.isQuiet).toBe(true);
});

test('what it throws is the error, and a result that is refused becomes one', async () => {
  await opened();
  requested(2);
  await begun(3);
  executions[0]?.fail(new Error('no such file'));
  peer.ok(await peer.expect('tool.result', { error: 'no such file' }));
  requested(4, 'd');
  peer.ok(await peer.expect('tool.claim', { toolCallId: 'd' }));
  await settle();
  executions[1]?.finish({ wrong: true });
  peer.error(await peer.expect('tool.result', { toolCallId: 'd', result: { wrong: true } }), 'result_invalid');
  const again = await peer.expect('tool.result', { toolCallId: 'd' });
  expect(again['error']).toContain("the tool's result was refused");
  peer.ok(again);
});

test('a claim that is not for us yet is tried again when it is', async () => {
  await opened();
  const anyAfter = Date.now() + 3000;
  requested(2, 'c', { participant: 'user-2', anyAfter });
  peer.error(await peer.expect('tool.claim'), 'not_targeted');
  await vi.advanceTimersByTimeAsync(2900);
  expect(peer.isQuiet).toBe(true);
  await vi.advanceTimersByTimeAsync(400);
  await begun(3);
  expect(executions.length).toBe(1);
});

test('a call that is over, or whose claim is lost, is aborted, and nothing more is sent', async () => {
  await opened();
  requested(2);
  await begun(3);
  peer.send(entry(4, 3, [{ type: 'tool.failed', toolCallId: 'c', code: 'deadline' }], { run: 'run_i' }));
  expect(executions[0]?.execution.signal.reason).toMatchObject({ code: 'call_over' });
  executions[0]?.finish('too late');
  requested(5, 'd');
  peer.ok(await peer.expect('tool.claim', { toolCallId: 'd' }));
  await vi.advanceTimersByTimeAsync(5000);
  peer.error(await peer.expect('tool.claim', { toolCallId: 'd' }), 'not_claimed');
  await settle();
  expect(executions[1]?.execution.signal.aborted).toBe(true);
  executions[1]?.finish('too late');
  await settle();
  expect(peer.isQuiet).toBe(true);
});

test('an execution goes on through a lost connection', async () => {
  await opened();
  requested(2);
  const claimId = await begun(3);
  peer.cut();
  const [next] = await Promise.all([network.accept(), vi.advanceTimersByTimeAsync(1)]);
  await next.welcome();
  await next.subscribed('mb1x9k:3');
  executions[0]?.finish('done');
  next.ok(await next.expect('tool.result', { claimId, result: 'done' }));
  expect(executions.length).toBe(1);
});

test('only so many are executed at once', async () => {
  await opened([tool()], { toolExecutions: 1 });
  requested(2, 'c');
  requested(3, 'd');
  peer.ok(await peer.expect('tool.claim', { toolCallId: 'c' }));
  await settle();
  expect(peer.isQuiet).toBe(true);
  executions[0]?.finish(1);
  peer.ok(await peer.expect('tool.result', { toolCallId: 'c' }));
  peer.ok(await peer.expect('tool.claim', { toolCallId: 'd' }));
  await settle();
  expect(executions.length).toBe(2);
});

test.each([
  { idempotent: true, op: 'tool.release', sent: {} },
  { idempotent: false, op: 'tool.result', sent: { error: expect.stringContaining('not known') } },
])('closing lets go of an execution: idempotent $idempotent', async ({ idempotent, op, sent }) => {
  await opened();
  requested(2, 'c', { idempotent });
  const claimId = await begun(3);
  const closing = session.close();
  const letGo = await peer.expect(op, { claimId });
  expect(letGo).toMatchObject(sent);
  peer.ok(letGo);
  await closing;
  await peer.expect('unsubscribe');
  expect(executions[0]?.execution.signal.reason).toMatchObject({ code: 'closed' });
});

test('tools are added and removed, and what may not be declared is refused', async () => {
  await opened();
  const remove = session.addTools([tool({ name: 'other', idempotent: true })]);
  peer.ok(await peer.expect('unsubscribe'));
  const declared = await peer.subscribed('mb1x9k:1');
  expect(declared['tools']).toMatchObject([
    { name: 'pick' },
    { name: 'other', idempotent: true, needsPermission: false },
  ]);
  remove();
  remove();
  peer.ok(await peer.expect('unsubscribe'));
  expect((await peer.subscribed('mb1x9k:1'))['tools']).toMatchObject([{ name: 'pick' }]);
  expect(() => session.addTools([tool({ name: 'not a name' })])).toThrow(RangeError);
  expect(() => session.addTools([tool({ name: 'large', description: 'x'.repeat(70_000) })])).toThrow(RangeError);
  expect(() => session.addTools(Array.from({ length: 65 }, (_, n) => tool({ name: `t${n}` })))).toThrow(RangeError);
});
