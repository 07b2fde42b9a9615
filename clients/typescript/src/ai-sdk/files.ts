/** What is attached to a message, in the words of the AI SDK. */
import { attachmentPath } from '../attachment-paths.js';
import { asObjects, asString } from '../json.js';
import type { Chunk } from './chunks.js';

/** The parts of a message with these attachments. */
export const fileParts = (attachments: unknown, session: string) =>
  asObjects(attachments).map(({ id, name, mediaType }) => ({
    type: 'file',
    mediaType: asString(mediaType) ?? '',
    filename: asString(name) ?? '',
    url: attachmentPath(session, asString(id) ?? ''),
  }));

/** The chunks of a stream that bring them. No version takes a name there. */
export const fileChunks = (attachments: unknown, session: string): Chunk[] =>
  fileParts(attachments, session).map(({ mediaType, url }) => ({ type: 'file', mediaType, url }));
