/** Approvals as an answer shows them: who may still decide, and what was decided (PROTOCOL, rule 15). */
import { asCount, asInt, asString, asStrings } from '../json.js';
import type { Entry, LogEvent } from '../model.js';

const AT_ONCE: readonly string[] = ['reject_once', 'reject_always', 'decline'];

/** A pending approval, made of its `approval.requested`. */
export class Ballot {
  /** The options chosen so far, by user. */
  readonly #votes = new Map<string, string>();

  constructor(readonly event: LogEvent) {}

  /** Takes an `approval.responded` of this approval; the option that is decided for, null while more are needed. */
  vote(entry: Entry, option: string | null): string | null {
    if (option === null || !asStrings(this.event['options']).includes(option) || !this.#may(entry)) return null;
    this.#votes.set(entry.by?.id ?? '', option);
    if (AT_ONCE.includes(option)) return option;
    if (this.#votes.size < (asCount(this.event['quorum']) || 1)) return null;
    return [...this.#votes.values()].find((vote) => !vote.endsWith('_always')) ?? option;
  }

  #may({ by, ts }: Entry): boolean {
    const expiresAt = asInt(this.event['expiresAt']);
    const roles = asStrings(this.event['roles']);
    const has = asStrings(by?.roles);
    const isInTime = expiresAt === null || ts <= expiresAt;
    const hasRole = !roles.length || roles.some((role) => has.includes(role));
    return isInTime && hasRole && asString(by?.id) !== null && !this.#votes.has(by?.id ?? '');
  }
}

const SHOWN = ['message', 'options', 'toolCallId', 'details', 'responseSchema', 'expiresAt'];

/** What a page is shown of an approval or a question. */
export function inputOf(event: LogEvent): Record<string, unknown> {
  const shown = SHOWN.filter((name) => event[name] !== undefined && event[name] !== null);
  return Object.fromEntries(shown.map((name) => [name, event[name]]));
}
