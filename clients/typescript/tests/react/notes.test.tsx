/** What `useSession().notes` and `useSessions` tell. */
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AntiphonClient } from '../../src/index.js';
import type { JsonObject } from '../../src/json.js';
import {
  AntiphonProvider,
  type UsedSession,
  type UsedSessions,
  useSession,
  useSessions,
} from '../../src/react/index.js';
import { applied, entry, Network, type Peer, sent, started } from '../support/network.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

let network: Network;
let client: AntiphonClient;
let root: Root;
let used: UsedSession;
let listed: UsedSessions;

beforeEach(() => {
  network = new Network();
  client = new AntiphonClient({ url: 'http://gateway', token: 't1', random: () => 0, WebSocket: network.WebSocket });
  root = createRoot(document.createElement('div'));
  vi.stubGlobal('requestAnimationFrame', (draw: () => void) => setTimeout(draw, 0));
  vi.stubGlobal('cancelAnimationFrame', clearTimeout);
});

afterEach(async () => {
  act(() => root.unmount());
  await client.close();
  vi.unstubAllGlobals();
});

function Chat() {
  used = useSession('demo');
  return null;
}

function List({ pageSize }: { pageSize: number }) {
  listed = useSessions({ pageSize, refreshMs: 3_600_000 });
  return null;
}

const show = (what: 'chat' | 'list', pageSize = 2) =>
  act(async () =>
    root.render(
      <AntiphonProvider client={client}>{what === 'chat' ? <Chat /> : <List pageSize={pageSize} />}</AntiphonProvider>,
    ),
  );

const user = { kind: 'user', id: 'user-1', name: 'A user' };
const said = (seq: number, event: JsonObject) => entry(seq, seq - 1, [event]);
const asked = (seq: number, toolCallId: string, executor: string) =>
  said(seq, { type: 'tool.requested', toolCallId, name: 'look', args: {}, executor });

/** A run that has called `a` (of the agent's own) and `b` (of a client). */
async function running(): Promise<Peer> {
  await show('chat');
  const peer = await network.accept();
  await act(() => peer.opened());
  peer.send(sent(1, 0, 'i'), started(2, 1), applied(3, 2), asked(4, 'a', 'agent'), asked(5, 'b', 'client'));
  return peer;
}

/** Until what was sent is drawn. */
async function drawn(holds: () => boolean): Promise<void> {
  while (!holds()) await act(() => new Promise((resolve) => setTimeout(resolve, 1)));
}

describe('notes', () => {
  test('a call that failed, though it got a result as well', async () => {
    const peer = await running();
    const events = [
      { type: 'tool.failed', toolCallId: 'a', code: 'error' },
      { type: 'TOOL_CALL_RESULT', messageId: 'r', toolCallId: 'a', content: 'the disk is full' },
    ];
    peer.send(entry(6, 5, events));
    await drawn(() => used.notes.calls.size === 1);
    expect(used.notes.calls.get('a')).toEqual({ end: 'error', by: null });
  });

  test('who executes a call, how far it has come, and who has done it', async () => {
    const peer = await running();
    const claim = { toolCallId: 'b', claimId: 'c' };
    const participant = (seq: number, event: JsonObject, by: JsonObject = user) => {
      const { lane: _, ...frame } = entry(seq, seq - 1, [event], { by });
      return frame;
    };
    peer.send(
      participant(6, { type: 'tool.claimed', ...claim, expiresAt: 10_000 }),
      participant(7, { type: 'tool.progress', ...claim, value: 'half of it' }),
      participant(8, { type: 'tool.progress', ...claim, value: 'a lie' }, { kind: 'user', id: 'user-2' }),
    );
    await drawn(() => used.notes.calls.size === 1);
    expect(used.notes.calls.get('b')).toEqual({ end: null, by: null, progress: 'half of it' });
    peer.send(participant(9, { type: 'tool.resolved', ...claim, result: {} }));
    await drawn(() => used.notes.calls.get('b')?.end === 'done');
    expect(used.notes.calls.get('b')?.by).toMatchObject({ id: 'user-1' });
  });

  test('how a run ended, and that another worker had gone on with it; an older owner says nothing', async () => {
    const peer = await running();
    const runId = 'run_i';
    peer.send(
      said(6, { type: 'run.taken_over', runId, attempt: 2, policy: 'restart' }),
      entry(7, 6, [{ type: 'RUN_ERROR', message: 'stale', code: 'agent_error' }], { id: '0-7' }),
    );
    await drawn(() => used.notes.runs.size === 1);
    expect(used.notes.runs.get(runId)).toEqual({ takenOver: 'restart', outcome: null });
    peer.send(said(8, { type: 'RUN_ERROR', message: 'no', code: 'agent_error' }));
    await drawn(() => used.notes.runs.get(runId)?.outcome != null);
    expect(used.notes.runs.get(runId)?.outcome).toMatchObject({ kind: 'error', code: 'agent_error', message: 'no' });
  });

  test('that the session was deleted', async () => {
    const peer = await running();
    const { lane: _, ...frame } = entry(6, 5, [{ type: 'session.deleted' }], { by: user });
    peer.send(frame);
    await drawn(() => used.notes.deletedAt !== null);
    expect(used.messages).toEqual([]);
    expect(used.notes.runs.size).toBe(0);
  });
});

describe('the list of sessions', () => {
  const info = (session: string) => ({
    session,
    title: null,
    metadata: {},
    createdBy: null,
    updatedAt: 1,
    status: 'idle',
  });
  const answer = async (peer: Peer, names: string[], after: string | null) =>
    peer.ok(await peer.expect('session.list'), { sessions: names.map(info), after });

  test('a page, then more, then afresh; and why it is not to be had', async () => {
    await show('list');
    expect(listed.sessions).toBeNull();
    const peer = await network.accept();
    await peer.welcome();
    await act(() => answer(peer, ['a', 'b', 'c'], 'x'));
    await drawn(() => listed.sessions !== null);
    expect([listed.sessions?.map(({ session }) => session), listed.hasMore]).toEqual([['a', 'b'], true]);

    act(() => listed.loadMore());
    await act(() => answer(peer, ['a', 'b', 'c'], null));
    await drawn(() => listed.sessions?.length === 3);
    expect(listed.hasMore).toBe(false);

    act(() => listed.refresh());
    const command = await peer.expect('session.list');
    await act(async () => peer.error(command, 'not_allowed'));
    await drawn(() => listed.error !== null);
    expect(listed.error?.code).toBe('not_allowed');
    expect(listed.sessions?.length).toBe(3);
  });
});
