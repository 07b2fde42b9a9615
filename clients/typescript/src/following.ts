/** What has been folded of a session, and what is made of it: receipts and views. */
import type { AntiphonError } from './errors.js';
import type { Change } from './fold/changes.js';
import { Fold } from './fold/fold.js';
import type { JsonObject } from './json.js';
import type { Entry, Message, State } from './model.js';
import type { Cursor, Presence } from './protocol.js';
import { ReceiptBook } from './receipts.js';
import type { Snapshot } from './subscription.js';

/** An input that was sent from here, and is not in the log yet as far as is known. */
export interface Sending {
  readonly inputId: string;
  readonly content: string;
  readonly mode: string | null;
}

/** A session at one moment. It never changes; the next one shares all that has stayed the same. */
export interface SessionView {
  readonly state: State;
  /** With those that `loadOlder` has brought. */
  readonly messages: readonly Message[];
  readonly sending: readonly Sending[];
  /** Who is there, as the gateway said last. */
  readonly presence: Presence | null;
  /** Everything is shown that the log held; what comes now is live. */
  readonly isCaughtUp: boolean;
  /** There are messages before those of `messages`. */
  readonly hasOlder: boolean;
  /** Why the session cannot be read; null while it can. */
  readonly error: AntiphonError | null;
}

export const EMPTY_VIEW: SessionView = {
  state: new Fold().state,
  messages: [],
  sending: [],
  presence: null,
  isCaughtUp: false,
  hasOlder: false,
  error: null,
};

export class Following {
  readonly book = new ReceiptBook();
  isCaughtUp = false;
  /** The newest entry that is folded; -1 before the first. */
  seq: number;
  /** The entry before which older messages are; null: there are none. */
  before: number | null;
  #fold: Fold;
  #older: readonly Message[] = [];
  #sending: readonly Sending[] = [];
  /** Of inputs whose reply has come: the entry with which they are in the log. */
  readonly #storedAt = new Map<string, number>();
  #view = EMPTY_VIEW;
  #parts: readonly [readonly Message[], readonly Message[]] = [[], []];

  constructor(
    cursor: Cursor | null,
    readonly messageLimit: number,
  ) {
    this.seq = cursor?.seq ?? -1;
    this.before = cursor && cursor.seq + 1;
    this.#fold = new Fold({ partial: cursor !== null, messageLimit });
  }

  get fold(): Fold {
    return this.#fold;
  }

  /** What was folded is void; a snapshot follows. */
  forget(): void {
    this.#begin(undefined, -1, null);
  }

  /** Folds from here on, unless the fold is further on already; answers whether it was not. */
  begin({ asOf, state, messagesBefore }: Snapshot): boolean {
    if (asOf <= this.seq) return false;
    this.#begin(state, asOf, messagesBefore ? asOf + 1 : null);
    this.book.restart(this.#fold, asOf);
    this.#stored();
    return true;
  }

  #begin(state: JsonObject | undefined, seq: number, before: number | null): void {
    this.#fold = new Fold({ state, messageLimit: this.messageLimit });
    this.seq = seq;
    this.before = before;
    this.#older = [];
    this.isCaughtUp = false;
  }

  /** Folds an entry; answers what it did, null if it was folded already. */
  take(entry: Entry): readonly Change[] | null {
    if (entry.seq <= this.seq) return null;
    this.seq = entry.seq;
    const changes = this.#fold.apply(entry);
    this.book.observe(changes);
    if (this.#sending.length && entry.off === null) this.#arrived(entry);
    return changes;
  }

  // ---- inputs on their way

  sends(sending: Sending): void {
    this.unsend(sending.inputId); // sent again, by hand
    this.#sending = [...this.#sending, sending];
  }

  /** The reply has come; until the entry `seq` is folded, too, the input is neither here nor there. */
  stored(inputId: string, seq: number | null): void {
    if (seq === null) return this.unsend(inputId);
    this.#storedAt.set(inputId, seq);
    this.#stored();
  }

  unsend(inputId: string): void {
    this.#storedAt.delete(inputId);
    this.#sending = this.#sending.filter((each) => each.inputId !== inputId);
  }

  #arrived(entry: Entry): void {
    for (const event of entry.events)
      if (/^input\.(sent|scheduled)$/.test(event.type)) this.unsend(String(event['inputId']));
    this.#stored();
  }

  #stored(): void {
    for (const [inputId, seq] of this.#storedAt) if (seq <= this.seq) this.unsend(inputId);
  }

  // ---- views

  /** A page of history goes before what is there, each message once. */
  prepend(page: readonly Message[], before: number | null): void {
    const known = new Set(this.#messages.map(({ id }) => id));
    this.#older = [...page.filter(({ id }) => !known.has(id)), ...this.#older];
    this.before = before;
  }

  get #messages(): readonly Message[] {
    const now = this.#fold.messages;
    if (!this.#older.length) return now;
    const [older, newer] = this.#parts;
    if (older === this.#older && newer === now) return this.#view.messages;
    this.#parts = [this.#older, now];
    return [...this.#older, ...now];
  }

  /** As it is now; the same object as far as nothing has changed. */
  view(presence: Presence | null, error: AntiphonError | null): SessionView {
    const { isCaughtUp } = this;
    const messages = this.#messages;
    const state = this.#fold.state;
    const next: SessionView = {
      state,
      messages,
      sending: this.#sending,
      presence,
      isCaughtUp,
      hasOlder: this.before !== null,
      error,
    };
    const last = this.#view;
    const isSame = (Object.keys(next) as (keyof SessionView)[]).every((field) => last[field] === next[field]);
    if (!isSame) this.#view = next;
    return this.#view;
  }
}
