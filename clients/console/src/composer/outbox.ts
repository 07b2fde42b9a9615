/**
 * Messages on their way. Each is kept in the tab until the log has it, so that neither a lost connection, nor a reload,
 * nor a token that has expired loses it; sending one again with its id is always safe (PROTOCOL, section 7).
 */
import { AntiphonError, type Attachment, ConnectionClosed, type Mode, type Session } from '@antiphon/client';
import { newId } from '../base/ids.js';
import { tab } from '../base/storage.js';
import { Store } from '../base/store.js';

export interface Item {
  readonly inputId: string;
  readonly content: string;
  readonly mode: Mode | null;
  readonly attachments?: readonly Attachment[];
  /** Why the gateway refused it; null while it is on its way. */
  readonly refusal: { readonly code: string; readonly message: string } | null;
}

export const MAX_ITEMS = 32;

/** What of a session the outbox uses. */
export type Sender = Pick<Session, 'send'>;

export class Outbox {
  readonly items: Store<readonly Item[]>;
  /** How many have been written here. */
  readonly written = new Store(0);
  readonly #key: string;
  #sender: Sender | null = null;
  readonly #sending = new Map<string, AbortController>();

  constructor(session: string, user: string) {
    this.#key = `antiphon.outbox.${session}.${user}`;
    this.items = new Store(readKept(tab.get(this.#key)));
  }

  get isFull(): boolean {
    return this.items.value.length >= MAX_ITEMS;
  }

  /** Sends what waits by way of `sender`, and what comes; until the next call. */
  use(sender: Sender | null): void {
    if (sender === this.#sender) return;
    this.#sender = sender;
    for (const ending of this.#sending.values()) ending.abort();
    this.#sending.clear();
    this.#pump();
  }

  add(content: string, mode: Mode | null, attachments: readonly Attachment[] = []): void {
    const files = attachments.length ? { attachments } : {};
    this.#set([...this.items.value, { inputId: newId(), content, mode, refusal: null, ...files }]);
    this.written.set(this.written.value + 1);
    this.#pump();
  }

  /** A refused message again, as a new one: its id is spent. */
  retry(inputId: string, mode: Mode | null): void {
    this.#set(
      this.items.value.map((item) =>
        item.inputId === inputId ? { ...item, inputId: newId(), mode, refusal: null } : item,
      ),
    );
    this.#pump();
  }

  discard(inputId: string): void {
    this.#sending.get(inputId)?.abort();
    this.#sending.delete(inputId);
    this.#set(this.items.value.filter((item) => item.inputId !== inputId));
  }

  /** All that is not on its way yet, in order; the client keeps the order. */
  #pump(): void {
    const sender = this.#sender;
    if (!sender) return;
    for (const item of this.items.value) {
      if (item.refusal === null && !this.#sending.has(item.inputId)) void this.#send(sender, item);
    }
  }

  async #send(sender: Sender, { inputId, content, mode, attachments }: Item): Promise<void> {
    const ending = new AbortController();
    this.#sending.set(inputId, ending);
    try {
      await sender.send(content, { inputId, ...(mode && { mode }), attachments, signal: ending.signal });
      this.#set(this.items.value.filter((item) => item.inputId !== inputId));
    } catch (error) {
      // a client that has stopped leaves it to the next one
      if (ending.signal.aborted || (error instanceof ConnectionClosed && error.code !== 'undeliverable')) return;
      const refusal =
        error instanceof AntiphonError
          ? { code: error.code, message: error.message.replace(`${error.code}: `, '') }
          : { code: 'internal', message: String(error) };
      this.#set(this.items.value.map((item) => (item.inputId === inputId ? { ...item, refusal } : item)));
    } finally {
      if (this.#sending.get(inputId) === ending) this.#sending.delete(inputId);
    }
  }

  #set(items: readonly Item[]): void {
    tab.set(this.#key, JSON.stringify(items));
    this.items.set(items);
  }
}

function readKept(text: string | null): readonly Item[] {
  try {
    const kept: unknown = JSON.parse(text ?? '[]');
    return Array.isArray(kept) ? kept.filter((item) => typeof item?.inputId === 'string').slice(0, MAX_ITEMS) : [];
  } catch {
    return [];
  }
}
