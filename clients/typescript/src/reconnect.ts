/**
 * When and where to come back (PROTOCOL, section 8), and how fast to send. Pure: times and random numbers are arguments.
 */
import { asString, parseObject } from './json.js';
import { readPause } from './protocol.js';

/**
 * Milliseconds to wait before try number `attempt` (from 0): random(0, min(cap, base · 2ⁿ)). `rand` is in [0, 1). Full
 * jitter spreads clients best; see "Exponential Backoff And Jitter" of the AWS Architecture Blog.
 */
export const fullJitterMs = (attempt: number, rand: number, baseMs = 250, capMs = 30_000): number =>
  rand * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 64));

/** What the end of a connection says to do; `retryAfterMs` is null where the gateway gave no time. */
export interface Advice {
  readonly action: 'reconnect' | 'new_token' | 'never';
  readonly closeCode: number | null;
  readonly code: string;
  readonly retryAfterMs: number | null;
}

/** A socket that just ended. */
export const LOST: Advice = { action: 'reconnect', closeCode: null, code: 'lost', retryAfterMs: null };

/** What a close frame says to do. */
export function closeAdvice(closeCode: number, reason: string): Advice {
  const body = parseObject(reason);
  const kind = Math.floor(closeCode / 100);
  const isEnd = closeCode === 1000 || closeCode === 1001 || closeCode === 1009 || kind === 44;
  const action = isEnd ? 'never' : kind === 43 ? 'new_token' : 'reconnect';
  return { action, closeCode, code: asString(body?.['code']) || 'closed', retryAfterMs: readPause(body) };
}

/**
 * Spaces commands out so that a gateway's limit is never met (a flood is cut off for good).
 *
 * The generic cell rate algorithm (ITU-T I.371): a burst at once, then an even rate. Both are taken a tenth below what
 * the gateway states, because the way there may bunch frames.
 */
export class Pacer {
  readonly #gapMs: number;
  readonly #burstMs: number;
  #next = 0;

  constructor(perSecond: number, burst: number) {
    this.#gapMs = 1000 / (0.9 * Math.max(perSecond, 1));
    this.#burstMs = this.#gapMs * Math.max(Math.floor(0.9 * burst) - 1, 0);
  }

  /** When the next command may go, at the earliest now. */
  dueAt(now: number): number {
    return Math.max(now, this.#next - this.#burstMs);
  }

  /** One goes now. */
  take(now: number): void {
    this.#next = Math.max(this.#next, now) + this.#gapMs;
  }
}
