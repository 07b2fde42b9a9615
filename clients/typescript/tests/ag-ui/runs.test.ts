/** Unmodified clients of AG-UI, with their own verifiers, against a real gateway and real workers. */
import { randomUUID } from 'node:crypto';
import type { Message } from '@ag-ui/client';
import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest';
import { until } from '../support/network.js';
import { coreClient, fresh, HTTP, isModern, opened, quietly, Seen, SOCKET } from './agents.js';

const TOOLS = [
  { name: 'pick_color', description: 'Lets the user pick', parameters: { type: 'object', properties: {} } },
];
let checkQuiet = () => {};

beforeEach(() => {
  checkQuiet = quietly();
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
  checkQuiet();
});

const callsOf = (messages: readonly Message[]) =>
  messages.flatMap((each) => (each.role === 'assistant' ? (each.toolCalls ?? []) : []));
const answer = (toolCallId: string, content: string): Message => ({
  id: randomUUID(),
  role: 'tool',
  toolCallId,
  content,
});

describe.each([HTTP, SOCKET])('$kind', ({ make, join }) => {
  test('answers, and is told nothing twice', async () => {
    const seen = new Seen(make(fresh()));
    expect(await seen.say('hello')).toMatchObject([{ role: 'assistant', content: 'you said hello' }]);
    expect(seen.types).toEqual([
      'RUN_STARTED',
      'TEXT_MESSAGE_START',
      'TEXT_MESSAGE_CONTENT',
      'TEXT_MESSAGE_END',
      'RUN_FINISHED',
    ]);
    expect(seen.events[0]?.['protocolVersion']).toBe(isModern() ? '1.0' : undefined);
    await seen.say('again');
    expect(seen.types).not.toContain('MESSAGES_SNAPSHOT');
    expect(seen.texts).toEqual([
      ['user', 'hello'],
      ['assistant', 'you said hello'],
      ['user', 'again'],
      ['assistant', 'you said again'],
    ]);
    const before = structuredClone(seen.agent.messages);
    await seen.go(); // the same request again
    expect(seen.agent.messages).toEqual(before);
  });

  test('sends attachments of the session, and shows them', async () => {
    const threadId = fresh();
    const path = `${inject('url')}/v1/sessions/${threadId}/attachments?name=a.txt`;
    const headers = { Authorization: `Bearer ${inject('token')}`, 'Content-Type': 'text/plain' };
    const { id } = await (await fetch(path, { method: 'POST', headers, body: 'hello' })).json();
    const source = isModern()
      ? { type: 'file', value: id, provider: 'antiphon', mimeType: 'text/plain' }
      : { type: 'url', value: `/v1/sessions/${threadId}/attachments/${id}`, mimeType: 'text/plain' };
    const content = (from: object) =>
      [
        { type: 'text', text: 'hello' },
        { type: 'document', source: from },
      ] as unknown as string;
    const seen = new Seen(make(threadId));
    expect(await seen.say(content(source))).toMatchObject([{ role: 'assistant', content: 'you said hello' }]);
    expect(seen.types).not.toContain('MESSAGES_SNAPSHOT');
    const other = new Seen(make(threadId));
    await join(other.agent);
    const metadata = { name: 'a.txt', size: 5 };
    expect(other.agent.messages[0]?.content).toMatchObject([
      { type: 'text', text: 'hello' },
      { type: 'document', source, metadata },
    ]);
    await other.say('again');
    expect(other.types).not.toContain('MESSAGES_SNAPSHOT');
    const bytes = { type: 'data', value: 'aGVsbG8=', mimeType: 'text/plain' };
    await expect(other.say(content(bytes))).rejects.toThrow(/upload the file/);
  });

  test('shows steps, reasoning, and tools of the agent', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('steps');
    expect(seen.types.filter((type) => type.startsWith('STEP'))).toEqual([
      'STEP_STARTED',
      'STEP_FINISHED',
      'STEP_STARTED',
      'STEP_FINISHED',
    ]);
    expect(seen.texts).toEqual([
      ['user', 'steps'],
      ['reasoning', 'where is it? '],
      ['assistant', 'here it is'],
    ]);
    await seen.say('tool');
    const [call] = callsOf(seen.agent.messages);
    expect(call?.function).toEqual({ name: 'look_up', arguments: '{"q":"x"}' });
    expect(seen.texts.slice(-2)).toEqual([
      ['tool', '{"found":"x"}'],
      ['assistant', 'found x'],
    ]);
  });

  test('has the page execute tools', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('pick', { tools: TOOLS });
    const [call] = callsOf(seen.agent.messages);
    expect(call?.function).toEqual({ name: 'pick_color', arguments: '{"of":["red","blue"]}' });
    const pending = { type: 'success', pendingToolCallIds: [call?.id] };
    expect(seen.last['outcome']).toEqual(isModern() ? pending : undefined);
    seen.agent.addMessage(answer(call?.id ?? '', 'red'));
    await seen.go({ tools: TOOLS });
    expect(seen.texts.map(([, content]) => content)).toEqual(['pick', 'pick one', undefined, 'red', 'you picked red']);
    expect(seen.types).not.toContain('TOOL_CALL_RESULT'); // it has its own
    expect(seen.types).not.toContain('MESSAGES_SNAPSHOT');
  });

  test('has the page execute two tools at once', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('pick two', { tools: TOOLS });
    for (let asked = callsOf(seen.agent.messages); asked.length; ) {
      const done = new Set(seen.agent.messages.flatMap((each) => (each.role === 'tool' ? [each.toolCallId] : [])));
      asked = asked.filter(({ id }) => !done.has(id));
      for (const [n, { id }] of asked.entries()) seen.agent.addMessage(answer(id, JSON.stringify(n)));
      if (asked.length) await seen.go({ tools: TOOLS });
      asked = callsOf(seen.agent.messages).filter(({ id }) => !done.has(id) && !asked.some((each) => each.id === id));
    }
    expect(seen.texts.at(-1)?.[1]).toMatch(/^you picked \d and \d$/);
  });

  test('is interrupted, and resumes', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('approve');
    expect(seen.outcome).toBe('interrupt');
    const [asked] = seen.agent.pendingInterrupts;
    expect(asked).toMatchObject({ reason: 'confirmation', message: 'Delete 3 files?' });
    await expect(seen.agent.runAgent()).rejects.toThrow(/pending interrupt/);
    const resume = { interruptId: asked?.id ?? '', status: 'resolved' as const };
    await seen.go({ resume: [{ ...resume, payload: { approved: true, editedArgs: { n: 2 } } }] });
    expect(seen.texts.map(([, content]) => content)).toEqual(['approve', 'wait ', 'allow_once {"n":2}']);
    expect(seen.agent.pendingInterrupts).toEqual([]);
    await seen.go({ resume: [{ ...resume, payload: true }] }); // sent again
    expect(seen.texts).toHaveLength(3);

    await seen.say('question');
    const [question] = seen.agent.pendingInterrupts;
    expect(question).toMatchObject({ reason: 'input_required', responseSchema: { type: 'integer' } });
    await seen.go({ resume: [{ interruptId: question?.id ?? '', status: 'resolved', payload: 42 }] });
    expect(seen.texts.at(-1)).toEqual(['assistant', 'size 42']);
    await seen.say('question');
    await seen.go({ resume: [{ interruptId: seen.agent.pendingInterrupts[0]?.id ?? '', status: 'cancelled' }] });
    expect(seen.texts.at(-1)).toEqual(['assistant', 'size declined']);
  });

  test('shares state, and events of the application', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('state');
    expect(seen.agent.state).toEqual({ count: 2 });
    expect(seen.events.find(({ type }) => type === 'CUSTOM')).toMatchObject({ name: 'note', value: { a: 1 } });
  });

  test('shows agents that are asked', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('ask');
    const begun = seen.events.find(({ type }) => type === 'SUBAGENT_STARTED');
    expect(begun).toMatchObject({ name: 'helper', description: 'what is it?' });
    expect(seen.types).toContain('SUBAGENT_FINISHED');
    const tag = begun?.['subagentRunId'];
    const owned = seen.agent.messages.filter((each) => 'subagentRunId' in each && each.subagentRunId === tag);
    expect(owned.map(({ role }) => role)).toEqual(['reasoning', 'assistant']);
    expect(seen.texts.at(-1)).toEqual(['assistant', 'it is a thing']);
  });

  test('tells of errors', async () => {
    const seen = new Seen(make(fresh()));
    await seen.say('fail');
    expect(seen.last).toMatchObject({ type: 'RUN_ERROR', code: 'agent_error' });
    expect(await seen.say('hello')).toMatchObject([{ content: 'you said hello' }]);
  });

  test('joins a run in the middle', async () => {
    const thread = fresh();
    const seen = new Seen(make(thread));
    const running = seen.say('stream 80 at 40/s');
    await until(() => String(seen.texts.at(-1)?.[1]).length > 20);
    const joined = new Seen(make(thread));
    await join(joined.agent);
    await running;
    expect(joined.types.slice(0, 3)).toEqual(['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'TEXT_MESSAGE_START']);
    const shown = joined.events[1]?.['messages'] as Message[] | undefined;
    expect(String(shown?.at(-1)?.content).length).toBeGreaterThan(0);
    expect(joined.agent.messages).toEqual(seen.agent.messages);
    expect(joined.texts.at(-1)?.[1]).toBe(Array.from({ length: 80 }, (_, n) => `t${n} `).join(''));
    const late = new Seen(make(thread));
    await join(late.agent);
    expect(late.types).toEqual(['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'RUN_FINISHED']);
    expect(late.agent.messages).toEqual(seen.agent.messages);
  });

  test('is cancelled', async () => {
    const thread = fresh();
    const seen = new Seen(make(thread));
    const running = seen.say('stream 1000 at 50/s');
    await until(() => String(seen.texts.at(-1)?.[1]).length > 20);
    const id = seen.agent.messages[0]?.id;
    if (seen.agent.constructor.name === 'AntiphonAgent') seen.agent.abortRun();
    else await coreClient().session(thread).cancelRun(`run_${id}`);
    await running;
    if (isModern()) expect(seen.outcome).toBe('cancelled');
    else expect(seen.last).toMatchObject({ type: 'RUN_ERROR', code: 'cancelled' });
    expect(await seen.say('hello')).toMatchObject([{ content: 'you said hello' }]);
  });

  test('to be gone cancels nothing', async () => {
    const thread = fresh();
    const seen = new Seen(make(thread));
    const running = seen.say('stream 60 at 40/s');
    await until(() => String(seen.texts.at(-1)?.[1]).length > 10);
    await seen.agent.detachActiveRun();
    await running;
    const later = new Seen(make(thread));
    await join(later.agent);
    expect(later.texts.at(-1)?.[1]).toMatch(/t59 $/);
  });

  test('other people are heard', async () => {
    const thread = fresh();
    const seen = new Seen(make(thread));
    await seen.say('hello');
    const other = new Seen(make(thread));
    await other.say('and me');
    expect(other.texts.map(([, content]) => content)).toEqual(['hello', 'you said hello', 'and me', 'you said and me']);
    await seen.say('back again');
    expect(seen.types[1]).toBe('MESSAGES_SNAPSHOT');
    expect(seen.texts.map(([, content]) => content).slice(2)).toEqual([
      'and me',
      'you said and me',
      'back again',
      'you said back again',
    ]);
  });

  test('several messages at once, and a history that was changed', async () => {
    const seen = new Seen(make(fresh()));
    seen.agent.addMessage({ id: randomUUID(), role: 'user', content: 'one' });
    await seen.say('two');
    expect(seen.texts.filter(([role]) => role === 'assistant').map(([, content]) => content)).toEqual([
      'you said one',
      'you said two',
    ]);
    const failed = vi.spyOn(console, 'error').mockImplementation(() => {});
    const [first] = seen.agent.messages;
    seen.agent.setMessages([{ ...first, content: 'other' } as Message, ...seen.agent.messages.slice(1)]);
    await expect(seen.say('three')).rejects.toThrow(/history_changed/);
    failed.mockRestore();
  });
});
