// @ts-check
/**
 * One session over one WebSocket at a time: hello, subscribe, chain, heartbeats, reconnects
 * (docs/PROTOCOL.md, sections 1, 3 and 8). Whatever ends a socket, the next one goes on after the
 * last entry that was handled.
 *
 * @typedef {import('./fold.js').Entry} Entry
 * @typedef {import('./fold.js').State} State
 * @typedef {'joining' | 'live' | 'reconnecting' | 'offline' | 'refused' | 'expired' | 'closed'} Phase
 * @typedef {{asOf: number, messagesBefore: number, state: State}} Snapshot
 * @typedef {{user: {id: string, name?: string}, heartbeat_ms: number,
 *            limits: {frame_bytes: number, input_bytes: number}}} Welcome
 * @typedef {{op: string, id?: number, code?: string, message?: string, retryable?: boolean,
 *            retry_after_ms?: number, [field: string]: any}} Frame
 * @typedef {'typing' | 'active' | 'idle' | 'away'} Presence
 * @typedef {{kind: string, id: string, name?: string, roles: string[], state: Presence,
 *            devices: {device: string, state: Presence, tools: string[]}[]}} Participant
 * @typedef {object} Handlers
 * @property {(phase: Phase, why: string) => void} phase
 * @property {(welcome: Welcome) => void} welcome
 * @property {(snapshot: Snapshot) => void} reset forget what was folded: this comes in its place
 * @property {(entry: Entry) => void} entry the next entry of the chain
 * @property {() => void} caughtUp
 * @property {(participants: Participant[]) => void} presence who is there now
 */
import { afterClose, backoffMs } from './closing.js';

const CLIENT = 'antiphon-page/0.1';
const HELLO_MS = 10_000; // to open a socket and be welcomed
const REPLY_MS = 15_000; // for any other command
const WAKE_MS = 5_000; // for a sign of life after a sleep or a change of network
const MAX_PENDING = 64; // commands that wait for their reply
const MAX_REPAIRS = 4; // of a broken chain, on one socket
const OFFLINE_AFTER = 5; // failed attempts after which the page says that it is offline

/** A command that was refused, timed out, or lost its socket (`code` `lost`: outcome unknown). */
export class CommandError extends Error {
  /** @param {Frame} frame */
  constructor(frame) {
    super(frame.message ?? frame.code ?? 'error');
    this.code = frame.code ?? 'error';
    this.retryable = frame.retryable ?? false;
    this.retryAfterMs = frame.retry_after_ms;
    this.frame = frame;
  }
}

export class Connection {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Map<number, {resolve: (frame: Frame) => void, reject: (error: CommandError) => void,
   *   timer: number}>} */ #pending = new Map();
  #nextId = 1;
  #attempt = 0;
  /** The last entry handled; null: subscribe afresh. @type {number | null} */ #last = null;
  #epoch = '';
  #isWelcome = false;
  #subscribed = false;
  #repairs = 0;
  #heartbeatMs = 25_000;
  #heardAt = 0;
  #deadAt = Infinity; // when a probe that got no answer means a dead socket
  /** @type {number | undefined} */ #beatTimer;
  /** @type {number | undefined} */ #joinTimer;

  /** @param {string} url @param {string} session @param {string} token @param {string} device
   * @param {object[]} tools that this page executes @param {Handlers} handlers */
  constructor(url, session, token, device, tools, handlers) {
    this.url = url;
    this.session = session;
    this.token = token;
    this.device = device;
    this.tools = tools;
    this.handlers = handlers;
    this.isLive = false;
  }

  /** The `seq` of the last entry handled. */
  get position() {
    return this.#last ?? 0;
  }

  /** Connects now, giving up whatever socket or waiting there is. */
  connect() {
    this.#drop();
    this.#phase(this.#waiting());
    const socket = new WebSocket(this.url, 'antiphon.v1');
    this.#socket = socket;
    this.#joinTimer = setTimeout(() => this.#lost(0, ''), HELLO_MS);
    socket.onopen = () => void this.#join();
    socket.onmessage = (message) => this.#receive(message.data);
    socket.onclose = (close) => this.#lost(close.code, close.reason);
  }

  /** After a sleep, a change of network, or a press of "try now": is the socket still there? */
  wake() {
    if (this.isLive) this.#probe(WAKE_MS);
    else if (!this.#socket && this.#joinTimer !== undefined) this.connect();
  }

  /** Whether commands can be sent: `input.send` needs no subscription. */
  get isOpen() {
    return this.#isWelcome;
  }

  /** Sends a command. Rejects with `CommandError`. @param {string} op
   * @param {Record<string, unknown>} fields @returns {Promise<Frame>} */
  request(op, fields) {
    if (this.#socket?.readyState !== WebSocket.OPEN || this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new CommandError({ op: 'error', code: 'lost', retryable: true }));
    }
    const id = this.#nextId++;
    this.#socket.send(JSON.stringify({ op, id, ...fields }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => this.#settle({ op: 'error', id, code: 'timeout', retryable: true }), REPLY_MS);
      this.#pending.set(id, { resolve, reject, timer });
    });
  }

  async #join() {
    try {
      const welcome = /** @type {Frame & Welcome} */ (
        await this.request('hello', { token: this.token, client: CLIENT, device: this.device }));
      clearTimeout(this.#joinTimer);
      this.#joinTimer = undefined;
      this.#isWelcome = true;
      this.#heartbeatMs = welcome.heartbeat_ms;
      this.#beat();
      this.handlers.welcome(welcome);
      await this.#subscribe();
    } catch (error) {
      this.#notJoined(/** @type {CommandError} */ (error));
    }
  }

  /** Subscribes after the last entry handled. The continuation runs before the next frame's event
   * (microtasks come first), so no entry is met in between. */
  async #subscribe() {
    const after = this.#last === null ? {} : { after: `${this.#epoch}:${this.#last}` };
    const tools = this.tools.length ? { tools: this.tools } : {};
    const reply = await this.request('subscribe', { session: this.session, acks: true, ...after, ...tools });
    this.#epoch = reply.epoch;
    this.#subscribed = true;
  }

  /** @param {CommandError} error of hello or subscribe */
  #notJoined(error) {
    if (error.code === 'lost') return; // its close says what to do
    if (error.code.startsWith('cursor_')) {
      this.#last = null;
      this.#subscribeIn(0);
    } else if (!error.retryable) {
      this.#drop();
      this.#phase('refused', error.code);
    } else if (!this.#isWelcome || error.code === 'timeout') {
      this.#lost(0, '');
    } else {
      this.#phase('reconnecting', error.code);
      this.#subscribeIn(error.retryAfterMs ?? backoffMs(this.#attempt++, Math.random()));
    }
  }

  /** @param {number} delayMs */
  #subscribeIn(delayMs) {
    this.#joinTimer = setTimeout(() => {
      this.#subscribe().catch((error) => this.#notJoined(error));
    }, delayMs);
  }

  /** @param {unknown} data */
  #receive(data) {
    this.#heardAt = performance.now();
    this.#deadAt = Infinity;
    /** @type {Frame} */ let frame;
    try {
      frame = JSON.parse(String(data));
    } catch {
      return this.#lost(0, '');
    }
    if (frame.op === 'ok' || frame.op === 'error' || frame.op === 'welcome') return this.#settle(frame);
    if (frame.session !== this.session || !this.#subscribed) return;
    if (frame.op === 'entry') this.#entry(/** @type {any} */ (frame));
    else if (frame.op === 'session.snapshot') this.#snapshot(/** @type {any} */ (frame));
    else if (frame.op === 'session.gap') this.#last = null; // a snapshot follows
    else if (frame.op === 'session.caught_up') this.#caughtUp();
    else if (frame.op === 'session.mark') this.#acknowledge(frame.seq);
    else if (frame.op === 'session.presence') this.handlers.presence(frame.participants);
  }

  /** @param {Frame} frame a reply */
  #settle(frame) {
    const waiting = this.#pending.get(frame.id ?? -1);
    if (!waiting) return;
    this.#pending.delete(frame.id ?? -1);
    clearTimeout(waiting.timer);
    if (frame.op === 'error') waiting.reject(new CommandError(frame));
    else waiting.resolve(frame);
  }

  /** @param {Snapshot} snapshot */
  #snapshot(snapshot) {
    this.handlers.reset(snapshot);
    this.#last = snapshot.asOf;
  }

  #caughtUp() {
    this.#attempt = 0;
    this.#phase('live');
    this.handlers.caughtUp();
  }

  /** The chain: each entry once, none left out. @param {Entry} entry */
  #entry(entry) {
    if (this.#last === null || entry.seq <= this.#last) return;
    if (entry.prev !== this.#last) return void this.#repair();
    this.handlers.entry(entry);
    this.#last = entry.seq;
  }

  /** The gateway measures how late entries are seen: it asks now and then. What came before is handled when the browser
   * has drawn it. A page that is hidden draws nothing, and does not answer. @param {number} seq */
  #acknowledge(seq) {
    const socket = this.#socket;
    if (document.hidden) return;
    requestAnimationFrame(() => {
      if (socket !== this.#socket || document.hidden) return;
      this.request('ack', { session: this.session, seq }).catch(() => {});
    });
  }

  /** Something is missing. Subscribes again after the last good entry; if that does not help,
   * from a snapshot; then on a new socket. */
  async #repair() {
    this.#subscribed = false;
    this.#repairs += 1;
    if (this.#repairs > MAX_REPAIRS) return this.#lost(0, '');
    if (this.#repairs > 1) this.#last = null;
    try {
      await this.request('unsubscribe', { session: this.session });
      await this.#subscribe();
    } catch (error) {
      this.#notJoined(/** @type {CommandError} */ (error));
    }
  }

  /** A browser shows no pings, so silence is answered by a ping of our own. */
  #beat() {
    clearTimeout(this.#beatTimer);
    const now = performance.now();
    const quietMs = now - this.#heardAt;
    if (now >= this.#deadAt) return this.#lost(0, '');
    if (this.#deadAt === Infinity && quietMs >= this.#heartbeatMs) return this.#probe(this.#heartbeatMs);
    const waitMs = this.#deadAt === Infinity ? this.#heartbeatMs - quietMs : this.#deadAt - now;
    this.#beatTimer = setTimeout(() => this.#beat(), waitMs);
  }

  /** @param {number} patienceMs */
  #probe(patienceMs) {
    this.#deadAt = Math.min(this.#deadAt, performance.now() + patienceMs);
    this.#socket?.send(JSON.stringify({ op: 'ping', id: this.#nextId++ }));
    this.#beat();
  }

  /** @param {number} code 0: we gave the socket up @param {string} reason */
  #lost(code, reason) {
    this.#drop();
    const plan = afterClose(code, reason, this.#attempt, Math.random());
    if (plan.next !== 'reconnect') return this.#phase(plan.next, plan.why);
    this.#attempt += 1;
    this.#phase(this.#waiting());
    this.#joinTimer = setTimeout(() => this.connect(), plan.delayMs);
  }

  /** @returns {Phase} */
  #waiting() {
    if (this.#attempt >= OFFLINE_AFTER || !navigator.onLine) return 'offline';
    return this.#attempt ? 'reconnecting' : 'joining';
  }

  /** Lets go of the socket; its late events are not heard. */
  #drop() {
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#joinTimer);
    this.#beatTimer = this.#joinTimer = undefined;
    this.#deadAt = Infinity;
    this.#isWelcome = this.#subscribed = false;
    this.#repairs = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const id of [...this.#pending.keys()]) {
      this.#settle({ op: 'error', id, code: 'lost', retryable: true });
    }
  }

  /** @param {Phase} phase @param {string} [why] */
  #phase(phase, why = '') {
    this.isLive = phase === 'live';
    this.handlers.phase(phase, why);
  }
}
