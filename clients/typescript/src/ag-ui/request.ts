/** What an application asks for with a `RunAgentInput`: what in it is new, and what is there already. */
import { uploadFirst } from '../attachment-paths.js';
import { AntiphonError } from '../errors.js';
import { asObject, asString, type JsonObject } from '../json.js';
import { attached, partsOf, textOf } from './content.js';
import type { Shown } from './messages.js';

/** A run as it is asked for, as far as it is used here. */
export interface Asked {
  readonly threadId: string;
  readonly runId: string;
  readonly messages: readonly unknown[];
  readonly tools?: readonly unknown[];
  readonly resume?: readonly { readonly interruptId: string; readonly status: string; readonly payload?: unknown }[];
  /** Said by AG-UI 1.0 and later. */
  readonly protocolVersion?: string;
}

/** What a subscription declares of the tools of a page. */
export const declarations = (tools: readonly unknown[]): JsonObject[] =>
  tools.flatMap((raw) => {
    const tool = asObject(raw);
    const parameters = asObject(tool?.['parameters']);
    const hasSchema = parameters && Object.keys(parameters).length > 0;
    const name = asString(tool?.['name']);
    if (name === null) return [];
    return [{ name, description: asString(tool?.['description']) ?? '', ...(hasSchema && { parameters }) }];
  });

/**
 * The user's messages after the last one that the session has. What stands before is taken for known: an input that was
 * taken back is in no session's messages.
 */
export function freshMessages(messages: readonly Shown[], known: ReadonlySet<string>, session: string): Shown[] {
  const last = messages.findLastIndex(({ id, role }) => known.has(id) || role === 'assistant' || role === 'tool');
  const fresh = messages.slice(last + 1).filter(({ role }) => role === 'user');
  for (const message of fresh) {
    const parts = partsOf(message, session);
    const foreign = parts.find(({ attachment }) => attachment === null);
    if (foreign) throw uploadFirst(foreign.type);
    if (!parts.length && !textOf(message))
      throw new AntiphonError('bad_command', 'a message to be sent must have text, or attachments');
  }
  return fresh;
}

/**
 * Throws if a message of the user is in the log with another text, or without what it has attached. An application may
 * know less of it: its bytes instead of its name, or the text alone.
 */
export function checkHistory(messages: readonly Shown[], shown: readonly Shown[], session: string): void {
  const logged = new Map(shown.filter(({ role }) => role === 'user').map((each) => [each.id, each]));
  for (const message of messages) {
    const known = message.role === 'user' ? logged.get(message.id) : undefined;
    if (!known) continue;
    if (textOf(message) !== textOf(known)) throw historyChanged(message, 'another text');
    const there = attached(known, session);
    if (attached(message, session).some((id) => !there.includes(id)))
      throw historyChanged(message, 'other attachments');
  }
}

function historyChanged({ id }: Shown, what: string): AntiphonError {
  const text = `is in the log with ${what}; what is in a log stays: fork the session before it, and go on there`;
  return new AntiphonError('history_changed', `the message '${id}' ${text}`);
}

/** What a tool message says, as `sendResult` takes it: JSON as the value that it is, other text as it is. */
export function resultOf(message: Shown): { readonly result: unknown } | { readonly error: string } {
  const error = asString(message['error']);
  if (error) return { error };
  const content = asString(message['content']);
  if (content === null) return { result: message['content'] ?? null };
  try {
    return { result: JSON.parse(content) };
  } catch {
    return { result: content };
  }
}
