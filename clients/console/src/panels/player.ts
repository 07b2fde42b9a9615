/**
 * The transcript as it was after any entry of a log, and the clock that plays it. Pure but for the fold it keeps:
 * forward it goes on from where it is, backward it begins again.
 */
import type { Entry, Fold, Message, State } from '@antiphon/client';

/** A pause between two entries that is longer is played as if it were so long. */
export const LONGEST_PAUSE_MS = 2000;

export interface Frame {
  readonly messages: readonly Message[];
  readonly state: State;
}

export class Player {
  readonly #begin: () => { fold: Fold; before: readonly Message[] };
  #fold: Fold;
  #before: readonly Message[];
  #entries: readonly Entry[] = [];
  /** How many entries are folded, counted from the first that the log ever gave. */
  #at: number;

  constructor(begin: () => { fold: Fold; before: readonly Message[] }, dropped: number) {
    this.#begin = begin;
    ({ fold: this.#fold, before: this.#before } = begin());
    this.#at = dropped;
  }

  /** The transcript after `position` entries, of which the first `dropped` are not in `entries` any more. */
  seek(entries: readonly Entry[], dropped: number, position: number): Frame {
    const isOther = entries !== this.#entries;
    if (position < this.#at || isOther || this.#at < dropped) {
      ({ fold: this.#fold, before: this.#before } = this.#begin());
      this.#at = dropped;
      this.#entries = entries;
    }
    for (; this.#at < position; this.#at += 1) {
      const entry = entries[this.#at - dropped];
      if (!entry) break;
      this.#fold.apply(entry);
    }
    const { messages, state } = this.#fold;
    return { messages: this.#before.length ? [...this.#before, ...messages] : messages, state };
  }
}

/** Where playing is after some time: at an index, and how far on the way to the next entry. */
export interface Playing {
  /** Entries that have been played. */
  readonly at: number;
  /** Since the last of them, at the speed of the log. */
  readonly sinceMs: number;
}

/** How long to wait between two entries. */
export function pauseBetween(before: Entry | undefined, after: Entry): number {
  return before ? Math.min(Math.max(0, after.ts - before.ts), LONGEST_PAUSE_MS) : 0;
}

/** Where playing is `passedMs` later, at that speed; stays at the end of `entries`. */
export function advance(entries: readonly Entry[], { at, sinceMs }: Playing, passedMs: number, speed: number): Playing {
  let next = at;
  let since = sinceMs + passedMs * speed;
  for (;;) {
    const entry = entries[next];
    if (!entry) return { at: next, sinceMs: 0 };
    const pause = pauseBetween(entries[next - 1], entry);
    if (since < pause) return { at: next, sinceMs: since };
    since -= pause;
    next += 1;
  }
}

/** What an entry says, in a few words. */
export function kindsOf({ events }: Entry): string {
  const kinds = [...new Set(events.map(({ type }) => type))];
  return kinds.length > 3 ? `${kinds.slice(0, 3).join(', ')} +${kinds.length - 3}` : kinds.join(', ');
}
