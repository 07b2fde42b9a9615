// @ts-check
/**
 * Rules 2 and 8 to 10: who writes in a lane, and the run in it from its start to its end.
 *
 * @typedef {import('../fold.js').Fold} Fold
 * @typedef {import('../fold.js').Entry} Entry
 * @typedef {import('../fold.js').Event} Event
 * @typedef {import('../fold.js').Actor} Actor
 * @typedef {import('../fold.js').Cancel} Cancel
 * @typedef {import('../fold.js').Run} Run
 */
import { isAllowed, limitsOf } from './config.js';
import { takeBack, unqueue } from './inputs.js';

export const participants = { 'run.cancel.requested': cancelRequested };

export const owners = {
  'session.owner': owned,
  RUN_STARTED: started,
  RUN_FINISHED: ended,
  RUN_ERROR: ended,
  'run.taken_over': takenOver,
  'run.dropped': dropped,
  'session.state': paused,
};

/** Rule 2. @param {Fold} fold @param {Event} event @param {Entry} entry */
function owned(fold, { kind, id, can, lane: name }, entry) {
  const { run = null, paused: held = null } = fold.lanes.get(name) ?? {};
  const owner = kind === 'none' ? null : { kind, id };
  fold.lanes.set(name, { owner, fence: entry.seq, run, can: can ?? [], paused: held, lastWrite: 0 });
  if (!owner || kind !== 'user') return;
  for (const handoff of fold.handoffs.values()) if (handoff.lane === name) handoff.isWaiting = false;
  for (const input of fold.inputs.filter((waiting) => waiting.lane === name)) {
    unqueue(fold, input.inputId);
    fold.transcript.spoken(input, owner, entry);
  }
}

/** Rule 8: a cancel that is set stays, unless the new one is more urgent.
 * @param {Fold} fold @param {Run} run @param {Cancel} cancel */
export function setCancel(fold, run, cancel) {
  const isUrgent = run.cancel?.mode === 'after_step' && cancel.mode === 'immediate';
  if (run.cancel && !isUrgent) return;
  run.cancel = cancel;
  if (cancel.mode === 'immediate') cancelChildren(fold, run.runId, cancel.by);
}

/** What the run has asked of other agents, unless it was asked to go on by itself.
 * @param {Fold} fold @param {string} runId @param {Actor | null} by */
function cancelChildren(fold, runId, by) {
  for (const input of fold.inputs.filter(({ parent, detached }) => parent === runId && !detached)) {
    takeBack(fold, input.inputId, by);
  }
  for (const run of fold.runs) {
    if (run.parent === runId && !run.detached) setCancel(fold, run, { mode: 'immediate', by, reason: 'parent' });
  }
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function cancelRequested(fold, event, { by }) {
  const { runId } = event;
  const mode = event.mode === 'after_step' ? 'after_step' : 'immediate';
  if (by && !isAllowed(limitsOf(fold.config, by), ({ cancel }) => cancel)) return;
  const run = fold.runs.find((candidate) => candidate.runId === runId);
  if (run) setCancel(fold, run, { mode, by: by ?? null, reason: 'requested' });
  else takeBack(fold, inputOf(runId), by ?? null);
}

/** The run does not wait any more for what it asked for. @param {Fold} fold @param {Event} event
 * @param {Entry} entry */
function dropped(fold, { inputId }, { lane = '' }) {
  const parent = fold.lanes.get(lane)?.run ?? null;
  if (parent === null) return;
  const input = fold.inputs.find((waiting) => waiting.inputId === inputId);
  const run = fold.runs.find((running) => running.inputId === inputId);
  if (input?.parent === parent) takeBack(fold, inputId, null);
  else if (run?.parent === parent) setCancel(fold, run, { mode: 'immediate', by: null, reason: 'parent' });
}

/** Rule 9. @param {Fold} fold @param {Event} event @param {Entry} entry */
function started(fold, { runId }, { lane: name = '' }) {
  const lane = fold.lanes.get(name);
  if (!lane || lane.run !== null || fold.runs.some((run) => run.runId === runId)) return;
  const inputId = inputOf(runId);
  const { parent = null, agent = null, detached = false } =
    fold.inputs.find((input) => input.inputId === inputId) ?? {};
  const cancel = fold.takenBack.get(inputId) ?? null;
  lane.run = runId;
  fold.runs.push({ runId, lane: name, inputId, attempt: 1, cancel, parent, agent, detached });
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function takenOver(fold, { runId, attempt, policy }, { lane = '' }) {
  const run = fold.runIn(lane);
  if (!run || run.runId !== runId) return;
  run.attempt = attempt;
  noteOf(fold, runId).takenOver = policy ?? null;
}

/** Rule 10. @param {Fold} fold @param {Event} event @param {Entry} entry */
function ended(fold, event, { lane: name = '' }) {
  const run = fold.runIn(name);
  if (!run || (event.type === 'RUN_FINISHED' && event.runId !== run.runId)) return;
  const { runId, cancel } = run;
  Object.assign(fold.lanes.get(name) ?? {}, { run: null, paused: null });
  fold.runs = fold.runs.filter((other) => other !== run);
  for (const table of [fold.calls, fold.approvals, fold.handoffs]) dropOf(table, runId);
  fold.transcript.endAll(name);
  if (cancel?.reason === 'rollback') fold.transcript.rollBack(runId);
  cancelChildren(fold, runId, cancel?.by ?? null);
  const note = noteOf(fold, runId);
  if (event.type === 'RUN_FINISHED') return;
  note.error = { code: String(event.code ?? 'error'), message: String(event.message ?? '') };
  note.errorAt = fold.transcript.lastOf(runId)?.id ?? null;
}

/** @param {Map<string, {runId: string}>} table @param {string} runId */
function dropOf(table, runId) {
  for (const [id, item] of table) if (item.runId === runId) table.delete(id);
}

/** @param {Fold} fold @param {Event} event @param {Entry} entry */
function paused(fold, { state, reason = '' }, { lane: name = '' }) {
  const lane = fold.lanes.get(name);
  if (!lane?.run) return;
  if (state === 'paused') lane.paused = reason;
  else if (state === 'running') lane.paused = null;
}

/** The note of a run that has just changed: its messages look different now.
 * @param {Fold} fold @param {string} runId @returns {import('../fold.js').RunNote} */
function noteOf(fold, runId) {
  fold.transcript.touch(runId);
  const note = fold.runNotes.get(runId) ?? { takenOver: null, error: null, errorAt: null };
  fold.runNotes.set(runId, note);
  return note;
}

/** @param {string} runId @returns {string} the id of the input that starts this run */
function inputOf(runId) {
  return runId.startsWith('run_') ? runId.slice(4) : runId;
}
