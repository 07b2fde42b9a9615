// @ts-check
/**
 * Messages on their way: kept, in order, until the server has stored them. They survive a lost
 * socket and a reload of the tab; sending one again with its id is always safe (section 7).
 *
 * @typedef {{inputId: string, content: string, mode?: string, tries: number,
 *            state: 'waiting' | 'sending' | 'stored' | 'failed', why: string, seq: number}} Item
 * @typedef {import('./connection.js').CommandError} CommandError
 */
import { backoffMs } from './closing.js';

const MAX_ITEMS = 32;
const MAX_TRIES = 10;

export class Outbox {
  /** @type {Item[]} */ items = [];
  /** @type {number | undefined} */ #timer;

  /** @param {string} key of the storage @param {Storage | null} storage
   * @param {(item: Item) => Promise<import('./connection.js').Frame> | null} send null: not connected now
   * @param {() => void} changed */
  constructor(key, storage, send, changed) {
    this.key = key;
    this.storage = storage;
    this.send = send;
    this.changed = changed;
    this.items = this.#load();
  }

  get isFull() {
    return this.items.length >= MAX_ITEMS;
  }

  /** @param {string} content @param {string} [mode] without it the session's counts */
  add(content, mode) {
    this.items.push({ inputId: newId(), content, mode, tries: 0, state: 'waiting', why: '', seq: 0 });
    this.#moved();
    this.pump();
  }

  /** Sends the next one; one at a time, so that they arrive in the order in which they were sent. */
  async pump() {
    const item = this.items.find((candidate) => candidate.state === 'waiting');
    if (!item || this.items.some((candidate) => candidate.state === 'sending')) return;
    const reply = this.send(item);
    if (!reply) return;
    clearTimeout(this.#timer);
    item.state = 'sending';
    item.tries += 1;
    this.#moved();
    try {
      item.seq = (await reply).seq ?? 0;
      item.state = 'stored';
    } catch (error) {
      if (!this.#hasFailed(item, /** @type {CommandError} */ (error))) return this.#moved();
    }
    this.#moved();
    this.pump();
  }

  /** @param {Item} item @param {CommandError} error @returns {boolean} false: it is sent again */
  #hasFailed(item, { code, retryable, retryAfterMs }) {
    const isFinal = !retryable || code === 'queue_full' || item.tries >= MAX_TRIES;
    item.state = isFinal && code !== 'lost' ? 'failed' : 'waiting';
    item.why = code;
    if (item.state === 'failed') return true;
    if (code === 'lost') return false; // the next socket pumps
    this.#timer = setTimeout(() => this.pump(), retryAfterMs ?? backoffMs(item.tries, Math.random()));
    return false;
  }

  /** Forgets what the log has shown. @param {(item: Item) => boolean} isShown */
  settle(isShown) {
    const left = this.items.filter((item) => item.state === 'failed' || !isShown(item));
    if (left.length === this.items.length) return;
    this.items = left;
    this.#moved();
  }

  /** A refused message again, as a new one: its id is spent. @param {string} inputId
   * @param {string} [mode] */
  retry(inputId, mode) {
    const item = this.items.find((candidate) => candidate.inputId === inputId);
    if (item) Object.assign(item, { inputId: newId(), mode, state: 'waiting', tries: 0, why: '' });
    this.#moved();
    this.pump();
  }

  /** @param {string} inputId */
  discard(inputId) {
    this.items = this.items.filter((item) => item.inputId !== inputId);
    this.#moved();
  }

  #moved() {
    const kept = this.items.filter((item) => item.state !== 'stored');
    try {
      this.storage?.setItem(this.key, JSON.stringify(kept));
    } catch {
      // Storage full or forbidden: the page's own memory still holds them.
    }
    this.changed();
  }

  /** @returns {Item[]} */
  #load() {
    try {
      const kept = JSON.parse(this.storage?.getItem(this.key) ?? '[]');
      return kept.map((/** @type {Item} */ item) => (item.state === 'sending' ? { ...item, state: 'waiting' } : item));
    } catch {
      return [];
    }
  }
}

/** @returns {string} an id that nobody else has made */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // not a secure context: plain http
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
