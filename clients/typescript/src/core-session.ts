/** One session without the fold: its events, and the commands into it. */
import { EventBuffer } from './buffer.js';
import { type AntiphonError, ConnectionClosed } from './errors.js';
import type { Host } from './host.js';
import { newId } from './ids.js';
import { asCount, asString, type JsonObject } from './json.js';
import type { Attachment, Mode } from './model.js';
import { type Cursor, cursorText, type Presence, type PresenceState, readCursor } from './protocol.js';
import { Steering } from './steering.js';
import { type Output, type SessionEvent, Subscription } from './subscription.js';
import { type Abortable, Notifier } from './wait.js';

export interface ReadingOptions {
  /** A stored cursor, after which to read; without one reading begins with a snapshot. */
  readonly cursor?: string | undefined;
  /** Each entry that the log still holds, one by one, instead of merged text. */
  readonly every?: boolean;
  /** False: nobody looks at it (a bot, an export), so that it does not count as presence. */
  readonly watching?: boolean;
  /** Tools that are executed by whoever reads the session, who claims their calls (`claimCall`) and resolves them. */
  readonly declares?: readonly JsonObject[];
}

export interface SendOptions extends Abortable {
  /** Unique for the session's life (one is made without): sending again with the same one is safe and counts once. */
  readonly inputId?: string | undefined;
  /** What becomes of it while a run is active; the session's own (`config.onBusy`) without. */
  readonly mode?: Mode | undefined;
  /** What belongs to it: what `upload` has given, or ids. With some, the text may be empty. */
  readonly attachments?: readonly (Attachment | string)[] | undefined;
  /** Sends it later: at a time (a `Date`, or ms since 1970), or after so many ms. Nobody need be connected then. */
  readonly at?: Date | number | undefined;
  readonly afterMs?: number | undefined;
}

/** An input that is in the log. */
export interface Stored {
  readonly inputId: string;
  /** The run that the input starts, or that it went into. It can be cancelled before it exists. */
  readonly runId: string | null;
  /** Its place in the log; null of one that was stored long ago. */
  readonly seq: number | null;
  /** This input id had been stored before, so that nothing was added. */
  readonly isDuplicate: boolean;
  /** `scheduled`, `queued`, `pending`, `applied`, `ended`, `failed` or `cancelled`. */
  readonly status: string;
  /** The mode that it got, its place in the queue (1 is next), and what it waited for besides its turn. */
  readonly mode: string | null;
  readonly position: number | null;
  readonly reason: string | null;
  /** When it is sent, if it is scheduled. */
  readonly at: number | null;
}

/** Reads the reply to `input.send`. */
export const readStored = (inputId: string, reply: JsonObject): Stored => ({
  inputId,
  runId: asString(reply['runId']),
  seq: asCount(reply['seq']),
  isDuplicate: reply['duplicate'] === true,
  status: asString(reply['status']) ?? 'queued',
  mode: asString(reply['mode']),
  position: asCount(reply['position']),
  reason: asString(reply['reason']),
  at: asCount(reply['at']),
});

/**
 * A session of a client. It is read from the first `events`, `send`, `hold` or `follow` on. What arrives waits in a
 * bounded buffer for `events`; what does not fit there is read again from the log when there is room.
 */
export class CoreSession extends Steering {
  protected readonly sub: Subscription;
  /** Why this session cannot be read. */
  protected refused: AntiphonError | null = null;
  readonly #buffer: EventBuffer;
  readonly #listeners = new Set<() => void>();
  readonly #taps = new Set<(output: Output) => void>();
  readonly #arrived = new Notifier();
  #presence: Presence | null = null;
  #handled: Cursor | null;
  #isBehind = false;
  #isIterated = false;
  #isPinned = false;
  #holds = 0;
  #waiters = 0;
  #linger: ReturnType<typeof setTimeout> | undefined;

  constructor(host: Host, name: string, { cursor, every, watching = true, declares }: ReadingOptions = {}) {
    super(host, name);
    const { settings } = host;
    const after = cursor === undefined ? null : readCursor(cursor);
    if (cursor !== undefined && !after) throw new RangeError('a cursor has the form <epoch>:<seq>');
    const how = {
      ...(every && { replay: 'every' }),
      ...(!watching && { watching }),
      ...(declares && { tools: declares }),
    };
    this.sub = new Subscription(name, after, how, settings.chainRetries);
    this.#buffer = new EventBuffer(settings.bufferEvents, settings.bufferChars, after);
    this.#handled = after;
  }

  // ---- reading

  /** Whether it has not been closed, here. */
  get isOpen(): boolean {
    return !this.isClosed;
  }

  /** Whether somebody waits for what comes, besides the consumer of `events`. */
  get isAwaited(): boolean {
    return this.#waiters > 0 || this.#listeners.size > 0;
  }

  /** Who is there, as the gateway said last. */
  get presence(): Presence | null {
    return this.#presence;
  }

  /** Why the session cannot be read; null while it can, or nobody has tried. */
  get error(): AntiphonError | null {
    return this.refused ?? this.host.failure;
  }

  /**
   * The place after the last event that `events` gave out; null before the first. Store it once that event is handled,
   * and pass it to `AntiphonClient.session` later.
   */
  get cursor(): string | null {
    return this.#handled && cursorText(this.#handled);
  }

  /** Calls `listener` whenever something has arrived; returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Calls `listener` with all that arrives, as it arrives; returns what ends that. A session that is being read is read
   * again from a snapshot, so that the listener gets what is running now from its beginning.
   */
  tap(listener: (output: Output) => void): () => void {
    this.#taps.add(listener);
    if (this.sub.isWanted) this.host.rewind(this.sub, null);
    return () => this.#taps.delete(listener);
  }

  /** Reads the session from now on, until it is closed. */
  follow(): void {
    this.#isPinned = true;
    this.#follow();
  }

  /** Reads it for as long as somebody holds it: when the last one lets go, and nobody follows it, it is closed. */
  hold(): () => void {
    this.#holds += 1;
    clearTimeout(this.#linger);
    this.#follow();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds -= 1;
      this.#letGo();
    };
  }

  #letGo(): void {
    if (this.#holds || this.#isPinned || this.#waiters || this.isClosed) return;
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => void (this.#waiters || this.close()), this.host.settings.lingerMs);
  }

  #follow(): void {
    if (this.isClosed || this.host.failure || this.sub.isWanted) return;
    this.refused = null;
    this.sub.isWanted = true;
    this.host.follow(this.sub);
  }

  /**
   * Iterates over what happens, in order. It goes on after `cursor`: leaving the loop and entering it again misses
   * nothing. One iteration at a time. Rejects when the session cannot be read; what had arrived before is given first.
   */
  events({ signal }: Abortable = {}): AsyncIterableIterator<SessionEvent> {
    if (this.#isIterated) throw new Error(`session ${this.name} is being iterated already`);
    this.#isIterated = true;
    this.follow();
    let isOver = false;
    const end = (): IteratorReturnResult<undefined> => {
      if (!isOver) this.#isIterated = false;
      isOver = true;
      this.host.hold(false);
      this.#arrived.fire();
      return { done: true, value: undefined };
    };
    const next = async (): Promise<IteratorResult<SessionEvent>> => {
      try {
        while (!isOver) {
          signal?.throwIfAborted();
          const event = this.#buffer.take();
          if (event) {
            this.#moved(event);
            return { done: false, value: event };
          }
          if (this.isClosed) break;
          if (this.error) throw this.error;
          await this.waiting(() => this.#arrived.wait(signal)); // another session's slow consumer must not hold this up
        }
      } catch (error) {
        end();
        throw error;
      }
      return end();
    };
    return {
      next,
      return: async () => end(),
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Says what the user is doing on this device; said again after each reconnect. */
  setPresence(state: PresenceState): void {
    this.checkOpen();
    this.#follow();
    this.host.say(this.name, state);
  }

  /** Stops reading it, here; what was sent is still sent. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    clearTimeout(this.#linger);
    await this.closing();
    this.host.forget(this.sub);
    this.failed(new ConnectionClosed('closed', `session ${this.name} was closed`));
  }

  // ---- sending

  /**
   * Sends a message; resolves once it is stored. While there is no connection it waits, and it is sent again after a
   * lost one. Rejects with its refusal. One that is aborted may or may not have been stored.
   */
  async send(content: string, { inputId = newId(), ...options }: SendOptions = {}): Promise<Stored> {
    return readStored(inputId, await this.sendInput(inputId, content, options));
  }

  protected sendInput(inputId: string, content: string, options: SendOptions): Promise<JsonObject> {
    const { mode, signal, at, afterMs } = options;
    const attachments = options.attachments?.map((each) => ({ id: typeof each === 'string' ? each : each.id }));
    this.checkOpen();
    if ((!content && !attachments?.length) || /\p{Cs}/u.test(content)) {
      throw new RangeError('the text of an input is not empty, and is Unicode');
    }
    if (!this.refused) this.#follow(); // a token may give `send` without `read`
    // through the gate: once the session is being read, so that the run's entries come after its start
    const when = { at: at === undefined ? undefined : Math.round(+at), delayMs: afterMs };
    return this.ask('input.send', { inputId, content, mode, attachments, ...when }, { signal }, this.name);
  }

  /** While `wait` runs, somebody waits for an entry: the socket is read whatever happens. */
  async waiting<T>(wait: () => Promise<T>): Promise<T> {
    this.#waiters += 1;
    this.host.hold(false);
    try {
      return await wait();
    } finally {
      this.#waiters -= 1;
      if (!this.#holds) this.#letGo();
    }
  }

  // ---- driven by the client

  /** What the kinds of session do with what has come, before it is given out. */
  protected observe(_output: Output): void {}

  /** The last moment in which commands can be sent. */
  protected async closing(): Promise<void> {}

  /** Takes what has come for this session. */
  accept(output: Output, size: number): void {
    this.observe(output);
    switch (output.type) {
      case 'refused':
        this.refused = output.error;
        this.#arrived.fire();
        break;
      case 'snapshot':
      case 'entry':
      case 'caught_up':
        this.#offer(output, size);
        break;
      case 'presence':
        this.#presence = output.presence;
        break;
      case 'lost':
        if (this.#presence) this.#presence = { ...this.#presence, isStale: true };
        break;
      case 'gap':
      case 'reset':
        if (this.#isBehind || this.#buffer.isUsed(1)) this.#buffer.restart();
        this.#isBehind = false;
        this.#put(output, 0);
    }
    for (const tap of [...this.#taps]) tap(output);
  }

  /** The session cannot be read, because of `error`. */
  failed(error: AntiphonError): void {
    this.accept({ type: 'refused', error }, 0);
    this.changed();
  }

  /** Tells who listens. */
  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  // ---- inside

  /** Puts an event into the buffer, or drops it and remembers to come back for it. */
  #offer(event: SessionEvent, size: number): void {
    if (this.#isBehind) return;
    if (this.#isIterated && this.#buffer.isUsed(0.5)) this.host.hold(true);
    if (this.#buffer.isUsed(1)) this.#isBehind = true;
    else this.#put(event, size);
  }

  #put(event: SessionEvent, size: number): void {
    this.#buffer.put(event, size);
    this.#arrived.fire();
  }

  /** An event is given out: moves the cursor, and lets in what there is room for now. */
  #moved(event: SessionEvent): void {
    if (event.type === 'gap' || event.type === 'reset') this.#handled = null;
    else if (event.type !== 'caught_up') this.#handled = readCursor(event.cursor);
    if (this.#buffer.isUsed(0.25)) return;
    this.host.hold(false);
    if (!this.#isBehind) return;
    this.#isBehind = false;
    this.host.rewind(this.sub, this.#buffer.tail);
  }
}
