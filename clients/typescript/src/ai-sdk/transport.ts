/** A transport for `useChat` of the AI SDK, versions 5, 6 and 7: a chat is a session. */
import type { AntiphonClient } from '../client.js';
import { AntiphonError } from '../errors.js';
import { asObject, asString } from '../json.js';
import type { Mode } from '../model.js';
import type { DeclaredTool, Tool } from '../tools.js';
import { ChatLog } from './chat-log.js';
import type { CommonChunk, UIMessageLike } from './chunks.js';
import { uiMessages } from './transcript.js';
import { type Asked, type Response, readTurn, responsesOf } from './turns.js';

/** Refusals that say that somebody was first, that it was sent before, or came too late: the stream shows what counts. */
const TOO_LATE: readonly string[] = [
  'already_resolved',
  'already_voted',
  'approval_not_found',
  'call_not_found',
  'deadline_passed',
  'not_claimed',
];

export interface TransportOptions {
  /** Whoever made it closes it. */
  readonly client: AntiphonClient;
  /**
   * What this page executes for agents. A tool with `execute` is executed by the client, once, by one of the pages that
   * have it; a call of one without waits for `addToolOutput`.
   */
  readonly tools?: readonly (Tool | DeclaredTool)[];
}

interface Sent extends Asked {
  readonly chatId: string;
  readonly abortSignal: AbortSignal | undefined;
  readonly body?: object;
}

/**
 * Give it to `useChat` as its `transport`; the chat's `id` is the name of the session, and the id of a user's message
 * that of its input, so that sending again is safe. A chat is read from its first use until `leave`, or the end of the
 * client. What a lost connection interrupts goes on by itself: a stream only waits.
 */
export class AntiphonChatTransport {
  /** What is resumed is told from the start of its message (asked for by version 6 and later). */
  readonly resumeStreamIsReplay = true;
  readonly client: AntiphonClient;
  readonly #tools: readonly (Tool | DeclaredTool)[];
  readonly #logs = new Map<string, ChatLog>();
  readonly #endTools = new Map<string, () => void>();

  constructor({ client, tools = [] }: TransportOptions) {
    this.client = client;
    this.#tools = tools;
  }

  // ---- what `useChat` calls

  /**
   * Sends the last message, or the outputs and approvals in the last answer; the stream is the answer. `body` may have
   * the `mode` of the input. Rejects with the refusal, or `not_supported` (edits, regeneration, files that were not
   * uploaded).
   */
  async sendMessages(asked: Sent): Promise<ReadableStream<CommonChunk>> {
    const turn = readTurn(asked, asked.chatId);
    const { chatId, abortSignal: signal, body } = asked;
    const log = this.log(chatId);
    const { inputId } = turn;
    if ('content' in turn) {
      const mode = asString(asObject(body)?.['mode']) as Mode | null;
      const { content, attachments } = turn;
      const receipt = await log.session.send(content, {
        inputId,
        signal,
        ...(attachments.length > 0 && { attachments }),
        ...(mode !== null && { mode }),
      });
      await log.ready(signal);
      if (receipt.isDuplicate && !log.has(inputId)) return answeredLongAgo();
      return log.stream(inputId, { signal });
    }
    await log.ready(signal);
    if (!log.has(inputId))
      throw new AntiphonError('not_supported', 'the answer was given long ago: load the chat again');
    const responses = responsesOf(turn.parts, log.session.state);
    for (const response of responses) await respond(log, response, signal);
    return log.stream(inputId, { signal, shown: turn.shown.seq, given: responses.map(({ id }) => id) });
  }

  /** The answer that is being given, from its start; null if none is. */
  async reconnectToStream({
    chatId,
    abortSignal: signal,
  }: {
    chatId: string;
    abortSignal?: AbortSignal | undefined;
  }): Promise<ReadableStream<CommonChunk> | null> {
    const log = this.log(chatId);
    await log.ready(signal);
    const { active } = log;
    return active && log.stream(active.answer.inputId, { signal });
  }

  /** Leaves all chats (called by version 7 when a chat is disposed of); the client stays as it is. */
  close = (): void => {
    for (const chatId of [...this.#logs.keys()]) this.leave(chatId);
  };

  // ---- beyond that

  /**
   * Stops the run of the chat, also before it begins; its stream ends by itself. The `stop` of `useChat` does not: it
   * only ends the reading.
   */
  async stop(chatId: string): Promise<void> {
    const log = this.log(chatId);
    await log.ready();
    const { active } = log;
    if (!active) return;
    try {
      await log.session.cancelRun(active.answer.runId ?? active.answer.messageId);
    } catch (error) {
      if (!(error instanceof AntiphonError && ['run_ended', 'run_not_found'].includes(error.code))) throw error;
    }
  }

  /** What the chat holds, to begin with: `useChat({ id, transport, messages, resume: true })`. */
  async messages<M = UIMessageLike>(chatId: string, { signal }: { signal?: AbortSignal } = {}): Promise<M[]> {
    const log = this.log(chatId);
    await log.loaded(signal);
    return uiMessages(log.session.messages, chatId) as unknown[] as M[];
  }

  /** The log of a chat, which is read from now on. */
  log(chatId: string): ChatLog {
    const known = this.#logs.get(chatId);
    if (known?.session.isOpen) return known;
    known?.close();
    const { client } = this;
    const session = client.session(chatId);
    const log = new ChatLog(session, (call) => this.#isViewers(call));
    this.#logs.set(chatId, log);
    if (this.#tools.length) this.#endTools.set(chatId, session.addTools(this.#tools));
    return log;
  }

  /** Reads the chat no more. Its run goes on. */
  leave(chatId: string): void {
    this.#endTools.get(chatId)?.();
    this.#endTools.delete(chatId);
    this.#logs.get(chatId)?.close();
    this.#logs.delete(chatId);
  }

  /** A call is for the user of this page to answer. */
  #isViewers({ name, participant, device }: { readonly [field: string]: unknown }): boolean {
    const isByHand = this.#tools.some((tool) => tool.name === name && !('execute' in tool));
    const isMine = (participant ?? this.client.welcome?.user.id) === this.client.welcome?.user.id;
    return isByHand && isMine && (device ?? this.client.device) === this.client.device;
  }
}

/** A message that was sent before, and whose answer is not kept: there is nothing to add to what the chat shows. */
const answeredLongAgo = (): ReadableStream<CommonChunk> =>
  new ReadableStream({
    start(controller) {
      controller.enqueue({ type: 'finish', finishReason: 'stop' });
      controller.close();
    },
  });

async function respond({ session }: ChatLog, response: Response, signal: AbortSignal | undefined): Promise<void> {
  const { id } = response;
  try {
    if ('option' in response) {
      await session.respond(id, response.option, {
        ...('payload' in response && { payload: response.payload }),
        signal,
      });
    } else await session.resolveCall(id, response.outcome, { signal });
  } catch (error) {
    if (!(error instanceof AntiphonError && TOO_LATE.includes(error.code))) throw error;
  }
}
