/** Which entries of a growing log are shown: each is looked at once, however often something comes. */
import type { Entry } from '@antiphon/client';
import { readOf } from './raw-entry.js';

export interface Wanted {
  /** Words that an entry must have, all of them. */
  readonly text: string;
  readonly hasDeltas: boolean;
}

export class Sieve {
  #wanted: Wanted = { text: '', hasDeltas: true };
  #entries: readonly Entry[] = [];
  #seen = 0;
  #shown: readonly Entry[] = [];

  /** Those of `entries`, of which the first `dropped` that ever came are not there any more. */
  sift(entries: readonly Entry[], dropped: number, wanted: Wanted): readonly Entry[] {
    const { text, hasDeltas } = this.#wanted;
    if (entries !== this.#entries || text !== wanted.text || hasDeltas !== wanted.hasDeltas) {
      this.#entries = entries;
      this.#wanted = wanted;
      this.#seen = dropped;
      this.#shown = [];
    }
    const fresh = entries.slice(this.#seen - dropped).filter(matching(wanted));
    this.#seen = dropped + entries.length;
    const first = entries[0]?.seq ?? 0;
    const isShorter = (this.#shown[0]?.seq ?? first) < first;
    if (fresh.length || isShorter) this.#shown = [...this.#shown.filter(({ seq }) => seq >= first), ...fresh];
    return this.#shown;
  }
}

function matching({ text, hasDeltas }: Wanted): (entry: Entry) => boolean {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (entry) => {
    if (!hasDeltas && entry.off !== null) return false;
    if (!words.length) return true;
    const all = JSON.stringify(readOf(entry)).toLowerCase();
    return words.every((word) => all.includes(word));
  };
}
