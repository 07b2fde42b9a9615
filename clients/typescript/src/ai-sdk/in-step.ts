/** Keeps a chat in step with what others do in its session: other tabs, other people, another device. */
import type { UIMessageLike } from './chunks.js';
import { uiMessages } from './transcript.js';
import type { AntiphonChatTransport } from './transport.js';

/** What `useChat` returns, as far as it is used here. */
export interface ChatHandle<M extends UIMessageLike = UIMessageLike> {
  readonly id: string;
  readonly status: string;
  readonly messages: M[];
  readonly setMessages: (messages: M[]) => void;
  readonly resumeStream: () => Promise<void>;
}

/** What `keepInStep` gives: `look` again when the chat's `status` has changed, and `end`. */
export interface InStep {
  readonly look: () => void;
  readonly end: () => void;
}

/**
 * Shows in the chat what is in the session and not in the chat: messages of others, and answers that it did not ask for.
 * A chat that is being told something is left alone until that is over. `chat` is asked for the chat as it is now.
 */
export function keepInStep<M extends UIMessageLike>(
  transport: AntiphonChatTransport,
  chatId: string,
  chat: () => ChatHandle<M>,
): InStep {
  const log = transport.log(chatId);
  let isEnded = false;
  let isLooking = false;
  const look = () => {
    const { status } = chat();
    if (isEnded || isLooking || status === 'submitted' || status === 'streaming') return;
    if (!log.isCaughtUp) return;
    show(log, chat());
    if (!log.active?.isBehind) return;
    isLooking = true;
    chat()
      .resumeStream()
      .finally(() => {
        isLooking = false;
        look();
      });
  };
  const end = log.subscribe(look);
  void transport.messages(chatId).then(look, () => {}); // what is older than the session's snapshot
  look();
  return {
    look,
    end: () => {
      isEnded = true;
      end();
    },
  };
}

/** Puts into the chat what it lacks of the transcript. */
function show<M extends UIMessageLike>(
  log: ReturnType<AntiphonChatTransport['log']>,
  { messages, setMessages }: ChatHandle<M>,
): void {
  const told = uiMessages(log.session.messages, log.session.name) as unknown[] as M[];
  const known = new Map(messages.map((message) => [message.id, message]));
  if (told.every(({ id }) => known.has(id) && !isBehind(log, id))) return log.showed();
  const ids = new Set(told.map(({ id }) => id));
  const first = messages.findIndex(({ id }) => ids.has(id));
  const others = messages.filter(({ id }) => !ids.has(id));
  const before = others.filter((message) => first < 0 || messages.indexOf(message) < first);
  const after = others.filter((message) => !before.includes(message));
  const shown = told.map((message) => (isBehind(log, message.id) ? message : (known.get(message.id) ?? message)));
  setMessages([...before, ...shown, ...after]);
  log.showed();
}

/** An answer that is over, of which the chat has not had all; one that goes on comes as a stream. */
const isBehind = (log: ReturnType<AntiphonChatTransport['log']>, id: string) =>
  log.isBehind(id) && log.active?.answer.messageId !== id;
