// @ts-check
/** What a refusal means to who reads it, and what to do about it. */
import { nameOf } from './dom.js';

/** @type {Record<string, string>} */
const ADVICE = {
  unauthorized: 'This token is not valid here, or no longer. Ask for a new link.',
  not_allowed: 'Your token does not allow that in this session.',
  bad_name: 'A session name has 1 to 128 letters, digits, “_” or “-”.',
  queue_full: 'As many messages wait as may. Try again when one has run.',
  busy: 'The agent is at work, and this session takes no messages meanwhile.',
  cannot_inject: 'This agent takes no messages in the middle of its work. Send it after this.',
  mode_not_allowed: 'You may not send it that way in this session.',
  session_closed: 'This session is closed. It takes no messages.',
  content_too_large: 'This message is too long. Send it in parts.',
  session_full: 'This session is full. Go on in a new one.',
  input_already_applied: 'Too late to take it back: it has reached the agent.',
  role_required: 'Somebody with another role has to do that.',
  already_voted: 'You have decided on this already.',
  deadline_passed: 'Too late: its time is over.',
  not_owner: 'You do not have the conversation any more.',
  handoff_not_found: 'This hand-over is over.',
  approval_not_found: 'This is over.',
  lost: 'The connection was lost on the way. Try again.',
  timeout: 'The server did not answer in time. Try again.',
  unavailable: 'The server cannot reach its log just now. Try again.',
};

/** Codes of what has come about in another way: nothing to say. */
const MOOT = ['run_ended', 'run_not_found', 'input_not_found'];
/** Codes of what somebody else was faster at: what was clicked is gone. */
export const OVERTAKEN = ['already_resolved', 'already_claimed', 'approval_not_found', 'handoff_not_found'];

/** @param {string} code @param {string} [message] of the server @returns {string} */
export function advice(code, message) {
  return ADVICE[code] ?? `The server refused: ${message ?? code}`;
}

/** @param {import('./connection.js').CommandError} error @returns {string} empty: nothing to say */
export function adviceOn({ code, message, frame }) {
  if (MOOT.includes(code)) return '';
  const who = frame.by ? nameOf(frame.by) : 'Somebody';
  if (code === 'already_resolved') return `${who} was first${frame.decision ? `: ${OPTIONS[frame.decision] ?? frame.decision}` : ''}.`;
  if (code === 'already_claimed') return `${who} was first.`;
  if (frame.path !== undefined && frame.path !== null) return `${message} (at ${frame.path || 'the top'})`;
  return advice(code, message);
}

/** @type {Record<string, string>} */
export const OPTIONS = { allow_once: 'Allow', allow_always: 'Always allow', reject_once: 'Reject',
  reject_always: 'Always reject', answer: 'Answer', decline: 'Decline' };
