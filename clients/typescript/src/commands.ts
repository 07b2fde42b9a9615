/**
 * Commands and their replies, across connections. Pure: times are arguments, in ms.
 *
 * There are two kinds: those of the program (`call`), which outlive a connection and are sent again on the next one,
 * with the same ids; and those about a connection (`post`), which end with it.
 */
import { AntiphonError, ConnectionClosed, refusal } from './errors.js';
import { asInt, type JsonObject } from './json.js';
import type { Limits } from './protocol.js';
import { fullJitterMs, Pacer } from './reconnect.js';
import type { Settings } from './settings.js';

/** Refusals after which the same command, with the same ids, is sent again without asking. */
const REPEATED: readonly string[] = ['rate_limited', 'unavailable', 'internal'];

export interface Command {
  readonly id: number;
  readonly frame: JsonObject;
  /** It waits until this session's subscription has been answered, once. */
  readonly gate: string | null;
  sends: number;
  repeats: number;
  /** When it is sent again, after a refusal. */
  repeatAt: number | null;
  /** On the present connection's way. */
  isPosted: boolean;
}

/** What became of a command. */
export type Answer =
  | { readonly id: number; readonly frame: JsonObject }
  | { readonly id: number; readonly error: AntiphonError };

type OnReply = (frame: JsonObject, now: number) => void;

export class Commands {
  #nextId = 1;
  readonly #pending = new Map<number, Command>();
  readonly #passing = new Map<number, OnReply>();
  #outbox: Pick<Command, 'id' | 'frame'>[] = [];
  #pacer: Pacer | null = null;
  #maxBytes = 0;
  #sendsLater = false;

  constructor(
    readonly settings: Settings,
    readonly rand: () => number,
    /** Takes what became of a command. */
    readonly answer: (answer: Answer) => void,
  ) {}

  nextId(): number {
    return this.#nextId++;
  }

  /** Queues a command of the program; returns its id. Throws `command_queue_full`. */
  call(frame: JsonObject, gate: string | null): number {
    if (this.#pending.size >= this.settings.pendingCommands) {
      throw new AntiphonError('command_queue_full', 'too many commands wait for their reply', true);
    }
    const id = this.nextId();
    this.#pending.set(id, { id, frame, gate, sends: 0, repeats: 0, repeatAt: null, isPosted: false });
    return id;
  }

  /** Nobody waits for it any more, so it need not be sent. */
  forget(id: number): void {
    this.#pending.delete(id);
    this.#outbox = this.#outbox.filter((each) => each.id !== id);
  }

  /** Queues a command about the connection, which there must be. `isUrgent`: before all that wait. */
  post(frame: JsonObject, onReply: OnReply, isUrgent = false): void {
    const posted = { id: this.nextId(), frame };
    this.#passing.set(posted.id, onReply);
    if (isUrgent) this.#outbox.unshift(posted);
    else this.#outbox.push(posted);
  }

  /** There is a connection. */
  connected(limits: Limits): void {
    this.#pacer = new Pacer(limits.commands_per_second, limits.commands_burst);
    this.#maxBytes = limits.frame_bytes;
    this.#sendsLater = limits.scheduled_inputs > 0;
  }

  lost(): void {
    this.#pacer = null;
    this.#outbox = [];
    this.#passing.clear();
    for (const command of this.#pending.values()) command.isPosted = false;
  }

  /** Ends all commands. */
  fail(error: AntiphonError): void {
    this.lost();
    for (const id of [...this.#pending.keys()]) this.#refuse(id, error);
  }

  #refuse(id: number, error: AntiphonError): void {
    this.#pending.delete(id);
    this.answer({ id, error });
  }

  // ---- sending

  /** What may be sent now, in order. `isOpen` tells whether a gate is. */
  take(now: number, isOpen: (gate: string) => boolean): string[] {
    const pacer = this.#pacer;
    if (!pacer) return [];
    this.#postReady(now, isOpen);
    const texts: string[] = [];
    while (this.#outbox.length && pacer.dueAt(now) <= now) {
      const { id, frame } = this.#outbox.shift() as Command;
      const text = JSON.stringify({ ...frame, id });
      const command = this.#pending.get(id);
      // a gateway of before there were schedules would send it now
      const isTooOld = !this.#sendsLater && (frame['at'] ?? frame['delayMs']) !== undefined;
      if (command && (isTooOld || this.#isTooLarge(text))) {
        this.#refuse(id, new AntiphonError(isTooOld ? 'not_supported' : 'frame_too_large', 'by the gateway’s limits'));
        continue;
      }
      if (command) command.sends += 1;
      pacer.take(now);
      texts.push(text);
    }
    return texts;
  }

  #postReady(now: number, isOpen: (gate: string) => boolean): void {
    for (const command of [...this.#pending.values()]) {
      const isDue = command.repeatAt === null || command.repeatAt <= now;
      if (command.isPosted || !isDue || (command.gate !== null && !isOpen(command.gate))) continue;
      if (command.sends >= this.settings.commandSends) {
        const text = `sent ${command.sends} times, and each time the connection died`;
        this.#refuse(command.id, new ConnectionClosed('undeliverable', text));
        continue;
      }
      command.isPosted = true;
      command.repeatAt = null;
      this.#outbox.push(command);
    }
  }

  #isTooLarge(text: string): boolean {
    return text.length * 3 > this.#maxBytes && new TextEncoder().encode(text).length > this.#maxBytes;
  }

  /** When `take` has something to do again; infinite without a connection. */
  dueAt(now: number): number {
    if (!this.#pacer) return Number.POSITIVE_INFINITY;
    let dueAt = this.#outbox.length ? this.#pacer.dueAt(now) : Number.POSITIVE_INFINITY;
    for (const { repeatAt } of this.#pending.values()) dueAt = Math.min(dueAt, repeatAt ?? Number.POSITIVE_INFINITY);
    return dueAt;
  }

  // ---- replies

  /** Takes an `ok`, an `error` or a `pong`; returns whether a command of the program was waiting for it. */
  reply(frame: JsonObject, now: number): boolean {
    const id = asInt(frame['id']) ?? -1;
    const onReply = this.#passing.get(id);
    this.#passing.delete(id);
    onReply?.(frame, now);
    const command = this.#pending.get(id);
    if (!command?.isPosted) return false;
    if (frame['op'] !== 'error') {
      this.#pending.delete(id);
      this.answer({ id, frame });
      return true;
    }
    const error = refusal(frame);
    if (!REPEATED.includes(error.code) || command.repeats >= this.settings.commandRetries) this.#refuse(id, error);
    else {
      command.repeatAt = now + (error.retryAfterMs ?? fullJitterMs(command.repeats, this.rand()));
      command.repeats += 1;
      command.isPosted = false;
    }
    return true;
  }
}
