/** A network without a network: sockets whose other end a test plays. It says what the test says, mistakes too. */

import type { JsonObject } from '../../src/json.js';
import type { WebSocketConstructor, WebSocketLike } from '../../src/options.js';

export type Frame = Record<string, unknown>;

export const EPOCH = 'mb1x9k';
const LIMITS = { frame_bytes: 131_072, input_bytes: 65_536, commands_per_second: 100_000, commands_burst: 100_000 };

/** The client's end. */
class Socket implements WebSocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly peer: Peer;
  /** Of sockets that can be left unread, as those of `ws`. */
  readonly pause?: () => void;
  readonly resume?: () => void;
  isPaused = false;
  #unread: string[] = [];

  constructor(network: Network, url: string) {
    if (network.canPause) {
      this.pause = () => {
        this.isPaused = true;
      };
      this.resume = () => {
        this.isPaused = false;
        // like a stream: not while whoever resumes it is still at work
        queueMicrotask(() => this.come());
      };
    }
    this.peer = new Peer(this, url);
    network.connected(this.peer);
  }

  come(...texts: string[]): void {
    this.#unread.push(...texts);
    while (!this.isPaused && this.#unread.length) this.onmessage?.({ data: this.#unread.shift() } as never);
  }

  send(text: string): void {
    this.peer.heard(JSON.parse(text));
  }

  close(code?: number): void {
    this.peer.closedBy(code ?? 1005);
  }
}

/** The gateway's end of one connection. */
export class Peer {
  /** Every frame of the client so far, pings too. */
  readonly all: Frame[] = [];
  closeCode: number | null = null;
  answersPings = true;
  readonly #frames: Frame[] = [];
  #wake: (() => void) | null = null;

  constructor(
    readonly socket: Socket,
    readonly url: string,
  ) {}

  heard(frame: Frame): void {
    this.all.push(frame);
    if (frame['op'] === 'ping' && this.answersPings) {
      queueMicrotask(() => this.send({ op: 'pong', id: frame['id'], ts: Date.now() }));
      return;
    }
    this.#frames.push(frame);
    this.#wake?.();
  }

  closedBy(code: number): void {
    this.closeCode = code;
    this.#wake?.();
  }

  /** The client's next frame; pings are answered beside. */
  async receive(): Promise<Frame> {
    while (!this.#frames.length) {
      if (this.closeCode !== null) throw new Error(`the client closed with ${this.closeCode}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#frames.shift() as Frame;
  }

  /** The client's next frame, which must have these fields (null: not have). */
  async expect(op: string, fields: JsonObject = {}): Promise<Frame> {
    const frame = await this.receive();
    for (const [name, value] of Object.entries({ ...fields, op })) {
      const found = frame[name] ?? null;
      if (JSON.stringify(found) !== JSON.stringify(value))
        throw new Error(`expected ${op}, got ${JSON.stringify(frame)}`);
    }
    return frame;
  }

  /** Whether nothing waits to be received. */
  get isQuiet(): boolean {
    return this.#frames.length === 0;
  }

  send(...frames: JsonObject[]): void {
    this.socket.come(...frames.map((frame) => JSON.stringify(frame)));
  }

  ok(command: Frame, fields: JsonObject = {}): void {
    this.send({ op: 'ok', id: command['id'], ...fields });
  }

  error(command: Frame, code: string, fields: JsonObject = {}): void {
    this.send({ op: 'error', id: command['id'], code, message: `no: ${code}`, retryable: false, ...fields });
  }

  async welcome(token = 't1', fields: JsonObject = {}): Promise<Frame> {
    const hello = await this.expect('hello', { token });
    const user = { id: 'user-1', name: 'A user' };
    const body = { op: 'welcome', protocol: 1, gateway: 'gw', connection: 'c', heartbeat_ms: 25_000, limits: LIMITS };
    this.send({ ...body, id: hello['id'], user, ...fields });
    return hello;
  }

  /** Takes `subscribe` and answers it with `ok` alone. */
  async subscribed(after: string | null = null, session = 'demo'): Promise<Frame> {
    const command = await this.expect('subscribe', { session, after });
    this.ok(command, { session, epoch: EPOCH, head: 0 });
    return command;
  }

  /** Welcomes the client, and lets it read a session from a snapshot on. */
  async opened(asOf = 0, state: JsonObject = {}, session = 'demo'): Promise<void> {
    await this.welcome();
    await this.subscribed(null, session);
    this.send(snapshot(asOf, state, session), caughtUp(asOf, session));
  }

  /** Takes `input.send` and answers that it is stored. */
  async takeInput(seq: number, fields: JsonObject = {}): Promise<string> {
    const command = await this.expect('input.send');
    const inputId = command['inputId'] as string;
    const reply = { inputId, runId: `run_${inputId}`, seq, status: 'queued', position: 1, duplicate: false };
    this.ok(command, { ...reply, ...fields });
    return inputId;
  }

  close(code: number, reason: JsonObject = {}): void {
    this.socket.onclose?.({ code, reason: JSON.stringify(reason) } as never);
  }

  /** The connection ends without a word. */
  cut(): void {
    this.socket.onclose?.({ code: 1006, reason: '' } as never);
  }
}

export class Network {
  readonly peers: Peer[] = [];
  readonly WebSocket: WebSocketConstructor;
  canPause = false;
  readonly #waiting: Peer[] = [];
  #wake: (() => void) | null = null;

  constructor() {
    const network = this;
    this.WebSocket = class extends Socket {
      constructor(url: string, protocols: string) {
        if (protocols !== 'antiphon.v1') throw new Error(`subprotocol ${protocols}`);
        super(network, url);
      }
    };
  }

  connected(peer: Peer): void {
    this.peers.push(peer);
    this.#waiting.push(peer);
    this.#wake?.();
  }

  /** The next connection, which is opened. `false`: it is left opening. */
  async accept(isOpened = true): Promise<Peer> {
    while (!this.#waiting.length) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const peer = this.#waiting.shift() as Peer;
    if (isOpened) peer.socket.onopen?.({} as never);
    return peer;
  }
}

// ---- frames of the session `demo`

export function entry(seq: number, prev: number, events: JsonObject[], fields: JsonObject = {}): Frame {
  return { op: 'entry', session: 'demo', seq, prev, id: `1-${seq}`, lane: 'main', ts: seq, events, ...fields };
}

export function sent(seq: number, prev: number, inputId: string, content = 'hi', fields: JsonObject = {}): Frame {
  const event = { type: 'input.sent', inputId, content };
  const { lane: _, ...frame } = entry(seq, prev, [event], {
    id: inputId,
    by: { kind: 'user', id: 'user-1' },
    ...fields,
  });
  return frame;
}

export function delta(seq: number, prev: number, off: number, text: string): Frame {
  return entry(seq, prev, [{ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm1', delta: text }], { off });
}

export const START = { type: 'TEXT_MESSAGE_START', messageId: 'm1', role: 'assistant' };
export const END = { type: 'TEXT_MESSAGE_END', messageId: 'm1' };

export const started = (seq: number, prev: number, inputId = 'i'): Frame =>
  entry(seq, prev, [{ type: 'RUN_STARTED', threadId: 'demo', runId: `run_${inputId}` }]);

export const applied = (seq: number, prev: number, inputId = 'i'): Frame =>
  entry(seq, prev, [{ type: 'input.applied', inputId, runId: `run_${inputId}`, messageId: `msg_${inputId}` }]);

export const finished = (seq: number, prev: number, inputId = 'i', type = 'success'): Frame =>
  entry(seq, prev, [{ type: 'RUN_FINISHED', threadId: 'demo', runId: `run_${inputId}`, outcome: { type } }]);

/** A snapshot whose lane `main` has an owner under fence 1. */
export function snapshot(asOf = 0, state: JsonObject = {}, session = 'demo', messagesBefore = 0): Frame {
  const lanes = { main: { owner: { kind: 'agent', id: 'w' }, fence: 1, run: null, can: [], paused: null } };
  const full = { status: 'idle', lanes, runs: [], inputs: [], ...state };
  return { op: 'session.snapshot', session, asOf, messagesBefore, state: full };
}

export const caughtUp = (seq: number, session = 'demo'): Frame => ({
  op: 'session.caught_up',
  session,
  seq,
  cursor: `${EPOCH}:${seq}`,
});

/** Until `holds`; bounded by the test's time-out. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 1));
}
