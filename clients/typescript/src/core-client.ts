/** The client: one WebSocket that carries many sessions, and comes back by itself. Does what the machine says. */

import type { Action, Phase } from './actions.js';
import { CoreSession, type ReadingOptions } from './core-session.js';
import { AntiphonError, ConnectionClosed } from './errors.js';
import { readHandoff } from './fold/read.js';
import type { Host } from './host.js';
import { newId } from './ids.js';
import { asInt, asObject, asString, type JsonObject, readAll } from './json.js';
import { Machine } from './machine.js';
import type { Actor } from './model.js';
import {
  type ClientOptions,
  type ConnectionStatus,
  IDLE,
  type SessionInfo,
  type TokenProvider,
  type WaitingHandoff,
  type WebSocketConstructor,
  type WebSocketLike,
} from './options.js';
import { CONNECT_PATH, type Cursor, type PresenceState, SUBPROTOCOL, type Welcome } from './protocol.js';
import { DEFAULT_SETTINGS, type Settings } from './settings.js';
import type { Subscription } from './subscription.js';
import { type Abortable, abortable, Notifier } from './wait.js';
import { onWakeup } from './wakeups.js';

/**
 * How often it is looked whether the computer was asleep, and how much its clock must have gained for that: meanwhile
 * the clock that timers go by stands still on some systems, and no event tells of it.
 */
const LOOK_MS = 5000;
const SLEPT_MS = 3000;

const NEVER = Number.POSITIVE_INFINITY;

/** What the clock of the day says beyond the one that timers go by. */
const drift = (now: number): number => Date.now() - now;

/**
 * A connection to Antiphon, kept up for as long as somebody needs it. It is made with the first session that is read, or
 * the first command. Losing it is nobody's concern: the client comes back, reads on after the last entry of each
 * session, and sends again what has no reply yet, with the same ids. If a gateway says not to come back, the client
 * stops: all that waits, and all that comes later, rejects with `ConnectionClosed`.
 */
export abstract class CoreClientOf<S extends CoreSession, O extends object> {
  readonly device: string;
  readonly #settings: Settings;
  readonly #machine: Machine;
  readonly #token: string | TokenProvider;
  readonly #WebSocket: WebSocketConstructor | undefined;
  readonly #sessions = new Map<string, S>();
  readonly #waiting = new Map<number, { resolve(frame: JsonObject): void; reject(error: AntiphonError): void }>();
  readonly #listeners = new Set<() => void>();
  readonly #changed = new Notifier();
  readonly #host: Host;
  /** The gateway that was connected to last. */
  #url: string;
  /** What the provider has given last. */
  #given: string | null = null;
  #status = IDLE;
  #socket: WebSocketLike | null = null;
  #isHeld = false;
  #isRunning = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = NEVER;
  #drift = drift(performance.now());
  #endWakeups: (() => void) | null = null;

  constructor(options: ClientOptions) {
    const { url, token, name = '@antiphon/client', device = newId(), settings, random = Math.random } = options;
    if (!/^[\w-]{1,64}$/.test(device)) throw new RangeError(`not the name of a device: ${device}`);
    this.device = device;
    this.#token = token;
    this.#WebSocket = options.WebSocket ?? (globalThis.WebSocket as WebSocketConstructor | undefined);
    this.#settings = { ...DEFAULT_SETTINGS, ...settings };
    const urls = [url ?? globalThis.location?.origin ?? []].flat().map(gatewayUrl);
    if (url && !urls.length) throw new RangeError('give the address of at least one gateway');
    this.#url = urls[0] ?? '';
    const isRenewable = typeof token !== 'string';
    this.#machine = new Machine({
      urls,
      token: isRenewable ? null : token,
      isRenewable,
      client: name,
      device,
      settings: this.#settings,
      rand: random,
      skewMs: this.#drift,
    });
    this.#host = this.#asHost();
  }

  // ---- use

  /** What the gateway said of itself, its limits and the user; the latest one. */
  get welcome(): Welcome | null {
    return this.#machine.welcome;
  }

  /** How the connection is doing: immutable, and the same object until something has changed. */
  get status(): ConnectionStatus {
    return this.#status;
  }

  /** Calls `listener` whenever `status` has changed; returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Connects, if need be; resolves with the gateway's welcome. Rejects when the client has stopped. */
  async connect({ signal }: Abortable = {}): Promise<Welcome> {
    this.#step((now) => this.#machine.start(now));
    while (this.#machine.phase !== 'open') {
      if (this.#machine.failure) throw this.#machine.failure;
      await this.#changed.wait(signal);
    }
    return this.#machine.welcome as Welcome;
  }

  /** The session of that name: the same object until it is closed. Options are for one that is not open yet. */
  session(name: string, options?: O): S {
    const known = this.#sessions.get(name);
    if (known && options) throw new Error(`session ${name} is open; close it to open it otherwise`);
    const session = known ?? this.opened(this.#host, name, options);
    this.#sessions.set(name, session);
    return session;
  }

  /** Whether that session is open, here. */
  has(name: string): boolean {
    return this.#sessions.has(name);
  }

  /** The sessions that this user created or wrote to, the newest activity first; asked for a page at a time. */
  async *sessions({ pageSize, signal }: { pageSize?: number } & Abortable = {}): AsyncGenerator<SessionInfo> {
    for (let after: string | null | undefined; after !== null; ) {
      const reply = await this.#call({ op: 'session.list', limit: pageSize, after }, signal);
      yield* readAll(reply['sessions'], readInfo);
      const next = asString(reply['after']);
      after = next === after ? null : next;
    }
  }

  /** Up to `limit` (default 50) hand-overs that wait for this user's roles, oldest first. */
  async handoffs({ limit, signal }: { limit?: number } & Abortable = {}): Promise<WaitingHandoff[]> {
    const reply = await this.#call({ op: 'handoff.list', limit }, signal);
    return readAll(reply['handoffs'], (raw) => {
      const handoff = readHandoff(raw);
      const session = asString(raw['session']);
      return handoff && session !== null ? { ...handoff, session } : null;
    });
  }

  /** Stops for good. Tools let go of their calls first; all that waits rejects. Runs go on: nothing is cancelled. */
  async close(): Promise<void> {
    await Promise.all(Array.from(this.#sessions.values(), (session) => session.close()));
    this.#step(() => this.#machine.stop(new ConnectionClosed('closed', 'the client was closed')));
  }

  // ---- what its sessions use

  protected abstract opened(host: Host, name: string, options?: O): S;

  #asHost(): Host {
    const machine = this.#machine;
    return {
      settings: this.#settings,
      get failure() {
        return machine.failure;
      },
      call: (frame, signal, gate) => this.#call(frame, signal, gate),
      request: (path, init) => this.#request(path, init),
      follow: (sub: Subscription) =>
        this.#step((now) => {
          machine.follow(sub);
          machine.start(now);
        }),
      rewind: (sub: Subscription, after: Cursor | null) => this.#step(() => sub.rewind(after)),
      forget: (sub: Subscription) => {
        this.#sessions.delete(sub.session);
        this.#step(() => machine.forget(sub));
      },
      say: (session: string, state: PresenceState) => this.#step(() => machine.say(session, state)),
      hold: (isHeld: boolean) => this.#hold(isHeld),
    };
  }

  async #request(path: string, init: RequestInit): Promise<Response> {
    const { failure } = this.#machine;
    if (failure) throw failure;
    const ask = async (isAgain: boolean) => {
      const isFixed = typeof this.#token === 'string';
      if (!isFixed && (isAgain || this.#given === null))
        this.#given = await (this.#token as () => string | Promise<string>)();
      const headers = { ...init.headers, Authorization: `Bearer ${isFixed ? this.#token : this.#given}` };
      return fetch(httpUrl(this.#url, path), { ...init, headers });
    };
    const response = await ask(false);
    return response.status === 401 && typeof this.#token !== 'string' ? ask(true) : response;
  }

  async #call(frame: JsonObject, signal?: AbortSignal, gate?: string): Promise<JsonObject> {
    signal?.throwIfAborted();
    if (this.#machine.failure) throw this.#machine.failure;
    this.#hold(false);
    const { commands } = this.#machine;
    const id = commands.call(frame, gate ?? null);
    return abortable((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#step((now) => this.#machine.start(now));
      return () => {
        this.#waiting.delete(id);
        commands.forget(id);
      };
    }, signal);
  }

  /** Leaves the socket unread, unless somebody waits for what comes by it; or reads it again. */
  #hold(isHeld: boolean): void {
    const socket = this.#socket;
    if (isHeld === this.#isHeld || !socket?.pause || !socket.resume) return;
    if (isHeld && (this.#waiting.size || [...this.#sessions.values()].some((session) => session.isAwaited))) return;
    this.#isHeld = isHeld;
    if (isHeld) socket.pause();
    else socket.resume();
    this.#step((now) => this.#machine.hold(isHeld, now));
  }

  // ---- doing what the machine says

  /** Tells the machine something, and does what it says until it says nothing more. */
  #step(tell: (now: number) => void): void {
    tell(performance.now());
    if (this.#isRunning) return; // whoever runs goes on
    this.#isRunning = true;
    const touched = new Set<S>();
    try {
      for (let actions = this.#take(); actions.length; actions = this.#take()) {
        for (const action of actions) this.#perform(action, touched);
      }
    } finally {
      this.#isRunning = false;
    }
    this.#plan();
    for (const session of touched) session.changed();
  }

  #take(): Action[] {
    return this.#machine.take(performance.now());
  }

  /** One timer, for whatever is due next. One that comes too early looks again: each frame puts off what is due. */
  #plan(): void {
    const now = performance.now();
    const dueAt = this.#machine.dueAt(now);
    if (dueAt !== NEVER && dueAt >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = NEVER;
    if (dueAt === NEVER) return;
    const wait = Math.min(Math.max(Math.ceil(dueAt - now), 0), LOOK_MS);
    this.#timerAt = now + wait;
    this.#timer = setTimeout(() => {
      this.#timerAt = NEVER;
      this.#step((at) => this.#tick(at));
    }, wait);
  }

  #tick(now: number): void {
    if (drift(now) - this.#drift > SLEPT_MS) this.#machine.wake(now);
    this.#drift = drift(now);
    this.#machine.tick(now);
  }

  #perform(action: Action, touched: Set<S>): void {
    switch (action.do) {
      case 'open':
        return this.#open(action.url);
      case 'send':
        return this.#socket?.send(action.text);
      case 'drop':
        return this.#drop();
      case 'token':
        return void this.#askToken();
      case 'answer': {
        const waiting = this.#waiting.get(action.id);
        this.#waiting.delete(action.id);
        if ('frame' in action) waiting?.resolve(action.frame);
        else waiting?.reject(action.error);
        return;
      }
      case 'session': {
        const session = this.#sessions.get(action.session);
        if (session) touched.add(session);
        return session?.accept(action.output, action.size);
      }
      case 'changed':
        return this.#statusChanged();
    }
  }

  #open(url: string | undefined): void {
    this.#endWakeups ??= onWakeup(() => this.#step((now) => this.#machine.wake(now)));
    const WebSocket = this.#WebSocket;
    if (!WebSocket || !url) {
      const text = url ? 'pass `WebSocket` of the package `ws`, or use Node 22' : 'give the address of a gateway';
      return this.#machine.stop(new ConnectionClosed(url ? 'no_websocket' : 'no_address', text));
    }
    this.#url = url;
    const socket = new WebSocket(url, SUBPROTOCOL);
    const tell = (what: (now: number) => void) => socket === this.#socket && this.#step(what);
    const closed = (event: { code?: number; reason?: string }) =>
      tell((now) => {
        this.#socket = null;
        this.#isHeld = false;
        this.#machine.closed(event.code ?? null, event.reason ?? '', now);
      });
    socket.onopen = () => tell(() => this.#machine.opened());
    socket.onmessage = ({ data }: { data: unknown }) =>
      tell((now) => typeof data === 'string' && this.#machine.frame(data, now));
    socket.onclose = closed;
    socket.onerror = () => {}; // the close that follows says all there is to know
    this.#socket = socket;
  }

  #drop(): void {
    const socket = this.#socket;
    this.#socket = null;
    this.#isHeld = false;
    socket?.resume?.();
    socket?.close(1000);
  }

  async #askToken(): Promise<void> {
    try {
      const token = typeof this.#token === 'string' ? this.#token : await this.#token();
      this.#given = token;
      this.#step((now) => this.#machine.tokenGiven(token, now));
    } catch (error) {
      const isFinal = error instanceof AntiphonError && !error.retryable;
      this.#step((now) => this.#machine.tokenFailed(isFinal ? error : null, now));
    }
  }

  #statusChanged(): void {
    const { phase, retryAt, isLogAway, failure } = this.#machine;
    this.#status = {
      phase: PHASES[phase],
      retryAt: phase === 'waiting' ? Date.now() + retryAt - performance.now() : null,
      isLogAway,
      error: failure,
    };
    if (failure) {
      this.#endWakeups?.();
      for (const session of [...this.#sessions.values()]) session.failed(failure);
    }
    this.#changed.fire();
    for (const listener of [...this.#listeners]) listener();
  }
}

/** A client of sessions without the fold: a bot, an export, a bridge to another protocol. */
export class CoreClient extends CoreClientOf<CoreSession, ReadingOptions> {
  protected opened(host: Host, name: string, options?: ReadingOptions): CoreSession {
    return new CoreSession(host, name, options);
  }
}

const PHASES: { readonly [phase in Phase]: ConnectionStatus['phase'] } = {
  idle: 'idle',
  token: 'connecting',
  connecting: 'connecting',
  open: 'open',
  waiting: 'waiting',
  stopped: 'stopped',
};

/** The address to connect to: with the path of section 1 if it has none. Throws for what is no such address. */
function gatewayUrl(text: string): string {
  const url = new URL(text, globalThis.location?.href);
  if (!/^(http|ws)s?:$/.test(url.protocol)) throw new RangeError(`not the address of a gateway: ${text}`);
  url.protocol = url.protocol.replace('http', 'ws');
  if (url.pathname === '/') url.pathname = CONNECT_PATH;
  url.hash = '';
  return url.href;
}

/** The address of a path of the HTTP API at a gateway, whose address is that of its WebSocket. */
function httpUrl(gateway: string, path: string): string {
  const url = new URL(gateway);
  const before = url.pathname.endsWith(CONNECT_PATH) ? url.pathname.slice(0, -CONNECT_PATH.length) : '';
  return `${url.protocol.replace('ws', 'http')}//${url.host}${before}${path}`;
}

function readInfo(raw: JsonObject): SessionInfo | null {
  const session = asString(raw['session']);
  if (session === null) return null;
  return {
    session,
    title: asString(raw['title']),
    metadata: asObject(raw['metadata']) ?? {},
    createdBy: asObject<Actor>(raw['createdBy']),
    updatedAt: asInt(raw['updatedAt']),
    status: asString(raw['status']) ?? 'idle',
  };
}
