/** What a refusal means to who reads it, and what to do about it. */
import { AntiphonError } from '@antiphon/client';
import { nameOf } from './base/words.js';

const ADVICE: Readonly<Record<string, string>> = {
  unauthorized: 'This token is not valid here, or no longer. Ask for a new link.',
  token_expired: 'Your token has expired. Paste a new one to go on where you were.',
  not_allowed: 'Your token does not allow that in this session.',
  bad_name: 'A session name has 1 to 128 letters, digits, “_” or “-”.',
  queue_full: 'As many messages wait as may. Try again when one has run.',
  busy: 'The agent is at work, and this session takes no messages meanwhile.',
  cannot_inject: 'This agent takes no messages in the middle of its work. Send it after this.',
  mode_not_allowed: 'You may not send it that way in this session.',
  session_closed: 'This session is closed. It takes no messages.',
  content_too_large: 'This message is too long. Send it in parts.',
  frame_too_large: 'This message is too long. Send it in parts.',
  session_full: 'This session is full. Go on in a new one.',
  schedule_full: 'As much is scheduled here as may be. Take something back, or wait until something has been sent.',
  too_far_ahead: 'That is too far ahead.',
  input_already_applied: 'Too late to take it back: it has reached the agent.',
  role_required: 'Somebody with another role has to do that.',
  already_voted: 'You have decided on this already.',
  deadline_passed: 'Too late: its time is over.',
  not_owner: 'You do not have the conversation any more.',
  handoff_not_found: 'This hand-over is over.',
  approval_not_found: 'This is over.',
  superseded: 'A newer message of yours has taken its place.',
  command_queue_full: 'Too many messages wait to be sent already. Discard some, or try again later.',
  undeliverable: 'The connection died each time it was sent. Try again.',
  storage_full: 'There is no room for more. Delete a session, or ask whoever runs this.',
  too_many_sessions: 'There are as many sessions as there may be. Delete one, or ask whoever runs this.',
  too_many_connections: 'You have it open too often. Close a tab.',
  origin_not_allowed: 'This page may not use the server. Open the one that the server has itself.',
  rate_limited: 'That was too much at once. Try again in a moment.',
  unavailable: 'The server cannot reach its log just now. Try again.',
  attachment_not_found: 'A file that belongs to it is gone. Add it again.',
  unreachable: 'The server was not reached. Try again.',
  flood: 'This page has sent too much that was refused. Reload it.',
};

/** Where a code says something else of a file than of a message. */
const FILE_ADVICE: Readonly<Record<string, string>> = {
  content_too_large: 'This file is too large.',
  media_type_refused: 'Files of this type are not taken here, or it is not what its name says.',
  attachments_full: 'This session has as many files as it may. Go on in a new one.',
  not_allowed: 'Your token does not allow adding files to this session.',
  unreachable: 'The server was not reached. Take the file out, and choose it again.',
};

/** What a refused upload means. */
export const fileAdvice = (code: string, message: string): string =>
  FILE_ADVICE[code] ?? advice(code, message.replace(`${code}: `, ''));

/** What came about in another way: nothing to say. */
const MOOT = ['run_ended', 'run_not_found', 'input_not_found'];

/** What decisions are called on buttons and in sentences. */
export const OPTIONS: Readonly<Record<string, string>> = {
  allow_once: 'Allow',
  allow_always: 'Always allow',
  reject_once: 'Reject',
  reject_always: 'Always reject',
  answer: 'Answer',
  decline: 'Decline',
};

export const optionName = (option: string): string => OPTIONS[option] ?? option;

export function advice(code: string, message = ''): string {
  return ADVICE[code] ?? `The server refused: ${message || code}`;
}

/** Empty if there is nothing to say. Rethrows what is no error of the client. */
export function adviceOn(error: unknown): string {
  if (!(error instanceof AntiphonError)) throw error;
  const { code, data } = error;
  if (MOOT.includes(code)) return '';
  const message = error.message.replace(`${code}: `, '');
  const by = data['by'] as { name?: string; id?: string } | null | undefined;
  if (code === 'already_resolved' || code === 'already_claimed') {
    const decision = data['decision'];
    const what = typeof decision === 'string' ? `: ${optionName(decision)}` : '';
    return `${nameOf(by ?? null)} was first${what}.`;
  }
  if (typeof data['path'] === 'string') return `${message} (at ${data['path'] || 'the top'})`;
  return advice(code, message);
}
