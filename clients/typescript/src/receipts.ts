/** What became of an input: the receipt of `send()`, and the book that the fold writes into. */
import type { Stored } from './core-session.js';
import { type AntiphonError, InputNotApplied } from './errors.js';
import type { Applied, Change, Outcome } from './fold/changes.js';
import type { Fold } from './fold/fold.js';
import { RUN_PREFIX } from './fold/rules/names.js';
import { asCount, asString, type JsonObject } from './json.js';
import { type Abortable, Notifier } from './wait.js';

const TAKEN_BACK: readonly string[] = ['cancelled', 'superseded', 'parent_cancelled', 'deleted'];

/** Everything known about one input, so far. */
class Progress {
  runId: string;
  seq: number | null = null;
  applied: Applied | null = null;
  dropped: string | null = null;
  outcome: Outcome | null = null;
  readonly changed = new Notifier();
  // what the fold said of it when noting began, or last began anew; what lay before is hidden
  hiddenTo = -1;
  wasQueued = false;
  wasRunning = false;
  wasKnown = false;
  /** It was scheduled, and has been sent. */
  isDue = false;

  constructor(readonly inputId: string) {
    this.runId = RUN_PREFIX + inputId;
  }

  /** Notes what happens from here on: the entry `foldedSeq`, after which `fold` is. */
  begin(fold: Fold, foldedSeq: number): void {
    this.hiddenTo = foldedSeq;
    this.wasQueued = fold.isQueued(this.inputId) || fold.isScheduled(this.inputId);
    this.wasRunning = fold.isRunning(this.runId);
    this.wasKnown = foldedSeq >= 0 && !fold.partial;
  }

  /** The input was sent before noting began: takes what the fold said of it then. */
  settle(): void {
    if (this.outcome || this.wasQueued) return;
    this.apply();
    this.outcome = this.wasRunning ? null : { kind: 'unknown' };
    this.changed.fire();
  }

  get isPastQueue(): boolean {
    return this.applied !== null || this.dropped !== null;
  }

  get status(): string | null {
    if (this.dropped !== null) return TAKEN_BACK.includes(this.dropped) ? 'cancelled' : 'failed';
    return this.outcome ? 'ended' : this.applied && 'applied';
  }

  /** The input has left the queue for the transcript, as which message is not known. */
  apply(runId: string | null = this.runId, messageId: string | null = null): void {
    if (this.isPastQueue) return;
    this.applied = { kind: 'applied', inputId: this.inputId, runId, messageId, source: null };
  }

  /** The input will not be applied, and its run not start. */
  drop(code: string): void {
    this.dropped = code;
    this.outcome = TAKEN_BACK.includes(code) ? { kind: 'cancelled', reason: code } : { kind: 'error', code };
  }

  take(change: Extract<Change, { readonly inputId: string }>): void {
    if (change.kind === 'applied') {
      this.applied = change;
      this.runId = change.runId ?? this.runId;
    } else if (change.kind === 'spoken') {
      this.applied = { ...change, kind: 'applied', runId: null, messageId: `msg_${change.inputId}` };
      this.outcome = { kind: 'no_run' };
    } else if (change.kind === 'due') this.isDue = true;
    else this.drop(change.code);
    this.changed.fire();
  }
}

export type { Progress };

/** The inputs of which it is not known yet how they end. */
export class ReceiptBook {
  readonly #open = new Map<string, Progress>();

  /** The progress of an input, shared by all of its receipts; noted from here on. */
  open(inputId: string, fold: Fold, foldedSeq: number): Progress {
    const known = this.#open.get(inputId);
    if (known) return known;
    const progress = new Progress(inputId);
    progress.begin(fold, foldedSeq);
    this.#open.set(inputId, progress);
    return progress;
  }

  /** It was not stored. */
  drop(progress: Progress): void {
    this.#open.delete(progress.inputId);
  }

  /** Takes over what the fold found, in order. */
  observe(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'ended') this.#runEnded(change.runId, change.outcome);
      else if ('inputId' in change) {
        const progress = this.#open.get(change.inputId);
        if (progress && !progress.isPastQueue) progress.take(change);
      }
    }
    if (changes.length) this.#tidy();
  }

  #runEnded(runId: string, outcome: Outcome): void {
    for (const progress of this.#open.values()) {
      if (progress.runId !== runId || progress.outcome) continue;
      progress.apply();
      progress.outcome = outcome;
      progress.changed.fire();
    }
  }

  /** After a snapshot: what lies before it will not be noted. */
  restart(fold: Fold, foldedSeq: number): void {
    for (const progress of this.#open.values()) {
      progress.begin(fold, foldedSeq);
      if (progress.seq !== null && progress.seq <= foldedSeq) progress.settle();
    }
    this.#tidy();
  }

  /**
   * Takes over the reply to `input.send`; `isReadable`: entries of the session arrive.
   *
   * What the entries have told, or will tell, counts. Only of an input from before that do the fold, or else the reply,
   * have to say what became of it.
   */
  stored(progress: Progress, reply: JsonObject, fold: Fold, isReadable: boolean): void {
    progress.runId = asString(reply['runId']) ?? progress.runId;
    progress.seq = asCount(reply['seq']);
    progress.wasRunning ||= fold.isRunning(progress.runId);
    if (isReadable && progress.seq !== null && progress.seq > progress.hiddenTo) return;
    const status = asString(reply['status']) ?? '';
    const isApplied = status === 'applied' || status === 'ended';
    if ((status === 'cancelled' || status === 'failed') && !progress.isPastQueue) {
      progress.drop(asString(reply['reason']) ?? status);
    } else if (isApplied && reply['runId'] === null && !progress.isPastQueue) {
      progress.apply(null);
      progress.outcome = { kind: 'no_run' };
    } else if (isReadable && progress.wasKnown) progress.settle();
    else if (isApplied && !progress.outcome) {
      progress.apply();
      progress.outcome = status === 'ended' ? { kind: 'unknown' } : null;
    }
    progress.changed.fire();
    this.#tidy();
  }

  /** Lets all who wait look again: the session has got an error. */
  wake(): void {
    for (const progress of this.#open.values()) progress.changed.fire();
  }

  #tidy(): void {
    for (const [inputId, progress] of this.#open)
      if (progress.outcome && progress.isPastQueue) this.#open.delete(inputId);
  }
}

/** What a receipt needs of its session. */
export interface ReceiptSource {
  /** Why the session cannot be read, so that nothing more will be learned. */
  readonly error: AntiphonError | null;
  follow(): void;
  /** While it runs, somebody waits for an entry. */
  waiting<T>(wait: () => Promise<T>): Promise<T>;
}

/** An input that is stored in the log, and what becomes of it. */
export class Receipt implements Stored {
  readonly seq: number | null;
  readonly isDuplicate: boolean;
  readonly mode: string | null;
  readonly position: number | null;
  readonly reason: string | null;
  readonly at: number | null;
  readonly #progress: Progress;
  readonly #source: ReceiptSource;
  readonly #atFirst: string;

  constructor(progress: Progress, source: ReceiptSource, stored: Stored) {
    this.#progress = progress;
    this.#source = source;
    this.#atFirst = stored.status;
    ({
      seq: this.seq,
      isDuplicate: this.isDuplicate,
      mode: this.mode,
      position: this.position,
      reason: this.reason,
      at: this.at,
    } = stored);
  }

  get inputId(): string {
    return this.#progress.inputId;
  }

  /**
   * `scheduled`, `queued`, `pending`, `applied`, `ended`, `failed` or `cancelled`; it moves on while the session is read.
   */
  get status(): string {
    return this.#progress.status ?? (this.#progress.isDue && this.#atFirst === 'scheduled' ? 'queued' : this.#atFirst);
  }

  /** The run that the input starts, or (once it is applied) that it went into. It can be cancelled before it exists. */
  get runId(): string {
    return this.#progress.runId;
  }

  /** Waits until the input is in the transcript. Rejects with `InputNotApplied`, or the session's error. */
  async applied({ signal }: Abortable = {}): Promise<Applied> {
    const progress = this.#progress;
    await this.#until(() => progress.isPastQueue, signal);
    if (progress.applied) return progress.applied;
    throw new InputNotApplied(progress.dropped ?? 'failed', `input ${this.inputId} was not applied`);
  }

  /** Waits until the run has ended; tells how. Rejects with the session's error if it cannot be read. */
  async finished({ signal }: Abortable = {}): Promise<Outcome> {
    const progress = this.#progress;
    await this.#until(() => progress.outcome !== null, signal);
    return progress.outcome as Outcome;
  }

  async #until(isKnown: () => boolean, signal: AbortSignal | undefined): Promise<void> {
    if (isKnown()) return;
    this.#source.follow();
    await this.#source.waiting(async () => {
      while (!isKnown()) {
        if (this.#source.error) throw this.#source.error;
        await this.#progress.changed.wait(signal);
      }
    });
  }
}
