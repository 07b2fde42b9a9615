/** Files in the messages of AG-UI: what is attached to a message, as an application has it, and back. */
import { ATTACHMENT_ID, attachmentInPath, attachmentPath } from '../attachment-paths.js';
import { asObject, asObjects, asString, type JsonObject } from '../json.js';
import type { Attachment } from '../model.js';

const PROVIDER = 'antiphon';
const KINDS: readonly string[] = ['image', 'audio', 'video'];

type References = readonly Attachment[];

/**
 * The `content` of a user's message with these attachments: its text alone, or parts, each file one.
 *
 * In AG-UI 1.0 a file's source names it by its id, with the provider "antiphon"; 0.0.59 refuses such a source, and gets
 * the path where the gateway has it. Either way the bytes are asked for there. Name, size and digest are in the part's
 * metadata, which AG-UI leaves to applications.
 */
export function userContent(
  text: string,
  references: References,
  session: string,
  isModern: boolean,
): string | JsonObject[] {
  if (!references.length) return text;
  const parts = references.map((each) => partOf(each as unknown as JsonObject, session, isModern));
  return text ? [{ type: 'text', text }, ...parts] : parts;
}

function partOf(reference: JsonObject, session: string, isModern: boolean): JsonObject {
  const id = asString(reference['id']) ?? '';
  const mimeType = asString(reference['mediaType']) ?? '';
  const kind = mimeType.split('/', 1)[0] ?? '';
  const source = isModern
    ? { type: 'file', value: id, provider: PROVIDER }
    : { type: 'url', value: attachmentPath(session, id) };
  const told = ['name', 'size', 'sha256'].filter((field) => field in reference);
  return {
    type: KINDS.includes(kind) ? kind : 'document',
    source: { ...source, mimeType },
    metadata: Object.fromEntries(told.map((field) => [field, reference[field]])),
  };
}

/** What an agent's message has beside its content, which in AG-UI is text: the attachments as the log has them. */
export const agentMetadata = (attachments: References): JsonObject => ({ antiphon: { attachments } });

/** The text of a message, whatever else it has. */
export function textOf({ content }: JsonObject): string {
  if (!Array.isArray(content)) return asString(content) ?? '';
  const texts = asObjects(content).filter(({ type }) => type === 'text');
  return texts.map(({ text }) => asString(text) ?? '').join('\n');
}

/** The parts that are no text: the type of each, and the attachment of the session that it is, null if it is none. */
export const partsOf = ({ content }: JsonObject, session: string): { type: string; attachment: string | null }[] =>
  asObjects(content)
    .filter(({ type }) => type !== 'text')
    .map((part) => ({ type: String(part['type']), attachment: attachmentOf(part, session) }));

/** The ids of the session's attachments that a message shows. */
export function attached(message: JsonObject, session: string): string[] {
  const own = asObject(asObject(message['metadata'])?.['antiphon']);
  const parts = partsOf(message, session).flatMap(({ attachment }) => attachment ?? []);
  return [...parts, ...asObjects(own?.['attachments']).map(({ id }) => String(id))];
}

function attachmentOf(part: JsonObject, session: string): string | null {
  const source = asObject(part['source']);
  const value = asString(source?.['value']);
  if (!source || value === null) return null;
  if (source['type'] === 'url') return attachmentInPath(session, value);
  return source['type'] === 'file' && source['provider'] === PROVIDER && ATTACHMENT_ID.test(value) ? value : null;
}
