/** assistant-ui's AG-UI runtime, unmodified, with the HttpAgent of `@ag-ui/client` 0.0.59 against the gateway. */
// @vitest-environment jsdom
import { type AssistantRuntime, AssistantRuntimeProvider, useAssistantTool } from '@assistant-ui/react';
import { type AgUiAssistantRuntime, useAgUiRuntime } from '@assistant-ui/react-ag-ui';
import { useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { afterEach, expect, inject, test } from 'vitest';
import { until } from '../support/network.js';
import { coreClient, fresh, opened } from './agents.js';

const { HttpAgent } = await import(
  new URL('../agui0/node_modules/@ag-ui/client/dist/index.mjs', import.meta.url).pathname
);

let runtime: AgUiAssistantRuntime;
let isShown = false;
let unmount = () => {};

function Tools() {
  useAssistantTool({
    toolName: 'pick_color',
    description: 'Lets the user pick',
    parameters: { type: 'object', properties: {} },
    execute: async () => 'blue',
  });
  useEffect(() => {
    isShown = true;
    return () => {
      isShown = false;
    };
  }, []);
  return null;
}

function App({ threadId }: { readonly threadId: string }) {
  const headers = { Authorization: `Bearer ${inject('token')}` };
  const agent = new HttpAgent({ url: `${inject('url')}/v1/ag-ui`, headers, threadId });
  return <Shown agent={agent} />;
}

function Shown({ agent }: { readonly agent: Parameters<typeof useAgUiRuntime>[0]['agent'] }) {
  runtime = useAgUiRuntime({ agent });
  return (
    <AssistantRuntimeProvider runtime={runtime as AssistantRuntime}>
      <Tools />
    </AssistantRuntimeProvider>
  );
}

async function show(): Promise<string> {
  const threadId = fresh();
  const root = createRoot(document.createElement('div'));
  unmount = () => root.unmount();
  root.render(<App threadId={threadId} />);
  await until(() => isShown);
  return threadId;
}

afterEach(async () => {
  unmount();
  await Promise.all(opened.splice(0).map((each) => each.close()));
});

const texts = () =>
  runtime.thread.getState().messages.map(({ role, content }) => {
    const parts = content.flatMap((part) =>
      part.type === 'text' ? part.text : part.type === 'tool-call' ? '[call]' : [],
    );
    return [role, parts.join('')];
  });

async function say(text: string, isDone: () => boolean): Promise<void> {
  runtime.thread.append({ role: 'user', content: [{ type: 'text', text }] });
  await until(() => isDone() && !runtime.thread.getState().isRunning);
}

test('answers, one after another', async () => {
  const threadId = await show();
  await say('hello', () => texts().at(-1)?.[1] === 'you said hello');
  await say('again', () => texts().at(-1)?.[1] === 'you said again');
  expect(texts()).toEqual([
    ['user', 'hello'],
    ['assistant', 'you said hello'],
    ['user', 'again'],
    ['assistant', 'you said again'],
  ]);
  const { messages } = await coreClient().session(threadId).history();
  expect(messages.map(({ text }) => text)).toEqual(['hello', 'you said hello', 'again', 'you said again']);
});

test('executes a tool of the page', async () => {
  const threadId = await show();
  await say('pick', () => texts().at(-1)?.[1]?.endsWith('you picked blue') === true);
  const { messages } = await coreClient().session(threadId).history();
  expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant', 'tool_call', 'tool', 'assistant']);
});

test('asks the user, and resumes', async () => {
  await show();
  await say('approve', () => runtime.unstable_getPendingInterrupts().length === 1);
  const [asked] = runtime.unstable_getPendingInterrupts();
  expect(asked).toMatchObject({ reason: 'confirmation', message: 'Delete 3 files?' });
  const answer = { interruptId: asked?.id ?? '', status: 'resolved' as const, payload: { approved: false } };
  await runtime.unstable_submitInterruptResponses([answer]);
  await until(() => texts().at(-1)?.[1]?.endsWith('reject_once null') === true);
  await say('hello', () => texts().at(-1)?.[1] === 'you said hello');
});
