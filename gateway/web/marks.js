// @ts-check
/**
 * What a reader must know beside a message's text: how it ended, who went on, who executes a call.
 *
 * @typedef {import('./fold.js').Fold} Fold
 * @typedef {import('./fold.js').Message} Message
 * @typedef {import('./fold.js').Call} Call
 */
import { nameOf } from './dom.js';

const FAILED = 'the run failed';
const CALL_FAILED = 'it failed';
const MAX_PROGRESS = 200; // characters that are shown

/** @type {Record<string, string>} */
const CALL_CODES = { no_executor: 'nobody executed it', deadline: 'not finished in time',
  outcome_unknown: 'who executed it is gone', not_run: 'its run was stopped', rejected: 'it was not approved' };

/** @param {Fold} fold @param {Message} message @returns {string[]} */
export function marksOf(fold, message) {
  const note = message.run === null ? undefined : fold.runNotes.get(message.run);
  const marks = message.role === 'tool_call' ? callMarks(fold, message.id) : [];
  if (message.reason === 'cancelled') marks.push('stopped');
  if (message.reason === 'handed_over') marks.push('a human took over');
  if (message.reason === 'error') marks.push('cut short by an error');
  if (message.reason === 'worker_lost') {
    const next = { continue: ' – continued by another', restart: ' – started again by another' };
    marks.push(`worker lost${next[/** @type {'continue'} */ (note?.takenOver)] ?? ''}`);
  }
  if (message.rolledBack) marks.push('taken out of the conversation');
  if (note?.error && note.errorAt === message.id) {
    marks.push(`${FAILED} (${note.error.code})${note.error.message && `: ${note.error.message}`}`);
  }
  return marks;
}

/** @param {string} mark */
export function isBad(mark) {
  return mark.startsWith(FAILED) || mark.startsWith(CALL_FAILED);
}

/** @param {Fold} fold @param {string} toolCallId @returns {string[]} */
function callMarks(fold, toolCallId) {
  const call = fold.openCall(toolCallId);
  if (call) return [callLine(call)];
  const note = fold.callNotes.get(toolCallId);
  if (!note) return [];
  if (note.status === 'done') return note.by ? [`executed by ${nameOf(note.by)}`] : [];
  return [`${CALL_FAILED}: ${CALL_CODES[note.status] ?? note.status}`];
}

/** Who executes an open call. @param {Call} call @returns {string} */
export function callLine({ executor, claim, participant, progress }) {
  if (executor !== 'client') return 'the agent executes it';
  if (!claim) return `waits for ${participant ?? 'somebody'} to execute it`;
  const soFar = progress === null ? '' : ` (${(typeof progress === 'string' ? progress : JSON.stringify(progress)).slice(0, MAX_PROGRESS)})`;
  return `${nameOf(claim.by)} executes it${soFar}`;
}

/** Whose message it is; of a lane of another agent's, that agent's own name.
 * @param {Fold} fold @param {Message} message @returns {string} */
export function nameIn(fold, { by, lane, run, role }) {
  if (lane === null || lane === 'main' || by?.name || by?.kind === 'user') return nameOf(by);
  const agent = role === 'user' ? null : fold.runs.find((running) => running.runId === run)?.agent;
  return agent ?? by?.id ?? nameOf(by);
}
