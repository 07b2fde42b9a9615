/** Rules 8 to 10: runs. */
import { asCount, asObject, asString } from '../../json.js';
import type { Entry } from '../../model.js';
import type { Outcome } from '../changes.js';
import { allowsCancel } from '../config.js';
import type { Ledger } from '../ledger.js';
import { IMMEDIATE, stop, stopChildren, withdraw } from './cancelling.js';
import { inputOf, RUN_PREFIX, type Rule } from './names.js';

/** Rule 8. */
const cancelRequested: Rule = (ledger, { by }, event) => {
  const runId = asString(event['runId']);
  if (runId === null || (by && !allowsCancel(ledger.config, by))) return;
  const run = ledger.runs.get(runId);
  if (!run) return withdraw(ledger, inputOf(runId), by, 'cancelled');
  stop(ledger, run, event['mode'] === 'after_step' ? 'after_step' : IMMEDIATE, by, 'requested');
};

/** Rule 9. */
const started: Rule = (ledger, { lane }, event) => {
  const runId = asString(event['runId']);
  if (runId === null || lane === null || ledger.lanes.get(lane)?.run !== null || ledger.runs.has(runId)) return;
  const inputId = inputOf(runId) ?? runId;
  const source = ledger.queue.get(inputId);
  const takenBack = ledger.takenBack(inputId);
  const cancel = takenBack && { mode: IMMEDIATE, by: takenBack.by, reason: 'requested' };
  const agent = source ? (ledger.agents.get(inputId) ?? null) : null;
  ledger.addRun({ runId, lane, inputId, attempt: 1, cancel, parent: source?.parent ?? null, agent });
  if (source && ledger.detached.has(inputId)) ledger.detached.add(runId);
};

/** Rule 8: the run does not wait for what it asked for any more. */
const dropped: Rule = (ledger, { lane }, event) => {
  const parent = ledger.runIn(lane);
  const inputId = asString(event['inputId']);
  if (!parent || inputId === null) return;
  const child = ledger.runs.get(RUN_PREFIX + inputId);
  if (ledger.queue.get(inputId)?.parent === parent.runId) withdraw(ledger, inputId, null, 'parent_cancelled');
  else if (child?.parent === parent.runId) stop(ledger, child, IMMEDIATE, null, 'parent');
};

/** Rule 10. */
const takenOver: Rule = (ledger, { lane }, event) => {
  const run = ledger.runIn(lane);
  const attempt = asCount(event['attempt']);
  if (run && attempt !== null && event['runId'] === run.runId) ledger.runs.set(run.runId, { ...run, attempt });
};

/** Rule 10: the lane's run is held, or goes on. */
const held: Rule = (ledger, entry, event) => {
  const state = event['state'];
  const lane = ledger.lanes.get(entry.lane ?? '');
  if (!lane || !ledger.runIn(entry.lane) || (state !== 'paused' && state !== 'running')) return;
  const paused = state === 'paused' ? (asString(event['reason']) ?? '') : null;
  ledger.lanes.set(entry.lane ?? '', { ...lane, paused });
};

/** Rule 10. */
const finished: Rule = (ledger, entry, event) => {
  const outcome = asObject(event['outcome']);
  const kind = asString(outcome?.['type']) || 'success';
  end(ledger, entry, asString(event['runId']), { kind, reason: asString(outcome?.['reason']) });
};

/** Rule 10. */
const failed: Rule = (ledger, entry, event) => {
  const runId = ledger.runIn(entry.lane)?.runId ?? entry.run;
  const code = asString(event['code']) || 'agent_error';
  end(ledger, entry, runId, { kind: 'error', code, message: asString(event['message']) });
};

function end(ledger: Ledger, entry: Entry, runId: string | null, outcome: Outcome): void {
  const run = ledger.runIn(entry.lane);
  if (!run) {
    // a reader who began in the middle has not seen the start
    if (ledger.partial && runId !== null) ledger.changes.push({ kind: 'ended', runId, outcome, rolledBack: false });
    return;
  }
  if (run.runId !== runId) return;
  ledger.runs.delete(runId);
  ledger.past.delete(runId);
  const lane = ledger.lanes.get(run.lane);
  if (lane) ledger.lanes.set(run.lane, { ...lane, run: null, paused: null });
  for (const things of [ledger.calls, ledger.approvals, ledger.handoffs]) {
    for (const [id, thing] of [...things]) if (thing.runId === runId) things.delete(id);
  }
  ledger.changes.push({ kind: 'ended', runId, outcome, rolledBack: run.cancel?.reason === 'rollback' });
  stopChildren(ledger, runId, run.cancel?.by ?? null);
  for (const id of [runId, run.inputId ?? '']) {
    ledger.detached.delete(id);
    ledger.agents.delete(id);
  }
}

export const OF_ANYBODY: { readonly [type: string]: Rule } = { 'run.cancel.requested': cancelRequested };

export const OF_OWNERS: { readonly [type: string]: Rule } = {
  RUN_STARTED: started,
  RUN_FINISHED: finished,
  RUN_ERROR: failed,
  'run.dropped': dropped,
  'run.taken_over': takenOver,
  'session.state': held,
};
