// @ts-check
/**
 * What this page says of who sits before it: typing, active, idle or away. Said only when it
 * changes; a subscription begins as `active`.
 *
 * @typedef {import('./connection.js').Presence} Presence
 */

const TYPING_MS = 4_000; // after the last key
const IDLE_MS = 120_000; // after the last sign of life

export class Reporter {
  #typedAt = -Infinity;
  #touchedAt = performance.now();
  /** @type {Presence | null} null: not subscribed */ #said = null;
  /** @type {number | undefined} */ #timer;

  /** @param {(state: Presence) => Promise<unknown>} say */
  constructor(say) {
    this.say = say;
    const touched = () => this.#touched();
    for (const name of ['pointerdown', 'keydown', 'wheel']) document.addEventListener(name, touched, { passive: true });
    document.addEventListener('visibilitychange', touched);
  }

  joined() {
    this.#said = 'active';
    this.#update();
  }

  left() {
    this.#said = null;
  }

  /** @param {boolean} isWriting whether there is something in the field now */
  typed(isWriting) {
    this.#typedAt = isWriting ? performance.now() : -Infinity;
    this.#update();
  }

  #touched() {
    this.#touchedAt = performance.now();
    this.#update();
  }

  #update() {
    clearTimeout(this.#timer);
    const now = performance.now();
    const typingMs = this.#typedAt + TYPING_MS - now;
    const activeMs = this.#touchedAt + IDLE_MS - now;
    /** @type {Presence} */
    const state = document.hidden ? 'away' : typingMs > 0 ? 'typing' : activeMs > 0 ? 'active' : 'idle';
    const nextMs = typingMs > 0 ? typingMs : activeMs;
    if (nextMs > 0) this.#timer = setTimeout(() => this.#update(), nextMs);
    if (this.#said === null || state === this.#said) return;
    this.#said = state;
    this.say(state).catch(() => {}); // lost with its socket: the next subscription begins anew
  }
}
