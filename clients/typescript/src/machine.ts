/**
 * The life of a client's connection as a state machine, without any input or output: it is told what has happened, and
 * says what to do (`take`) and when it wants to be called again (`dueAt`). Times are ms by any clock that does not go
 * back; random numbers come from `rand`.
 *
 *     idle ──► token ──► connecting ── welcome ──► open
 *               ▲  └────────┐ │                     │
 *               │           ▼ ▼                     │ the socket ends
 *               └──────── waiting ◄─────────────────┘        … ──► stopped: there is no sense in coming back
 */
import type { Action, MachineOptions, Phase } from './actions.js';
import { Commands } from './commands.js';
import { type AntiphonError, ConnectionClosed, refusal } from './errors.js';
import { asBounded, asString, type JsonObject, parseObject } from './json.js';
import { type PresenceState, readExpiry, readWelcome, type Welcome } from './protocol.js';
import { type Advice, closeAdvice, fullJitterMs, LOST } from './reconnect.js';
import type { Output, Subscription } from './subscription.js';
import { Tokens } from './tokens.js';

/** A subscription, and what the machine keeps beside it. */
interface Followed {
  readonly sub: Subscription;
  says: PresenceState;
  /** The subscription has been answered, once. */
  isSettled: boolean;
  pauses: number;
  retryAt: number | null;
}

const NEVER = Number.POSITIVE_INFINITY;
/** A call that comes so much too late was held up by a sleep. */
const LATE_MS = 5000;

export class Machine {
  phase: Phase = 'idle';
  /** What the gateway said of itself, its limits and the user; the latest one. */
  welcome: Welcome | null = null;
  /** Why the machine has stopped. */
  failure: AntiphonError | null = null;
  /** The gateway cannot reach the log. */
  isLogAway = false;
  /** When the next attempt is made, while waiting. */
  retryAt = NEVER;
  readonly commands: Commands;
  readonly #options: MachineOptions;
  readonly #tokens: Tokens;
  readonly #sessions = new Map<string, Followed>();
  #actions: Action[] = [];
  #attempts = 0;
  #url = 0;
  #isAsking = false;
  /** The gateway chose the time of the next attempt. */
  #isTold = false;
  #deadline = NEVER;
  #openedAt = 0;
  #heardAt = 0;
  /** When the gateway must have answered a probe. */
  #probeUntil = NEVER;
  #renewAt = NEVER;
  #isHeld = false;
  #greeting: AntiphonError | null = null;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.#tokens = new Tokens(options.token, options.isRenewable, options.skewMs);
    this.commands = new Commands(options.settings, options.rand, (answer) => this.#do({ do: 'answer', ...answer }));
  }

  /** What is to be done now, in order. */
  take(now: number): Action[] {
    if (this.phase === 'open') this.#pump(now);
    const actions = this.#actions;
    this.#actions = [];
    return actions;
  }

  /** When to call `tick`, at the latest; infinite: never. */
  dueAt(now: number): number {
    switch (this.phase) {
      case 'waiting':
        return this.retryAt;
      case 'token':
      case 'connecting':
        return this.#deadline;
      case 'open': {
        let dueAt = Math.min(this.#silentAt, this.#probeUntil, this.#renewAt, this.commands.dueAt(now));
        for (const { retryAt } of this.#sessions.values()) dueAt = Math.min(dueAt, retryAt ?? NEVER);
        return dueAt;
      }
      default:
        return NEVER;
    }
  }

  // ---- what the program does

  /** Somebody needs the connection. */
  start(now: number): void {
    if (this.phase === 'idle') this.#attempt(now);
  }

  /** Ends it for good, because of `error`. */
  stop(error: AntiphonError): void {
    if (this.failure) return;
    const hadSocket = this.phase === 'connecting' || this.phase === 'open';
    this.failure = error;
    this.#to('stopped');
    if (hadSocket) this.#do({ do: 'drop' });
    this.commands.fail(error);
    for (const { sub } of this.#sessions.values()) this.#tell(sub.session, { type: 'refused', error }, 0);
  }

  follow(sub: Subscription): void {
    this.#sessions.set(sub.session, { sub, says: 'active', isSettled: false, pauses: 0, retryAt: null });
  }

  /** The session is closed: nothing of it is told any more. Its subscription, if there is one, ends. */
  forget(sub: Subscription): void {
    sub.isWanted = false;
    if (sub.phase === 'off') this.#sessions.delete(sub.session);
  }

  /** What the user is doing on this device; said again after each reconnect. */
  say(session: string, state: PresenceState): void {
    const followed = this.#sessions.get(session);
    if (!followed || followed.says === state) return;
    followed.says = state;
    if (followed.sub.phase === 'live') this.#sayAgain(followed);
  }

  /** There is reason to doubt the connection (a sleep, another network), or to think that it can be had again. */
  wake(now: number): void {
    const until = now + this.#options.settings.livenessTimeoutMs;
    this.#attempts = 0;
    if (this.phase === 'open') this.#probe(now, until);
    else if (this.phase === 'waiting' && !this.#isTold) this.#attempt(now);
    else if (this.phase === 'connecting') this.#deadline = Math.min(this.#deadline, until);
  }

  /** Whether the socket is left unread for a while, so that its silence says nothing. */
  hold(isHeld: boolean, now: number): void {
    this.#isHeld = isHeld;
    this.#heardAt = now;
    this.#probeUntil = NEVER;
  }

  // ---- what happens

  tick(now: number): void {
    const dueAt = this.dueAt(now);
    if (now > dueAt + LATE_MS) this.wake(now);
    if (now < dueAt) return;
    if (this.phase === 'waiting') this.#attempt(now);
    else if (this.phase === 'token') this.#wait(now, LOST);
    else if (this.phase === 'connecting') this.#ended(now, LOST);
    else if (this.phase === 'open') this.#tickOpen(now);
  }

  #tickOpen(now: number): void {
    if (now >= this.#probeUntil) return this.#ended(now, LOST);
    if (now >= this.#silentAt) {
      const { livenessTimeoutMs } = this.#options.settings;
      this.#probe(now, Math.max(this.#heardAt + 2 * this.#heartbeatMs, now + livenessTimeoutMs));
    }
    if (now >= this.#renewAt) {
      this.#renewAt = NEVER;
      this.#askToken();
    }
  }

  tokenGiven(token: string, now: number): void {
    this.#isAsking = false;
    this.#tokens.renewed(token);
    if (this.phase === 'token') this.#connect(now);
    else if (this.phase === 'open') this.commands.post({ op: 'auth.refresh', token }, this.#onRefreshed);
  }

  /** `error`: the provider's own word that there is no sense in going on; null: asking again later may help. */
  tokenFailed(error: AntiphonError | null, now: number): void {
    this.#isAsking = false;
    if (this.phase === 'open') return; // the connection ends with the present token, and then it is asked again
    if (error) this.stop(error);
    else if (this.phase === 'token') this.#wait(now, LOST);
  }

  /** The socket is open. */
  opened(): void {
    const { client, device } = this.#options;
    const id = this.commands.nextId();
    const text = JSON.stringify({ op: 'hello', id, token: this.#tokens.token, client, device });
    this.#do({ do: 'send', text });
  }

  /** The socket has ended; null: without a close frame. */
  closed(code: number | null, reason: string, now: number): void {
    const isAbrupt = code === null || code === 1005 || code === 1006;
    if (this.phase !== 'stopped') this.#ended(now, isAbrupt ? LOST : closeAdvice(code, reason), false);
  }

  /** A text frame has come. */
  frame(text: string, now: number): void {
    const frame = parseObject(text);
    if (!frame) return this.#ended(now, LOST);
    this.#heardAt = now;
    // What had been on its way is no answer to a probe; but while it comes, the answer may be behind it.
    if (this.#probeUntil !== NEVER) {
      this.#probeUntil = Math.max(this.#probeUntil, now + this.#options.settings.livenessTimeoutMs);
    }
    const op = frame['op'];
    if (this.phase === 'connecting') {
      if (op === 'welcome') this.#welcomed(readWelcome(frame), now);
      else if (op === 'error') this.#greeting = refusal(frame); // the close that follows says what to do
    } else if (this.phase === 'open') this.#take(frame, op, text.length, now);
  }

  #take(frame: JsonObject, op: unknown, size: number, now: number): void {
    if (op === 'ok' || op === 'error' || op === 'pong') {
      if (this.commands.reply(frame, now)) this.#attempts = 0;
    } else if (op === 'log.away' || op === 'log.back') {
      this.isLogAway = op === 'log.away';
      this.#do({ do: 'changed' });
    } else {
      const followed = this.#sessions.get(asString(frame['session']) ?? '');
      if (followed) this.#hand(followed, followed.sub.frame(frame), size, now);
    }
  }

  /** Passes on what a frame or a reply means to a session. */
  #hand(followed: Followed, outputs: readonly Output[], size: number, now: number): void {
    const { settings, rand } = this.#options;
    for (const output of outputs) {
      if (output.type === 'pause') {
        const own = fullJitterMs(followed.pauses, rand(), settings.backoffBaseMs, settings.backoffCapMs);
        followed.retryAt = now + (output.retryAfterMs ?? own);
        followed.pauses += 1;
        continue;
      }
      if (output.type === 'entry' || output.type === 'caught_up') {
        this.#attempts = 0;
        followed.pauses = 0;
      }
      if (output.type === 'refused') followed.isSettled = true;
      this.#tell(followed.sub.session, output, size);
    }
  }

  // ---- the connection's life

  #attempt(now: number): void {
    this.retryAt = NEVER;
    if (!this.#tokens.isNeeded(now)) return this.#connect(now);
    this.#to('token');
    this.#deadline = now + this.#options.settings.connectTimeoutMs;
    this.#askToken();
  }

  #askToken(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    this.#do({ do: 'token' });
  }

  #connect(now: number): void {
    this.#to('connecting');
    this.#greeting = null;
    this.#deadline = now + this.#options.settings.connectTimeoutMs;
    this.#do({ do: 'open', url: this.#options.urls[this.#url] });
  }

  #welcomed(welcome: Welcome, now: number): void {
    this.welcome = welcome;
    this.isLogAway = false;
    this.#openedAt = now;
    this.#to('open');
    this.commands.connected(welcome.limits);
    this.#accepted(welcome.tokenExpiresAt, now);
    if (this.#options.isRenewable) this.#ping(false); // for the gateway's clock
  }

  /** Subscribes, and sends what waits. */
  #pump(now: number): void {
    for (const followed of this.#sessions.values()) {
      if (followed.retryAt !== null && followed.retryAt > now) continue;
      followed.retryAt = null;
      const { sub } = followed;
      const command = sub.command();
      if (command) this.commands.post(command, (frame, at) => this.#subReplied(followed, frame, at));
      else if (sub.phase === 'off' && !sub.isWanted) this.#sessions.delete(sub.session);
    }
    for (const text of this.commands.take(now, this.#isSettled)) this.#do({ do: 'send', text });
  }

  readonly #isSettled = (session: string): boolean => {
    const followed = this.#sessions.get(session);
    return !followed?.sub.isWanted || followed.isSettled;
  };

  #subReplied(followed: Followed, frame: JsonObject, now: number): void {
    this.#hand(followed, followed.sub.reply(frame), 0, now);
    if (followed.sub.phase !== 'live') return;
    followed.isSettled = true;
    if (followed.says !== 'active') this.#sayAgain(followed);
  }

  #sayAgain({ sub: { session }, says: state }: Followed): void {
    this.commands.post({ op: 'presence.set', session, state }, () => {});
  }

  /** The connection has ended, by itself or (`drop`) because we do not want it any more. */
  #ended(now: number, advice: Advice, drop = true): void {
    const wasOpen = this.phase === 'open';
    if (drop) this.#do({ do: 'drop' });
    if (wasOpen && now - this.#openedAt >= this.#options.settings.stableAfterMs) this.#attempts = 0;
    this.#probeUntil = NEVER;
    this.#renewAt = NEVER;
    this.#isHeld = false;
    this.commands.lost();
    for (const followed of [...this.#sessions.values()]) {
      followed.sub.lost();
      followed.retryAt = null;
      if (wasOpen) this.#tell(followed.sub.session, { type: 'lost' }, 0);
    }
    const final = this.#judge(advice);
    if (final) this.stop(final);
    else this.#wait(now, advice);
  }

  /** What ends the machine, if anything does. */
  #judge({ action, closeCode, code: closed }: Advice): AntiphonError | null {
    const code = action === 'new_token' ? 'token_expired' : (this.#greeting?.code ?? closed);
    const error = new ConnectionClosed(code, this.#greeting?.message ?? `closed with ${closeCode}`, closeCode);
    if (action === 'new_token' || code === 'unauthorized') return this.#tokens.refused(error) ? null : error;
    return action === 'never' ? error : null;
  }

  #wait(now: number, { retryAfterMs }: Advice): void {
    const { settings, rand, urls } = this.#options;
    this.#url = (this.#url + 1) % (urls.length || 1);
    const own = fullJitterMs(this.#attempts, rand(), settings.backoffBaseMs, settings.backoffCapMs);
    this.#attempts += 1;
    this.#isTold = retryAfterMs !== null;
    this.retryAt = now + (retryAfterMs ?? own);
    this.#to('waiting');
  }

  // ---- liveness and the token

  get #heartbeatMs(): number {
    return this.welcome?.heartbeatMs ?? NEVER;
  }

  /** When the gateway will have been silent for so long that it is asked whether it is there. */
  get #silentAt(): number {
    return this.#isHeld || this.#probeUntil !== NEVER ? NEVER : this.#heardAt + this.#heartbeatMs;
  }

  #probe(now: number, until: number): void {
    if (this.#probeUntil === NEVER || now > this.#probeUntil) this.#ping(true);
    this.#probeUntil = Math.min(this.#probeUntil > now ? this.#probeUntil : NEVER, until);
  }

  #ping(isProbe: boolean): void {
    this.commands.post({ op: 'ping' }, isProbe ? this.#onAlive : this.#onPong, isProbe);
  }

  readonly #onAlive = (frame: JsonObject, now: number): void => {
    this.#probeUntil = NEVER;
    this.#onPong(frame, now);
  };

  readonly #onPong = (frame: JsonObject, now: number): void => {
    const ts = asBounded(frame['ts'], 1e15);
    if (ts === null) return;
    this.#tokens.heard(ts, now);
    if (!this.#isAsking) this.#planRenewal(now);
  };

  readonly #onRefreshed = (frame: JsonObject, now: number): void => {
    // a token that is refused leaves the present one in place: the connection ends with it
    if (frame['op'] === 'ok') this.#accepted(readExpiry(frame), now);
  };

  #accepted(expiresAtS: number | null, now: number): void {
    this.#tokens.accepted(expiresAtS);
    this.#planRenewal(now);
  }

  #planRenewal(now: number): void {
    this.#renewAt = this.#tokens.renewAt(now, this.#options.settings.refreshBeforeMs) ?? NEVER;
  }

  #to(phase: Phase): void {
    this.phase = phase;
    this.#do({ do: 'changed' });
  }

  #tell(session: string, output: Output, size: number): void {
    this.#do({ do: 'session', session, output, size });
  }

  #do(action: Action): void {
    this.#actions.push(action);
  }
}
