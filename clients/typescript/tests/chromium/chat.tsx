/**
 * `useChat` as it is, for the tests in Chromium: `#gateway=…&token=…&session=…&transport=ours|default&major=5|6|7`. Built
 * with the AI SDK of each version; the types are those of version 5.
 */
import { useChat } from '@ai-sdk/react';
import * as sdk from 'ai';
import { useState } from 'react';
import { createRoot } from 'react-dom/client';
import { AntiphonChatTransport, AntiphonClient, useInStep } from '../support/ai-sdk.js';

const link = new URLSearchParams(location.hash.slice(1));
const option = (name: string) => link.get(name) ?? '';
const session = option('session');
const api = `${option('gateway')}/v1/ai-sdk/${option('major')}`;
const headers = { Authorization: `Bearer ${option('token')}` };

/** Those of version 6 and later. */
interface Later {
  readonly lastAssistantMessageIsCompleteWithApprovalResponses?: typeof sdk.lastAssistantMessageIsCompleteWithToolCalls;
}
interface WithApprovals {
  readonly addToolApprovalResponse?: (response: { id: string; approved: boolean }) => void;
}

const client = new AntiphonClient({ url: option('gateway'), token: option('token') });
const ours = new AntiphonChatTransport({ client, tools: [{ name: 'pick_file' }] });
/** What the tests look at: what `onToolCall` was told to execute, how often, and how often an answer was finished. */
const seen = { executed: 0, finished: 0 };
Object.assign(window, { seen });

const { lastAssistantMessageIsCompleteWithApprovalResponses: areDecided } = sdk as Later;
const isComplete: typeof sdk.lastAssistantMessageIsCompleteWithToolCalls = (chat) =>
  sdk.lastAssistantMessageIsCompleteWithToolCalls(chat) || areDecided?.(chat) === true;

interface Part {
  readonly type: string;
  readonly text?: string;
  readonly toolCallId?: string;
  readonly toolName?: string;
  readonly state?: string;
  readonly approval?: { readonly id: string };
  readonly errorText?: string;
}

type UsedChat = ReturnType<typeof useChat> & WithApprovals;

function Tool({ part, chat }: { part: Part; chat: UsedChat }) {
  const name = part.toolName ?? part.type.slice('tool-'.length);
  const { toolCallId = '', state, approval, errorText } = part;
  const output = (value: unknown) => chat.addToolOutput({ tool: name, toolCallId, output: value });
  const decide = (approved: boolean) =>
    approval && chat.addToolApprovalResponse
      ? chat.addToolApprovalResponse({ id: approval.id, approved })
      : output(approved ? 'allow_once' : 'reject_once');
  return (
    <fieldset data-tool={name} data-state={state}>
      <legend>{errorText ?? state}</legend>
      {name === 'pick_file' && state === 'input-available' && (
        <button type="button" onClick={() => output({ file: 'page.pdf' })}>
          pick
        </button>
      )}
      {name === 'approval' && (state === 'approval-requested' || state === 'input-available') && (
        <button type="button" onClick={() => decide(true)}>
          allow
        </button>
      )}
    </fieldset>
  );
}

function Shown({ chat, stop }: { chat: UsedChat; stop: () => unknown }) {
  const [draft, setDraft] = useState('');
  const send = () => {
    setDraft('');
    return chat.sendMessage({ text: draft });
  };
  return (
    <main data-status={chat.status}>
      <ol id="messages">
        {chat.messages.map((message) => (
          <li key={message.id} className={message.role} data-id={message.id}>
            {(message.parts as Part[]).map((part, n) =>
              part.type === 'text' ? (
                part.text
              ) : part.toolCallId ? (
                // biome-ignore lint/suspicious/noArrayIndexKey: parts have no ids
                <Tool key={n} part={part} chat={chat} />
              ) : null,
            )}
          </li>
        ))}
      </ol>
      <p id="error">{chat.error?.message}</p>
      <input aria-label="draft" value={draft} onChange={(event) => setDraft(event.target.value)} />
      <button type="button" onClick={send}>
        send
      </button>
      <button type="button" onClick={() => stop()}>
        stop
      </button>
      <button type="button" onClick={() => chat.resumeStream()}>
        resume
      </button>
    </main>
  );
}

const told: Parameters<typeof useChat>[0] = {
  id: session,
  resume: true,
  sendAutomaticallyWhen: isComplete,
  onToolCall: ({ toolCall }) => {
    if (toolCall.toolName === 'pick_file') seen.executed += 1;
  },
  onFinish: () => {
    seen.finished += 1;
  },
};

function Ours() {
  const chat = useChat({ ...told, transport: ours });
  const { stop } = useInStep(ours, chat);
  return <Shown chat={chat} stop={stop} />;
}

const fallback = new sdk.DefaultChatTransport({ api, headers });

/** Nothing of this package is used here: what stops a run is a request. */
function Default({ messages }: { messages: sdk.UIMessage[] }) {
  const chat = useChat({ ...told, messages, transport: fallback });
  const stop = async () => {
    const { runId } = (chat.messages.at(-1)?.metadata ?? {}) as { runId?: string };
    await fetch(`${option('gateway')}/v1/sessions/${session}/runs/${runId}/cancel`, { method: 'POST', headers });
  };
  return <Shown chat={chat} stop={stop} />;
}

const root = createRoot(document.body.appendChild(document.createElement('div')));
if (option('transport') === 'ours') root.render(<Ours />);
else {
  const page = await (await fetch(`${api}/${session}/messages?limit=200`, { headers })).json();
  root.render(<Default messages={page.messages} />);
}
