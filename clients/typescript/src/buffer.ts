/** The bounded queue between the socket and the consumer of one session's events. Pure. */
import { type Cursor, readCursor } from './protocol.js';
import type { SessionEvent } from './subscription.js';

export class EventBuffer {
  #events: { readonly event: SessionEvent; readonly size: number }[] = [];
  #head = 0;
  #size = 0;

  /** `tail` is the place after the newest event. */
  constructor(
    readonly maxEvents: number,
    readonly maxSize: number,
    public tail: Cursor | null,
  ) {}

  get #length(): number {
    return this.#events.length - this.#head;
  }

  /** Whether so much of it is used, of 1. */
  isUsed(part: number): boolean {
    return this.#length >= part * this.maxEvents || this.#size >= part * this.maxSize;
  }

  /** The caller has looked whether there is room. */
  put(event: SessionEvent, size: number): void {
    this.#events.push({ event, size });
    this.#size += size;
    if (event.type === 'gap' || event.type === 'reset') this.tail = null;
    else if (event.type !== 'caught_up') this.tail = readCursor(event.cursor);
  }

  /** Forgets everything: what follows begins with a snapshot. */
  restart(): void {
    this.#events = [];
    this.#head = 0;
    this.#size = 0;
    this.tail = null;
  }

  /** The oldest event; null if there is none. */
  take(): SessionEvent | null {
    const oldest = this.#events[this.#head];
    if (!oldest) return null;
    this.#head += 1;
    this.#size -= oldest.size;
    if (this.#head * 2 > this.#events.length) {
      this.#events.splice(0, this.#head);
      this.#head = 0;
    }
    return oldest.event;
  }
}
