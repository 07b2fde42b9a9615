/**
 * One session's subscription as a state machine, without any input or output.
 *
 * It says which command to send next (`command`), takes replies and frames, and returns what they mean.
 *
 *     off ── subscribe ──► subscribing ── ok ──► live
 *      ▲                                          │ chain broken, rewound, or no longer wanted
 *      └───────── ok ──── unsubscribing ◄─────────┘
 *
 * A session can be subscribed once on a connection, so reading a place again takes both commands.
 */
import { AntiphonError, refusal } from './errors.js';
import { asCount, asObject, asString, type JsonObject } from './json.js';
import type { Entry } from './model.js';
import { type Cursor, cursorText, type Presence, readEntry, readPresence } from './protocol.js';

/** The folded state just after entry `asOf`; entries follow. Older messages come by `history`. */
export interface Snapshot {
  readonly type: 'snapshot';
  readonly cursor: string;
  readonly asOf: number;
  readonly messagesBefore: number;
  readonly state: JsonObject;
}

/** What the log held at the time of the subscription has been given; live entries follow. */
export interface CaughtUp {
  readonly type: 'caught_up';
  readonly cursor: string;
  readonly seq: number;
}

/** Entries had been missed: forget what you folded. A snapshot, entries and `caught_up` follow. */
export interface Gap {
  readonly type: 'gap';
  readonly from: number;
  readonly to: number;
}

/** The cursor was refused (`reason` is the code): forget what you folded. A snapshot follows. */
export interface Reset {
  readonly type: 'reset';
  readonly reason: string;
}

export type SessionEvent = Entry | Snapshot | CaughtUp | Gap | Reset;

export type Output =
  | SessionEvent
  | { readonly type: 'presence'; readonly presence: Presence }
  /** The gateway asks to be told when everything up to entry `seq` is shown. */
  | { readonly type: 'mark'; readonly seq: number }
  /** The session cannot be read; the subscription is not wanted any more. */
  | { readonly type: 'refused'; readonly error: AntiphonError }
  /** Something is in the way: wait before the next command; null leaves it to the reader's back-off. */
  | { readonly type: 'pause'; readonly retryAfterMs: number | null }
  /** The connection is lost; reading goes on by itself. */
  | { readonly type: 'lost' };

type Phase = 'off' | 'subscribing' | 'live' | 'unsubscribing';

const CURSOR_CODES: readonly string[] = ['cursor_bad', 'cursor_epoch', 'cursor_future'];
const NOTHING: readonly Output[] = [];

export class Subscription {
  phase: Phase = 'off';
  isWanted = false;
  #epoch: string | null = null;
  #last: number | null = null;
  #isStale = false;
  #breaks = 0;

  /** `declared` is what each `subscribe` says besides the place: how to replay, tools, presence. */
  constructor(
    readonly session: string,
    after: Cursor | null,
    public declared: JsonObject,
    readonly chainRetries: number,
  ) {
    this.#goTo(after);
  }

  /** Where to go on reading; null: from a snapshot. */
  get after(): Cursor | null {
    return this.#epoch === null || this.#last === null ? null : { epoch: this.#epoch, seq: this.#last };
  }

  #goTo(after: Cursor | null): void {
    this.#epoch = after?.epoch ?? null;
    this.#last = after?.seq ?? null;
  }

  // ---- what the driver does to it

  /** The connection has ended. */
  lost(): void {
    this.phase = 'off';
    this.#isStale = false;
  }

  /** Read again from `after`; what still comes of the present subscription is dropped. */
  rewind(after: Cursor | null): void {
    this.#goTo(after);
    this.#isStale = this.phase === 'subscribing' || this.phase === 'live';
  }

  /** The command to send now, if any; it counts as sent. */
  command(): JsonObject | null {
    if (this.phase === 'off' && this.isWanted) {
      this.phase = 'subscribing';
      this.#isStale = false;
      const place = this.after && { after: cursorText(this.after) };
      return { op: 'subscribe', session: this.session, ...place, ...this.declared };
    }
    if (this.phase === 'live' && (this.#isStale || !this.isWanted)) {
      this.phase = 'unsubscribing';
      return { op: 'unsubscribe', session: this.session };
    }
    return null;
  }

  // ---- what the gateway says

  /** Takes the reply to the command sent last. */
  reply(frame: JsonObject): readonly Output[] {
    if (this.phase === 'unsubscribing') {
      this.phase = 'off'; // `not_subscribed` is as good as `ok`: nothing comes any more
      return NOTHING;
    }
    if (this.phase !== 'subscribing') return NOTHING;
    return frame['op'] === 'error' ? this.#refused(refusal(frame)) : this.#subscribed(asString(frame['epoch']));
  }

  #subscribed(epoch: string | null): readonly Output[] {
    this.phase = 'live';
    if (this.#isStale) return NOTHING;
    if (epoch === null || (this.#last !== null && epoch !== this.#epoch)) {
      // not by the protocol; the place we hold means nothing in another log
      this.#goTo(null);
      return [{ type: 'reset', reason: 'cursor_epoch' }, ...this.#broken()];
    }
    this.#epoch = epoch;
    return NOTHING;
  }

  #refused(error: AntiphonError): readonly Output[] {
    this.phase = 'off';
    const { code } = error;
    if (CURSOR_CODES.includes(code) && this.#isStale) {
      this.#isStale = false; // the refused place is not the one wanted by now
      return NOTHING;
    }
    if (CURSOR_CODES.includes(code) && this.after) {
      this.#goTo(null);
      return [{ type: 'reset', reason: code }];
    }
    if (code === 'already_subscribed') {
      this.phase = 'live'; // unsubscribe, then begin again
      return this.#broken();
    }
    if (error.retryable) return [{ type: 'pause', retryAfterMs: error.retryAfterMs }];
    this.isWanted = false;
    return [{ type: 'refused', error }];
  }

  /** Takes a frame of this session. */
  frame(frame: JsonObject): readonly Output[] {
    if (this.phase !== 'live' || this.#isStale) return NOTHING;
    const epoch = this.#epoch ?? '';
    switch (frame['op']) {
      case 'entry':
        return this.#entry(readEntry(frame, epoch));
      case 'session.snapshot': {
        const asOf = asCount(frame['asOf']);
        if (asOf === null) return this.#broken();
        this.#last = asOf;
        const messagesBefore = asCount(frame['messagesBefore']) ?? 0;
        const state = asObject(frame['state']) ?? {};
        return [{ type: 'snapshot', cursor: cursorText({ epoch, seq: asOf }), asOf, messagesBefore, state }];
      }
      case 'session.caught_up': {
        const seq = asCount(frame['seq']);
        if (seq === null) return NOTHING;
        return [{ type: 'caught_up', cursor: asString(frame['cursor']) ?? cursorText({ epoch, seq }), seq }];
      }
      case 'session.gap':
        this.#last = null;
        return [{ type: 'gap', from: asCount(frame['from']) ?? 0, to: asCount(frame['to']) ?? 0 }];
      case 'session.unsubscribed':
        return this.#refused(refusal(frame)); // the token does not allow it any more
      case 'session.presence':
        return [{ type: 'presence', presence: readPresence(frame) }];
      case 'session.mark': {
        const seq = asCount(frame['seq']);
        return seq === null ? NOTHING : [{ type: 'mark', seq }];
      }
      default:
        return NOTHING;
    }
  }

  /** The chain (section 3). */
  #entry(entry: Entry | null): readonly Output[] {
    if (!entry || this.#last === null) return this.#broken(); // no place in the log, or no snapshot before it
    if (entry.seq <= this.#last) return NOTHING;
    if (entry.prev !== this.#last) return this.#broken();
    this.#last = entry.seq;
    this.#breaks = 0;
    return [entry];
  }

  /** Reads the same place again, a bounded number of times. */
  #broken(): readonly Output[] {
    this.#isStale = true;
    this.#breaks += 1;
    if (this.#breaks <= this.chainRetries) return [{ type: 'pause', retryAfterMs: null }];
    this.#breaks = 0;
    this.isWanted = false;
    const where = this.after ? cursorText(this.after) : 'a snapshot';
    return [{ type: 'refused', error: new AntiphonError('chain_broken', `no whole log after ${where}`) }];
  }
}
