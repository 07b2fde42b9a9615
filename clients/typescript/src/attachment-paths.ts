/** Where gateways have attachments, and what is refused because it is none. */
import { AntiphonError } from './errors.js';

export const ATTACHMENT_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** The path of an attachment below a gateway's address. To ask for it takes a token. */
export const attachmentPath = (session: string, id: string): string => `/v1/sessions/${session}/attachments/${id}`;

/** The id of the session's attachment that a path is that of; null if it is that of none. */
export function attachmentInPath(session: string, path: string): string | null {
  const start = attachmentPath(session, '');
  const id = path.slice(start.length);
  return path.startsWith(start) && ATTACHMENT_ID.test(id) ? id : null;
}

/** The refusal of a part of a message that is neither text nor an attachment of the session. */
export const uploadFirst = (type: string): AntiphonError =>
  new AntiphonError(
    'not_supported',
    `a part of type '${type}' cannot be sent: upload the file first (Session.upload), and send it as that attachment`,
  );
