/**
 * What a reader wants to know of runs and calls, and what is no part of the state: how they ended, who executed a call,
 * how far it has come. It is what was seen here: of what was over before reading began, nothing is known.
 */
import type { Change, Outcome } from '../fold/changes.js';
import { asString } from '../json.js';
import type { Actor, Call, Entry, LogEvent, State } from '../model.js';

/** Notes of each kind that are kept; the oldest go first. */
const MAX_NOTES = 1000;

export interface RunNote {
  /** How a worker went on with it after another one was lost (`continue`, `restart`, …); null if none was. */
  readonly takenOver: string | null;
  /** Null while it runs. */
  readonly outcome: Outcome | null;
}

export interface CallNote {
  /** Null while it is open; then `done`, or the code of `tool.failed`. */
  readonly end: string | null;
  /** Who executed it; null for an agent. */
  readonly by: Actor | null;
  /** What its executor last said of how far it has come; undefined if nothing. */
  readonly progress?: unknown;
}

export interface SessionNotes {
  readonly runs: ReadonlyMap<string, RunNote>;
  readonly calls: ReadonlyMap<string, CallNote>;
  /** When the session was deleted, in ms since 1970, if that was the last that happened to it as a whole. */
  readonly deletedAt: number | null;
}

export const NO_NOTES: SessionNotes = { runs: new Map(), calls: new Map(), deletedAt: null };

const NEWS = /^(run\.taken_over|RUN_|tool\.|TOOL_CALL_RESULT|session\.(deleted|owner))/;

/** Whether a record may say something of runs and calls. */
export const concerns = ({ events }: Entry): boolean => events.some(({ type }) => NEWS.test(type));

/** The notes after an entry that made `before` into `after`; the same object if it changed none. */
export function noted(
  notes: SessionNotes,
  entry: Entry,
  changes: readonly Change[],
  before: State,
  after: State,
): SessionNotes {
  let next = notes;
  for (const change of changes) {
    if (change.kind === 'emptied') next = { ...NO_NOTES, deletedAt: entry.ts };
    else if (change.kind === 'ended') next = withRun(next, change.runId, { outcome: change.outcome });
  }
  for (const event of entry.events) {
    if (event.type === 'run.taken_over') next = takenOver(next, event, before, after);
    else if (event.type.startsWith('tool.') || event.type === 'TOOL_CALL_RESULT') {
      next = called(next, entry, event, before, after);
    }
  }
  return next;
}

function takenOver(notes: SessionNotes, event: LogEvent, before: State, after: State): SessionNotes {
  const runId = asString(event['runId']);
  const [was, is] = [before, after].map(({ runs }) => runs.find((run) => run.runId === runId));
  if (runId === null || !is || was?.attempt === is.attempt) return notes;
  return withRun(notes, runId, { takenOver: asString(event['policy']) ?? '' });
}

function called(notes: SessionNotes, entry: Entry, event: LogEvent, before: State, after: State): SessionNotes {
  const id = asString(event['toolCallId']);
  const [was, is] = [before, after].map(({ calls }) => calls.find((call) => call.toolCallId === id));
  // the first that ends it counts: a call that failed gets a result, too
  if (id === null || !was || notes.calls.get(id)?.end) return notes;
  if (!is) return withCall(notes, id, { end: endOf(event), by: was.claim?.by ?? null });
  if (event.type === 'tool.progress' && isOfClaim(was, entry, event))
    return withCall(notes, id, { progress: event['value'] });
  return notes;
}

function endOf(event: LogEvent): string {
  if (event.type === 'tool.failed') return asString(event['code']) ?? 'error';
  return event.type === 'tool.resolved' && event['error'] !== undefined ? 'error' : 'done';
}

const isOfClaim = ({ claim }: Call, { by }: Entry, event: LogEvent): boolean =>
  claim !== null && claim.claimId === event['claimId'] && claim.by?.id === by?.id;

const withRun = (notes: SessionNotes, id: string, note: Partial<RunNote>): SessionNotes => ({
  ...notes,
  runs: put(notes.runs, id, { takenOver: null, outcome: null, ...notes.runs.get(id), ...note }),
});

const withCall = (notes: SessionNotes, id: string, note: Partial<CallNote>): SessionNotes => ({
  ...notes,
  calls: put(notes.calls, id, { end: null, by: null, ...notes.calls.get(id), ...note }),
});

function put<T>(map: ReadonlyMap<string, T>, id: string, value: T): ReadonlyMap<string, T> {
  const next = new Map(map).set(id, value);
  const [oldest] = next.keys();
  if (next.size > MAX_NOTES && oldest !== undefined) next.delete(oldest);
  return next;
}
