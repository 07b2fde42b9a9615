/** What `useChat` asks of its transport: a new message, or the outputs and approvals in the parts of the last answer. */
import { attachmentInPath, uploadFirst } from '../attachment-paths.js';
import { AntiphonError } from '../errors.js';
import { asObject, asString, type JsonObject } from '../json.js';
import type { Approval, State } from '../model.js';
import { type Cursor, readCursor } from '../protocol.js';
import type { UIMessageLike } from './chunks.js';

export interface Asked {
  readonly trigger: 'submit-message' | 'regenerate-message';
  readonly messageId: string | undefined;
  readonly messages: readonly UIMessageLike[];
}

/** `inputId` with `content`: a new input, with the ids of its `attachments`; with `parts`: its answer goes on from what is `shown`. */
export type Turn =
  | { readonly inputId: string; readonly content: string; readonly attachments: readonly string[] }
  | { readonly inputId: string; readonly shown: Cursor; readonly parts: readonly JsonObject[] };

const APPROVING = ['allow_once', 'allow_always'];
const REJECTING = ['reject_once', 'reject_always', 'decline'];

const unsupported = (text: string) => new AntiphonError('not_supported', text);

/** Throws an AntiphonError (`not_supported`). */
export function readTurn({ trigger, messageId, messages }: Asked, session: string): Turn {
  const last = messages.at(-1);
  if (trigger === 'regenerate-message') {
    throw unsupported(
      'an answer cannot be given again in the same session: fork it before the input, and send it there',
    );
  }
  if (last?.role === 'assistant') return readContinuation(last);
  if (last?.role !== 'user') throw unsupported("the last message must be the user's, or an answer");
  if (messageId !== undefined) {
    throw unsupported(
      'a message that was sent cannot be edited: fork the session before it, and send the new one there',
    );
  }
  const parts = partsOf(last);
  const texts = parts.filter(({ type }) => type === 'text').map(({ text }) => asString(text) ?? '');
  const attachments = parts.filter(({ type }) => type !== 'text').map((part) => attachmentOf(part, session));
  return { inputId: last.id, content: texts.join('\n'), attachments };
}

function attachmentOf({ type, url }: JsonObject, session: string): string {
  const id = type === 'file' ? attachmentInPath(session, asString(url) ?? '') : null;
  if (id === null) throw uploadFirst(String(type));
  return id;
}

function readContinuation(message: UIMessageLike): Turn {
  const shown = readCursor(asString(asObject(message.metadata)?.['cursor']) ?? '');
  if (!shown || !message.id.startsWith('run_')) {
    throw unsupported('the last message is no answer that waits: it has no `metadata.cursor`');
  }
  return { inputId: message.id.slice('run_'.length), shown, parts: partsOf(message) };
}

const partsOf = ({ parts }: UIMessageLike) => parts as readonly unknown[] as readonly JsonObject[];

/** What a part of an answer does, if somebody waits for it. */
export type Response =
  | { readonly id: string; readonly option: string; readonly payload?: unknown }
  | { readonly id: string; readonly outcome: { readonly result: unknown } | { readonly error: string } };

/** What the parts do, as far as somebody waits for them. */
export function responsesOf(parts: readonly JsonObject[], { approvals, calls }: State): Response[] {
  return parts.flatMap((part): Response | Response[] => {
    const id = asString(part['toolCallId']);
    const approval = approvals.find(({ approvalId }) => approvalId === id);
    if (id !== null && approval) return decisionOf(id, part, approval);
    const isOpen = calls.some(({ toolCallId, executor }) => toolCallId === id && executor === 'client');
    if (id === null || !isOpen) return [];
    if (part['state'] === 'output-available') return { id, outcome: { result: part['output'] ?? null } };
    if (part['state'] === 'output-error') return { id, outcome: { error: asString(part['errorText']) || 'error' } };
    return [];
  });
}

function decisionOf(id: string, { state, output, approval }: JsonObject, { options }: Approval): Response | [] {
  const first = (wanted: string[]) => wanted.find((option) => options.includes(option)) ?? wanted[0] ?? '';
  if (state === 'approval-responded') {
    return { id, option: first(asObject(approval)?.['approved'] === true ? APPROVING : REJECTING) };
  }
  if (state === 'output-error') return { id, option: first(REJECTING) };
  if (state !== 'output-available') return [];
  const given = asObject(output);
  const option = asString(given?.['option']);
  if (given && option !== null) return { id, option, ...('payload' in given && { payload: given['payload'] }) };
  if (typeof output === 'string' && options.includes(output)) return { id, option: output };
  return { id, option: 'answer', payload: output }; // to a question anything is an answer
}
