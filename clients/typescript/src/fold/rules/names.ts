/** Ids that are made of others (PROTOCOL, section 2, Names), who is the same, and what a rule is. */
import type { Actor, Entry, LogEvent } from '../../model.js';
import type { Ledger } from '../ledger.js';

/** Reads one event of an entry into the ledger. It never throws: what is malformed counts as nothing. */
export type Rule = (ledger: Ledger, entry: Entry, event: LogEvent) => void;

export const RUN_PREFIX = 'run_';

/** The input that starts a run. */
export const inputOf = (runId: string): string | null => (runId.startsWith(RUN_PREFIX) ? runId.slice(4) : null);

export const sameId = (one: Actor | null, other: Actor | null): boolean =>
  one !== null && other !== null && one.id === other.id;

export const sameSender = (one: Actor | null, other: Actor | null): boolean =>
  sameId(one, other) && one?.kind === other?.kind;
