/** The answers of one chat, as they are told: chunks, kept so that whoever begins to read gets an answer from its start. */
import type { Entry } from '../model.js';
import type { Session } from '../session.js';
import type { Output } from '../subscription.js';
import { Notifier } from '../wait.js';
import { Answer } from './answer.js';
import type { Chunk, CommonChunk } from './chunks.js';

/** Answers that are kept; the oldest that are over go. */
const ANSWERS_KEPT = 32;
/** After so much silence a stream ends whose viewer is waited for: what an agent asks at once comes in turn. */
const SETTLE_MS = 100;
/** What is asked for of a chat's history to begin with, in messages of the transcript. */
const HISTORY = 200;

/** A chunk, with the entry that it came by. */
interface Told {
  readonly seq: number;
  readonly chunk: Chunk;
}

/** An answer and what has been told of it. */
class Telling {
  readonly told: Told[] = [];
  readonly readers = new Set<(chunks: readonly Chunk[]) => void>();
  /** The entry of its latest chunk that a message keeps; -1 before the first. */
  last = -1;
  /** The entry up to which this page shows it; -1: not at all. */
  shown = -1;
  /** Its input is in the log. */
  isSent = false;
  /** The reading of it was ended here: it is not to be shown again by itself. */
  isLeft = false;

  constructor(readonly answer: Answer) {}

  add(chunks: readonly Chunk[], seq: number): void {
    const canJoin = !this.answer.awaited.length; // else a stream may end between two of them
    for (const chunk of chunks) {
      const before = this.told.at(-1)?.chunk;
      if (canJoin && isDelta(chunk) && isDelta(before) && before.id === chunk.id) {
        this.told[this.told.length - 1] = { seq, chunk: { ...before, delta: before.delta + chunk.delta } };
      } else this.told.push({ seq, chunk });
      if (!('transient' in chunk)) this.last = seq;
    }
    for (const read of [...this.readers]) read(chunks);
  }

  /** It is running, and this page does not show all there is of it. */
  get isBehind(): boolean {
    return !this.isLeft && this.answer.runId !== null && (this.shown < 0 || this.last > this.shown);
  }
}

type Delta = Extract<Chunk, { delta: string }>;

const isDelta = (chunk: Chunk | undefined): chunk is Delta => chunk !== undefined && 'delta' in chunk;

export class ChatLog {
  readonly #answers = new Map<string, Telling>();
  readonly #changed = new Notifier();
  readonly #listeners = new Set<() => void>();
  readonly #ends: readonly (() => void)[];
  /** Everything has been told that the log held. */
  isCaughtUp = false;
  #hasLoaded = false;
  #cursor = '';
  #seq = -1;

  constructor(
    readonly session: Session,
    readonly isViewers: (call: { readonly [field: string]: unknown }) => boolean,
  ) {
    this.#ends = [session.tap((output) => this.#take(output)), session.subscribe(() => this.#notify()), session.hold()];
  }

  close(): void {
    for (const end of this.#ends) end();
    this.#void('closed: the chat was left');
  }

  /** Calls `listener` whenever there may be something to show; returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Until everything is known that the log held. Rejects with why the session cannot be read, or the signal's reason. */
  async ready(signal?: AbortSignal): Promise<void> {
    while (!this.isCaughtUp) {
      if (this.session.error) throw this.session.error;
      await this.#changed.wait(signal);
    }
  }

  /** Likewise, with a page of what is older than that. */
  async loaded(signal?: AbortSignal): Promise<void> {
    await this.ready(signal);
    if (this.#hasLoaded || !this.session.view.hasOlder) return;
    await this.session.loadOlder({ limit: HISTORY, signal });
    this.#hasLoaded = true;
  }

  // ---- what is there

  has(inputId: string): boolean {
    return this.#answers.has(inputId);
  }

  /** The answer that is being given, or else is about to be. */
  get active(): Telling | null {
    const going = [...this.#answers.values()].filter(({ answer }) => !answer.isOver);
    return going.find(({ answer }) => answer.runId !== null) ?? going[0] ?? null;
  }

  /** Whether the page does not show all there is of the answer that is this message. */
  isBehind(messageId: string): boolean {
    return this.#answers.get(messageId.slice('run_'.length))?.isBehind ?? false;
  }

  /** The page shows what there is of the answers that are over. */
  showed(): void {
    for (const telling of this.#answers.values()) if (telling.answer.isOver) telling.shown = telling.last;
  }

  // ---- what comes

  #notify(): void {
    this.#changed.fire();
    for (const listener of [...this.#listeners]) listener();
  }

  #take(output: Output): void {
    switch (output.type) {
      case 'entry':
        return this.#entry(output);
      case 'snapshot':
        if (output.asOf <= this.#seq) return; // it is read again for somebody else
        this.#seq = output.asOf;
        this.#cursor = output.cursor;
        return;
      case 'caught_up':
        this.isCaughtUp = true;
        for (const telling of this.#answers.values()) {
          this.#drop(telling);
          for (const read of [...telling.readers]) read([]);
        }
        return;
      case 'lost':
        this.isCaughtUp = false;
        return;
      case 'gap':
      case 'reset':
        return this.#void('gap: entries had been missed; resume');
      case 'refused':
        return this.#void(output.error.message);
    }
  }

  #void(errorText: string): void {
    this.isCaughtUp = false;
    const answers = [...this.#answers.values()];
    this.#answers.clear();
    for (const telling of answers) {
      if (!telling.answer.isOver) telling.add(telling.answer.fail(errorText), this.#seq);
    }
    this.#seq = -1;
  }

  #entry(entry: Entry): void {
    if (entry.seq <= this.#seq) return;
    this.#seq = entry.seq;
    this.#cursor = entry.cursor;
    for (const { type, inputId } of entry.events) {
      const begins = entry.lane === null ? type === 'input.sent' : entry.lane === 'main' && type === 'input.applied';
      if (begins && typeof inputId === 'string') this.#telling(inputId).isSent = true;
    }
    for (const telling of [...this.#answers.values()]) {
      if (telling.answer.isOver) continue;
      telling.add(telling.answer.take(entry), entry.seq);
      if (entry.off === null) this.#drop(telling);
    }
  }

  /**
   * Ends what will have no answer: its input was taken back, or became a message at once, because a human has the lane.
   * What is being read again is not as far as the state.
   */
  #drop(telling: Telling): void {
    const { answer, isSent } = telling;
    if (!this.isCaughtUp || !isSent || answer.isOver || answer.runId !== null) return;
    const { state, messages } = this.session;
    if (state.inputs.some(({ inputId }) => inputId === answer.inputId)) return;
    const isSpoken = messages.some(({ id }) => id === `msg_${answer.inputId}`);
    telling.add(answer.withdraw(isSpoken ? null : 'cancelled'), this.#seq);
  }

  #telling(inputId: string): Telling {
    const known = this.#answers.get(inputId);
    if (known) return known;
    const telling = new Telling(new Answer(inputId, this.session.name, this.isViewers));
    this.#answers.set(inputId, telling);
    for (const [id, { answer }] of this.#answers) {
      if (this.#answers.size <= ANSWERS_KEPT) break;
      if (answer.isOver) this.#answers.delete(id);
    }
    return telling;
  }

  // ---- streams

  /**
   * The answer to this input, told from after the entry `shown` on, until it is over, or the viewer is waited for with
   * something that is not among `given`.
   */
  stream(inputId: string, { shown = -1, given = [], signal }: StreamOptions = {}): ReadableStream<CommonChunk> {
    const telling = this.#telling(inputId);
    const { answer, readers } = telling;
    telling.isLeft = false;
    let end = () => {};
    const start = (controller: ReadableStreamDefaultController<Chunk>) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      end = () => {
        clearTimeout(timer);
        readers.delete(read);
        signal?.removeEventListener('abort', abort);
        telling.shown = Math.max(telling.shown, telling.last);
        this.#notify();
      };
      const close = (chunks: readonly Chunk[]) => {
        for (const chunk of chunks) controller.enqueue(chunk);
        controller.close();
        end();
      };
      const abort = () => {
        close([]);
        telling.isLeft = readers.size === 0;
      };
      const read = (chunks: readonly Chunk[]) => {
        clearTimeout(timer);
        if (answer.isOver) return close(chunks);
        for (const chunk of chunks) controller.enqueue(chunk);
        const isAwaited = answer.waitsFor.some((id) => !given.includes(id));
        if (!isAwaited || !this.isCaughtUp) return;
        timer = setTimeout(() => close(answer.pause(this.#cursor)), SETTLE_MS);
      };
      readers.add(read);
      signal?.addEventListener('abort', abort);
      if (signal?.aborted) return abort();
      const early = telling.told.filter(({ seq }) => seq > shown).map(({ chunk }) => chunk);
      read(answer.replayed(early));
    };
    const cancel = () => {
      end();
      telling.isLeft = readers.size === 0;
    };
    return new ReadableStream({ start, cancel }) as ReadableStream<CommonChunk>;
  }
}

export interface StreamOptions {
  readonly shown?: number;
  readonly given?: readonly string[];
  readonly signal?: AbortSignal | undefined;
}
