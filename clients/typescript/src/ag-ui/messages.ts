/** The messages of a session as AG-UI has them, and what of them an application has already. */
import { asObjects, asString, type JsonObject } from '../json.js';
import type { Message } from '../model.js';
import { agentMetadata, attached, textOf, userContent } from './content.js';

/** A message of AG-UI, as it is read and made here. */
export interface Shown extends JsonObject {
  readonly id: string;
  readonly role: string;
}

/** Who is shown a session. `results` are an application's own tool messages, by the call that they answer. */
export interface Reader {
  readonly session: string;
  /** It speaks AG-UI 1.0. */
  readonly isModern: boolean;
  readonly results: ReadonlyMap<string, Shown>;
}

const PREFIX = 'msg_';
/** Roles of messages that an application keeps for itself: no log has them. */
const OWN: readonly string[] = ['system', 'developer'];
const STREAMED_ROLES: readonly string[] = ['assistant', 'user', 'system', 'developer'];

/** The subagent that a message is of: the run of an agent that another one asked; null: the main one. */
export const subagentOf = (lane: string | null, run: string | null): string | null =>
  lane === null || lane === 'main' ? null : run;

/** The id of a message in AG-UI: that of an input is the one that its sender gave it. */
export const shownId = ({ role, id }: Message): string =>
  role === 'user' && id.startsWith(PREFIX) ? id.slice(PREFIX.length) : id;

/** The role of a text; one that AG-UI does not know is the agent's. */
export const roleOf = ({ role }: Message): string => (STREAMED_ROLES.includes(role) ? role : 'assistant');

/** What one agent asks another: it stands in the description of the subagent, and is nobody's message. */
export const isQuestion = ({ role, lane, run }: Message): boolean => role === 'user' && subagentOf(lane, run) !== null;

/** The names of an application's own tool messages, by the call that they answer. */
export const resultsOf = (messages: readonly Shown[]): ReadonlyMap<string, Shown> =>
  new Map(
    messages.flatMap((each) => {
      const call = each.role === 'tool' ? asString(each['toolCallId']) : null;
      return call === null ? [] : [[call, each] as const];
    }),
  );

/** The messages in the order in which an application's reducer puts them: results stand behind their calls. */
export function conversation(messages: readonly Message[], reader: Reader): Shown[] {
  const groups: Shown[][] = [];
  const calls = new Map<string, Shown[]>();
  for (const message of messages) {
    if (message.rolledBack || isQuestion(message)) continue;
    const shown = show(message, reader);
    const group = message.role === 'tool' ? calls.get(message.toolCallId ?? '') : undefined;
    if (group) {
      group.push(shown);
      continue;
    }
    const own = [shown];
    groups.push(own);
    if (message.role === 'tool_call') calls.set(message.id, own);
  }
  return groups.flat();
}

function show(message: Message, { session, isModern, results }: Reader): Shown {
  const { id, role, text, lane, run, attachments = [] } = message;
  const tag = subagentOf(lane, run);
  const own = tag === null ? {} : { subagentRunId: tag };
  if (role === 'user') {
    return { id: shownId(message), role, content: userContent(text, attachments, session, isModern), ...own };
  }
  const of = { ...own, ...(attachments.length > 0 && isModern && { metadata: agentMetadata(attachments) }) };
  switch (role) {
    case 'tool_call': {
      const call = { id, type: 'function', function: { name: message.name ?? '', arguments: text } };
      return { id, role: 'assistant', toolCalls: [call], ...of };
    }
    case 'tool': {
      const toolCallId = message.toolCallId ?? '';
      return { id: results.get(toolCallId)?.id ?? id, role, toolCallId, content: text, ...of };
    }
    case 'reasoning':
      return { id, role, content: text, ...of };
    default:
      return { id, role: roleOf(message), content: text, ...of };
  }
}

/**
 * Whether who has these messages lacks something of what the log shows, or has it otherwise. Reasoning that it lacks is
 * left out: applications need not keep it.
 */
export function lacks(client: readonly Shown[], shown: readonly Shown[], session: string): boolean {
  const texts = new Map(client.map((each) => [each.id, textOf(each)]));
  const calls = new Map(
    client.flatMap((each) => asObjects(each['toolCalls']).map((call) => [call['id'], argumentsOf(call)] as const)),
  );
  const answered = resultsOf(client);
  const files = new Map(client.map((each) => [each.id, attached(each, session)]));
  return shown.some((each) => {
    if (attached(each, session).some((id) => !files.get(each.id)?.includes(id))) return true;
    if (each.role === 'reasoning' && !texts.has(each.id)) return false;
    if (each.role === 'tool') return !answered.has(String(each['toolCallId']));
    const [call] = asObjects(each['toolCalls']);
    return call ? calls.get(call['id']) !== argumentsOf(call) : texts.get(each.id) !== textOf(each);
  });
}

const argumentsOf = (call: JsonObject) => (call['function'] as JsonObject | undefined)?.['arguments'];

/** What a MESSAGES_SNAPSHOT must hold to lose nothing: the application's own, the log's, and what is about to be said. */
export const snapshot = (client: readonly Shown[], shown: readonly Shown[], fresh: readonly Shown[]): Shown[] => [
  ...client.filter(({ role }) => OWN.includes(role)),
  ...shown,
  ...fresh,
];

/** What an application has from before what it is shown. */
export function olderThan(client: readonly Shown[], shown: readonly Shown[]): Shown[] {
  const there = new Set(shown.map(({ id }) => id));
  const first = client.findIndex(({ id }) => there.has(id));
  return client.slice(0, Math.max(0, first)).filter(({ role }) => !OWN.includes(role));
}

/**
 * What an application must be left with before it is given `whole`, so that it has it in its order; null: all it has.
 * Reducers leave a message where it is, and put new ones behind: an application that has just added its own message, and
 * gets what others said before it, would have it in front of that.
 */
export function inPlace(client: readonly Shown[], whole: readonly Shown[]): readonly Shown[] | null {
  const ids = whole.map(({ id }) => id);
  const there = new Set(ids);
  const kept = client.filter(({ id }) => there.has(id));
  const same = kept.findIndex(({ id }, n) => id !== ids[n]);
  return same < 0 ? null : whole.slice(0, same);
}
