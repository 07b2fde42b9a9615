/** The token of a client: a fixed one, or one that a provider renews. Pure: times are arguments, in ms. */
import type { ConnectionClosed } from './errors.js';

export class Tokens {
  #expiresAt: number | null = null;
  /** Whether the token comes from the provider and no gateway has judged it yet. */
  #isFresh = false;
  /** What the server's clock says beyond ours. */
  #skewMs: number;

  /** `skewMs`: what to add to the times given here for those since 1970. */
  constructor(
    public token: string | null,
    readonly isRenewable: boolean,
    skewMs: number,
  ) {
    this.#skewMs = skewMs;
  }

  /** Whether a provider must be asked before the next connection. */
  isNeeded(now: number): boolean {
    const left = this.#left(now);
    return this.token === null || (this.isRenewable && left !== null && left <= 0);
  }

  /** The provider gave one. */
  renewed(token: string): void {
    this.token = token;
    this.#expiresAt = null;
    this.#isFresh = true;
  }

  /** A gateway took the token, which it says is valid until then (in seconds since 1970). */
  accepted(expiresAtS: number | null): void {
    this.#expiresAt = expiresAtS === null ? null : expiresAtS * 1000;
    this.#isFresh = false;
  }

  /** A gateway does not take the token; answers whether another one would help. */
  refused({ code }: ConnectionClosed): boolean {
    if (!this.isRenewable || (this.#isFresh && code !== 'token_expired')) return false;
    this.token = null;
    return true;
  }

  /** The server's clock said `ts`, at `now` by ours. */
  heard(ts: number, now: number): void {
    this.#skewMs = ts - now;
  }

  /** When the token should be renewed; null: it cannot, or need not be, or our clock must be wrong. */
  renewAt(now: number, beforeMs: number): number | null {
    const left = this.#left(now);
    if (!this.isRenewable || left === null || left <= 0) return null;
    return now + Math.max(left - beforeMs, left / 2);
  }

  #left(now: number): number | null {
    return this.#expiresAt === null ? null : this.#expiresAt - (now + this.#skewMs);
  }
}
