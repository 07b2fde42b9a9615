// @ts-check
/**
 * Rules 14 to 16: what the run asks of people, decisions, answers, and the hand-over of its lane.
 *
 * @typedef {import('../fold.js').Fold} Fold
 * @typedef {import('../fold.js').Entry} Entry
 * @typedef {import('../fold.js').Event} Event
 * @typedef {import('../fold.js').Approval} Approval
 * @typedef {import('../fold.js').Actor} Actor
 */

const MAX_PENDING = 64;
const MAX_KNOWN = 1_000; // of runs that are running
const MAX_REMEMBERED = 256;
const DECISIVE = ['reject_once', 'reject_always', 'decline'];

export const participants = {
  'approval.responded': responded,
  'approval.revoked': (/** @type {Fold} */ fold, /** @type {Event} */ { key }) => void fold.remembered.delete(key),
};

export const owners = {
  'approval.requested': requested,
  'approval.resolved': resolved,
  'handoff.requested': handoffRequested,
  'handoff.expired': handoffExpired,
};

/** @param {Fold} fold @param {string} lane */
export function cancelApprovals(fold, lane) {
  for (const approval of fold.approvals.values()) if (approval.lane === lane) approval.isPending = false;
}

/** Rule 14. @param {Fold} fold @param {Event} event @param {Entry} entry */
function requested(fold, event, { lane = '' }) {
  const { approvalId, kind, message, options = [], default: fallback = null, expiresAt = null, toolCallId = null } = event;
  const { key = null, roles = [], quorum = 1, responseSchema = null, details = null } = event;
  const run = fold.runIn(lane);
  if (!run || fold.approvals.has(approvalId) || fold.approvals.size >= MAX_KNOWN) return;
  if (fold.pendingApprovals.length >= MAX_PENDING) return;
  fold.approvals.set(approvalId, { approvalId, kind, lane, runId: run.runId, message, options, default: fallback,
    expiresAt, toolCallId, key, roles, quorum: Math.max(1, quorum), responseSchema, details, votes: [], isPending: true });
}

/** Rule 15. @param {Fold} fold @param {Event} event @param {Entry} entry */
function responded(fold, { approvalId, option }, { ts, by }) {
  const approval = fold.approvals.get(approvalId);
  if (!approval?.isPending || !by || !mayVote(approval, by, ts) || !approval.options.includes(option)) return;
  approval.votes.push({ by, option });
  const decision = decisionOf(approval, option);
  if (decision === null) return;
  approval.isPending = false;
  if (approval.key === null || !decision.endsWith('_always')) return;
  fold.remembered.delete(approval.key); // it becomes the newest
  fold.remembered.set(approval.key, { option: decision, by });
  if (fold.remembered.size > MAX_REMEMBERED) fold.remembered.delete([...fold.remembered.keys()][0]);
}

/** @param {Approval} approval @param {Actor} by @param {number} ts */
function mayVote({ expiresAt, roles, votes }, by, ts) {
  return (expiresAt === null || ts <= expiresAt)
    && (roles.length === 0 || roles.some((role) => by.roles?.includes(role)))
    && !votes.some((vote) => vote.by?.id === by.id);
}

/** @param {Approval} approval @param {string} last @returns {string | null} null: not decided yet */
function decisionOf({ votes, quorum }, last) {
  if (DECISIVE.includes(last)) return last;
  if (votes.length < quorum) return null;
  return votes.find(({ option }) => !option.endsWith('_always'))?.option ?? last;
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function resolved(fold, { approvalId }, { lane }) {
  const approval = fold.approvals.get(approvalId);
  if (approval && approval.lane === lane) approval.isPending = false;
}

/** Rule 16. @param {Fold} fold @param {Event} event @param {Entry} entry */
function handoffRequested(fold, { handoffId, to, reason, summary, expiresAt = null }, { lane = '' }) {
  const run = fold.runIn(lane);
  if (!run || fold.handoffs.has(handoffId) || fold.waitingHandoffs.some((other) => other.lane === lane)) return;
  fold.handoffs.set(handoffId, { handoffId, lane, runId: run.runId, to, reason, summary, expiresAt, isWaiting: true });
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function handoffExpired(fold, { handoffId }, { lane }) {
  const handoff = fold.handoffs.get(handoffId);
  if (handoff && handoff.lane === lane) handoff.isWaiting = false;
}
