// @ts-check
/**
 * Rules 3 to 7: what waits to be served, in which order, and what is refused.
 *
 * @typedef {import('../fold.js').Fold} Fold
 * @typedef {import('../fold.js').Entry} Entry
 * @typedef {import('../fold.js').Event} Event
 * @typedef {import('../fold.js').Input} Input
 * @typedef {import('../fold.js').Actor} Actor
 */
import { cancelApprovals } from './approvals.js';
import { MODES, isAllowed, limitsOf } from './config.js';
import { setCancel } from './runs.js';

const MAX_INPUTS = 50_000; // of a session
const URGENT = ['interrupt', 'rollback']; // these go in front

export const participants = {
  'input.sent': sent,
  'input.cancel.requested': (/** @type {Fold} */ fold, /** @type {Event} */ { inputId }, /** @type {Entry} */ { by }) =>
    takeBack(fold, inputId, by ?? null),
  'handoff.returned': returned,
};

export const owners = {
  'input.applied': applied,
  'input.failed': (/** @type {Fold} */ fold, /** @type {Event} */ { inputId }) => void unqueue(fold, inputId),
  'run.requested': requested,
};

/** @param {Fold} fold @param {string} lane @returns {Actor | null} who has taken it over */
export function humanIn(fold, lane) {
  const owner = fold.lanes.get(lane)?.owner;
  return owner?.kind === 'user' ? owner : null;
}

/** @param {Fold} fold @param {string} inputId @returns {Input | undefined} */
export function unqueue(fold, inputId) {
  const at = fold.inputs.findIndex((input) => input.inputId === inputId);
  return at < 0 ? undefined : fold.inputs.splice(at, 1)[0];
}

/** The input is served no more; if its run starts all the same, it starts cancelled.
 * @param {Fold} fold @param {string} inputId @param {Actor | null} by */
export function takeBack(fold, inputId, by) {
  if (unqueue(fold, inputId)) fold.takenBack.set(inputId, { mode: 'immediate', by, reason: 'requested' });
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function sent(fold, event, entry) {
  const { inputId } = event;
  if (fold.seenInputs.has(inputId)) return;
  const mode = MODES.includes(event.mode) ? event.mode : fold.config.onBusy;
  const isTaken = !isRefused(fold, mode, entry.by);
  fold.seenInputs.set(inputId, isTaken);
  if (!isTaken) return;
  if (fold.config.approvalOnInput === 'cancel') cancelApprovals(fold, 'main');
  const by = entry.by ?? null;
  const input = { inputId, by, content: event.content, lane: 'main' };
  const human = humanIn(fold, 'main');
  if (human) fold.transcript.spoken(input, human, entry);
  else enter(fold, { ...input, seq: entry.seq, ts: entry.ts, mode: granted(fold, mode), parent: null }, mode);
}

/** Rule 4. @param {Fold} fold @param {string} mode @param {Actor | undefined} by */
function isRefused(fold, mode, by) {
  if (fold.seenInputs.size >= MAX_INPUTS || fold.isClosed) return true;
  if (humanIn(fold, 'main')) return false;
  const limits = limitsOf(fold.config, by);
  const replaced = new Set(replacedBy(fold, granted(fold, mode), by));
  const waiting = fold.inputs.filter((input) => input.lane === 'main' && !replaced.has(input));
  const own = waiting.filter((input) => isSame(input.by, by)).length;
  const lane = fold.lanes.get('main');
  return !isAllowed(limits, ({ modes }) => modes === null || modes.includes(mode))
    || waiting.length >= fold.config.maxQueue
    || !isAllowed(limits, ({ maxQueue }) => maxQueue === null || own < maxQueue)
    || (mode === 'reject' && (Boolean(lane?.run) || waiting.length > 0))
    || (mode === 'inject' && Boolean(lane?.run) && !lane?.can.includes('inject'));
}

/** The mode that an input gets, of the one it asks for. @param {Fold} fold @param {string} mode */
function granted(fold, mode) {
  if (URGENT.includes(mode)) return mode;
  const run = fold.runIn('main');
  const isSteering = (mode === 'auto' || mode === 'inject') && run && !run.cancel;
  return isSteering && fold.lanes.get('main')?.can.includes('inject') ? 'inject' : 'enqueue';
}

/** Rule 6: what the sender said before and nobody has served. @param {Fold} fold
 * @param {string} mode that the new one gets @param {Actor | null | undefined} by @returns {Input[]} */
function replacedBy(fold, mode, by) {
  if (fold.config.coalesce !== 'latest' || URGENT.includes(mode)) return [];
  return fold.inputs.filter((input) => input.lane === 'main' && input.mode === 'enqueue' && isSame(input.by, by));
}

/** @param {Fold} fold @param {Input} input @param {string} asked */
function enter(fold, input, asked) {
  for (const old of replacedBy(fold, input.mode, input.by)) takeBack(fold, old.inputId, input.by);
  if (!URGENT.includes(input.mode)) return void fold.inputs.push(input);
  const behind = fold.inputs.findLastIndex(({ lane, mode }) => lane === 'main' && URGENT.includes(mode));
  fold.inputs.splice(behind + 1, 0, input);
  const run = fold.runIn('main');
  if (run) setCancel(fold, run, { mode: 'immediate', by: input.by, reason: asked });
}

/** @param {Actor | null | undefined} one @param {Actor | null | undefined} other */
function isSame(one, other) {
  return Boolean(one && other) && one?.kind === other?.kind && one?.id === other?.id;
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function applied(fold, event, entry) {
  const input = unqueue(fold, event.inputId);
  if (input) fold.transcript.applied(input, event, entry);
}

/** Rule 3. @param {Fold} fold @param {Event} event @param {Entry} entry */
function returned(fold, { lane: name = 'main', inputId, note }, { seq, ts, by }) {
  const lane = fold.lanes.get(name);
  if (!lane || lane.owner?.kind !== 'user' || lane.owner.id !== by?.id) return;
  lane.owner = null;
  if (!note || fold.seenInputs.has(inputId)) return;
  fold.seenInputs.set(inputId, true);
  fold.inputs.push({ inputId, seq, ts, by: by ?? null, content: note, mode: 'enqueue', lane: name, parent: null });
}

/** One agent asks another. @param {Fold} fold @param {Event} event @param {Entry} entry */
function requested(fold, { inputId, parentRunId, childLane, agent = null, content, detached = false }, entry) {
  const { lane, seq, ts, by = null } = entry;
  const parent = fold.runs.find((run) => run.runId === parentRunId && run.lane === lane);
  if (!parent || childLane === lane || fold.seenInputs.has(inputId)) return;
  const waiting = fold.inputs.filter((input) => input.lane === childLane).length;
  const isTaken = waiting < fold.config.maxQueue && !humanIn(fold, childLane) && (parent.cancel === null || detached);
  fold.seenInputs.set(inputId, isTaken);
  if (!isTaken) return;
  fold.inputs.push({ inputId, seq, ts, by, content, mode: 'enqueue', lane: childLane, parent: parentRunId, agent, detached });
}
