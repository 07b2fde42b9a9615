/** Rules 7, 8 and 10: taking inputs back, stopping runs, and what that stops in turn. */
import type { Actor, Run } from '../../model.js';
import type { Ledger } from '../ledger.js';

export const IMMEDIATE = 'immediate';

/** Takes back an input that waits, or is scheduled; otherwise nothing. */
export function withdraw(ledger: Ledger, inputId: string | null, by: Actor | null, code: string): void {
  if (inputId === null || !(ledger.queue.delete(inputId) || ledger.scheduled.delete(inputId))) return;
  ledger.end(inputId, { by });
  ledger.changes.push({ kind: 'dropped', inputId, code });
}

/** Sets the `cancel` of a run, and if that makes it immediate, stops what it has asked for. */
export function stop(ledger: Ledger, run: Run | undefined, mode: string, by: Actor | null, reason: string): void {
  if (!run || (run.cancel && !(mode === IMMEDIATE && run.cancel.mode !== IMMEDIATE))) return;
  ledger.runs.set(run.runId, { ...run, cancel: { mode, by, reason } });
  if (mode === IMMEDIATE) stopChildren(ledger, run.runId, by);
}

/** Inputs and runs that this run has asked for are not wanted any more, unless they are detached. */
export function stopChildren(ledger: Ledger, parent: string, by: Actor | null): void {
  for (const waiting of [...ledger.queue.values()]) {
    if (waiting.parent === parent && !ledger.detached.has(waiting.inputId)) {
      withdraw(ledger, waiting.inputId, by, 'parent_cancelled');
    }
  }
  for (const run of [...ledger.runs.values()]) {
    if (run.parent === parent && !ledger.detached.has(run.runId)) stop(ledger, run, IMMEDIATE, by, 'parent');
  }
}
