/** One session with its folded state: receipts, views, tools. */
import { CoreSession, type ReadingOptions, readStored, type SendOptions } from './core-session.js';
import { Executor } from './executor.js';
import type { Change } from './fold/changes.js';
import { Following, type SessionView } from './following.js';
import type { Host } from './host.js';
import { newId } from './ids.js';
import type { JsonObject } from './json.js';
import type { Entry, Message, State } from './model.js';
import { readCursor } from './protocol.js';
import { Receipt } from './receipts.js';
import { onceShown } from './shown.js';
import type { Output } from './subscription.js';
import { type DeclaredTool, declared, type Tool } from './tools.js';
import type { Abortable } from './wait.js';

/** Is told of each record that is folded, with what it did; of null when what was folded is void. */
export type FoldListener = (entry: Entry | null, changes: readonly Change[]) => void;

export interface SessionOptions extends ReadingOptions {
  /** Executed here, from now on, when an agent calls them and this client is who they are for. */
  readonly tools?: readonly Tool[];
}

/**
 * A session of a client; made by `AntiphonClient.session`. What arrives is folded at once into `view`.
 *
 * With a stored cursor, `messages` and `state` begin there: what began before is in `history`, and `state` knows a lane
 * once something is written in it.
 */
export class Session extends CoreSession {
  readonly #following: Following;
  readonly #foldListeners = new Set<FoldListener>();
  readonly #toolSets = new Set<readonly (Tool | DeclaredTool)[]>();
  /** Those of them that are executed here. */
  #tools: ReadonlyMap<string, Tool> = new Map();
  #executor: Executor | null = null;
  #loading: Promise<boolean> | null = null;

  constructor(host: Host, name: string, { tools, ...options }: SessionOptions = {}) {
    super(host, name, options);
    this.sub.declared = { ...this.sub.declared, acks: true };
    const after = options.cursor === undefined ? null : readCursor(options.cursor);
    this.#following = new Following(after, host.settings.transcriptMessages);
    if (!tools?.length) return;
    this.addTools(tools);
    this.follow();
  }

  // ---- reading

  override get isAwaited(): boolean {
    return super.isAwaited || this.#tools.size > 0; // calls must be seen
  }

  /** As it is now: immutable, and the same object until something has changed. */
  get view(): SessionView {
    return this.#following.view(this.presence, this.error);
  }

  /** The folded state of everything that has arrived. */
  get state(): State {
    return this.#following.fold.state;
  }

  /** The messages since the snapshot (or cursor) that reading began with, and those that `loadOlder` has brought. */
  get messages(): readonly Message[] {
    return this.view.messages;
  }

  /**
   * Calls `listener` with each record once it is folded, in order; returns what ends that. Unlike `events` it holds
   * nothing up, and what came before is not told again.
   */
  onFolded(listener: FoldListener): () => void {
    this.#foldListeners.add(listener);
    return () => this.#foldListeners.delete(listener);
  }

  /** Brings a page of older messages into `messages`; resolves with whether there are more. */
  loadOlder({ limit, signal }: { limit?: number } & Abortable = {}): Promise<boolean> {
    this.#loading ??= this.#loadOlder(limit, signal).finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  async #loadOlder(limit: number | undefined, signal: AbortSignal | undefined): Promise<boolean> {
    const { before } = this.#following;
    if (before === null) return false;
    const page = await this.history({ before, ...(limit && { limit }), signal });
    // forgotten meanwhile: the page is not of what is shown now
    if (this.#following.before === before) this.#following.prepend(page.messages, page.before);
    this.changed();
    return this.#following.before !== null;
  }

  /**
   * Executes these tools when agents call them, for as long as they are not removed by what is returned; until then the
   * session is held. Of two with the same name, the one that was added later is executed. Tools without `execute` are
   * only declared: their calls wait for `resolveCall`.
   */
  addTools(tools: readonly (Tool | DeclaredTool)[]): () => void {
    declared(tools); // before anything is changed: it throws
    this.#toolSets.add(tools);
    this.#declare();
    const ask = (op: string, fields: JsonObject) => this.host.call({ op, session: this.name, ...fields });
    this.#executor ??= new Executor(() => this.#tools, this.host.settings, ask);
    this.#look(0);
    const letGo = this.hold();
    return () => {
      if (!this.#toolSets.delete(tools) || this.isClosed) return;
      this.#declare();
      letGo();
    };
  }

  /** What a subscription declares, it declares once: the place is read again. */
  #declare(): void {
    const all = new Map([...this.#toolSets].flat().map((tool) => [tool.name, tool]));
    const { tools: before, ...how } = this.sub.declared;
    const now = all.size ? declared([...all.values()]) : undefined;
    this.#tools = new Map([...all].filter((each): each is [string, Tool] => 'execute' in each[1]));
    if (JSON.stringify(now) === JSON.stringify(before)) return;
    this.sub.declared = now ? { ...how, tools: now } : how;
    this.host.rewind(this.sub, this.sub.after);
  }

  // ---- sending

  /** As in `CoreSession`; until it is in the log, it is in `view.sending`. The receipt tells what becomes of it. */
  override async send(content: string, { inputId = newId(), ...options }: SendOptions = {}): Promise<Receipt> {
    const following = this.#following;
    const progress = following.book.open(inputId, following.fold, following.seq);
    following.sends({ inputId, content, mode: options.mode ?? null });
    this.changed();
    try {
      const reply = await this.sendInput(inputId, content, options);
      const stored = readStored(inputId, reply);
      following.book.stored(progress, reply, following.fold, !this.refused);
      following.stored(inputId, this.refused ? null : stored.seq);
      return new Receipt(progress, this, stored);
    } catch (error) {
      following.book.drop(progress);
      following.unsend(inputId);
      throw error;
    } finally {
      this.changed();
    }
  }

  // ---- driven by the client

  protected override observe(output: Output): void {
    const following = this.#following;
    switch (output.type) {
      case 'snapshot':
        if (following.begin(output)) this.#folded(null, []);
        break;
      case 'entry': {
        const changes = following.take(output);
        if (changes && output.off === null) this.#folded(output, changes);
        break;
      }
      case 'caught_up':
        following.isCaughtUp = true;
        break;
      case 'lost':
        following.isCaughtUp = false;
        break;
      case 'refused':
        following.isCaughtUp = false;
        following.book.wake();
        break;
      case 'mark':
        // a reply says nothing new; whoever asked may be gone
        onceShown(() => this.host.call({ op: 'ack', session: this.name, seq: output.seq }).catch(() => {}));
        break;
      case 'gap':
      case 'reset':
        following.forget();
        this.#folded(null, []);
    }
  }

  #folded(entry: Entry | null, changes: readonly Change[]): void {
    for (const listener of this.#foldListeners) listener(entry, changes);
    this.#look(entry?.ts ?? 0);
  }

  protected override async closing(): Promise<void> {
    await this.#executor?.close();
  }

  #look(ts: number): void {
    this.#executor?.look(this.state.calls, ts);
  }
}
