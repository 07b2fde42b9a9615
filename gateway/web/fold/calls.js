// @ts-check
/**
 * Rules 11 to 13: calls that the run waits for, and who executes them. A call stays known until
 * its run ends, so that its id is not taken twice.
 *
 * @typedef {import('../fold.js').Fold} Fold
 * @typedef {import('../fold.js').Entry} Entry
 * @typedef {import('../fold.js').Event} Event
 * @typedef {import('../fold.js').Call} Call
 * @typedef {import('../fold.js').Actor} Actor
 */

const MAX_OPEN = 64;
const MAX_KNOWN = 1_000; // of runs that are running

export const participants = {
  'tool.claimed': claimed,
  'tool.progress': progress,
  'tool.released': released,
  'tool.resolved': resolved,
};

export const owners = {
  'tool.requested': requested,
  'tool.lapsed': lapsed,
  'tool.failed': failed,
  TOOL_CALL_RESULT: (/** @type {Fold} */ fold, /** @type {Event} */ { toolCallId }, /** @type {Entry} */ { lane }) =>
    close(fold, openIn(fold, toolCallId, lane), { status: 'done' }),
};

/** @param {Call} call @param {string | undefined} userId @param {string | null | undefined} device
 * @param {number} ts @returns {boolean} whether somebody may claim it then */
export function isTarget({ participant, device: wanted, anyAfter }, userId, device, ts) {
  if ((anyAfter !== null && ts >= anyAfter) || (participant === null && wanted === null)) return true;
  return (participant === null || participant === userId) && (wanted === null || wanted === device);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function requested(fold, event, { lane = '' }) {
  const { toolCallId, name, args = null, executor, idempotent = false } = event;
  const { participant = null, device = null, anyAfter = null, deadline = null } = event;
  const run = fold.runIn(lane);
  if (!run || fold.calls.has(toolCallId) || fold.calls.size >= MAX_KNOWN || fold.openCalls.length >= MAX_OPEN) return;
  fold.calls.set(toolCallId, { toolCallId, lane, runId: run.runId, name, args, executor, idempotent, participant,
    device, anyAfter, deadline, claim: null, isOpen: true, progress: null });
  fold.transcript.changed.add(toolCallId);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function claimed(fold, { toolCallId, claimId, expiresAt, device = null }, { ts, by }) {
  const call = fold.openCall(toolCallId);
  if (!call || !by || call.executor !== 'client' || !isInTime(call, ts)) return;
  const { claim } = call;
  const isFree = claim === null || (claim.expiresAt < ts && call.idempotent);
  const isOwn = isClaimOf(call, claimId, by);
  if (!isOwn && !(isFree && isTarget(call, by.id, device, ts))) return;
  call.claim = { claimId, by, device, expiresAt };
  fold.transcript.changed.add(toolCallId);
}

/** Shown, and no part of the state. @param {Fold} fold @param {Event} event @param {Entry} entry */
function progress(fold, { toolCallId, claimId, value }, { by }) {
  const call = fold.openCall(toolCallId);
  if (!call || !isClaimOf(call, claimId, by)) return;
  call.progress = value;
  fold.transcript.changed.add(toolCallId);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function released(fold, { toolCallId, claimId }, { ts, by }) {
  const call = fold.openCall(toolCallId);
  if (!call || !isClaimOf(call, claimId, by) || !isInTime(call, ts)) return;
  call.claim = null;
  fold.transcript.changed.add(toolCallId);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function resolved(fold, { toolCallId, claimId, error }, { ts, by }) {
  const call = fold.openCall(toolCallId);
  if (!call || !isClaimOf(call, claimId, by) || !isInTime(call, ts)) return;
  close(fold, call, { status: error === undefined ? 'done' : 'error', by: by ?? null });
}

/** A claim that was renewed a moment before goes on. @param {Fold} fold @param {Event} event @param {Entry} entry */
function lapsed(fold, { toolCallId, claimId }, { ts }) {
  const call = fold.openCall(toolCallId);
  if (!call?.idempotent || call.claim?.claimId !== claimId || ts <= call.claim.expiresAt) return;
  call.claim = null;
  fold.transcript.changed.add(toolCallId);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function failed(fold, { toolCallId, code }, { lane }) {
  close(fold, openIn(fold, toolCallId, lane), { status: String(code ?? 'error') });
}

/** @param {Fold} fold @param {Call | undefined} call @param {import('../fold.js').CallNote} note */
function close(fold, call, note) {
  if (!call) return;
  call.isOpen = false;
  fold.callNotes.set(call.toolCallId, note);
  fold.transcript.changed.add(call.toolCallId);
}

/** @param {Fold} fold @param {string} id @param {string | undefined} lane */
function openIn(fold, id, lane) {
  const call = fold.openCall(id);
  return call?.lane === lane ? call : undefined;
}

/** @param {Call} call @param {string} claimId @param {Actor | undefined} by */
function isClaimOf({ claim }, claimId, by) {
  return claim !== null && by !== undefined && claim.claimId === claimId && claim.by?.id === by.id;
}

/** @param {Call} call @param {number} ts */
function isInTime({ deadline }, ts) {
  return deadline === null || ts <= deadline;
}
