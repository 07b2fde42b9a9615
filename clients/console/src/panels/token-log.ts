/**
 * Every entry that the log still holds of a session, token by token, and what comes. Read by a connection of its own,
 * which nobody counts as present, while somebody looks.
 */
import { type AntiphonError, CoreClient, type Entry } from '@antiphon/client';
import { Store } from '../base/store.js';
import { LogWindow } from './log-window.js';

export interface Logged {
  readonly window: LogWindow;
  /** Those of `window`; the same array for as long as it is the same window. */
  readonly entries: readonly Entry[];
  readonly dropped: number;
  /** Everything that the log held has been read. */
  readonly isCaughtUp: boolean;
  readonly error: AntiphonError | null;
}

export class TokenLog {
  readonly shown: Store<Logged>;
  readonly #client: CoreClient;
  #window = new LogWindow();
  #isCaughtUp = false;
  #error: AntiphonError | null = null;
  #frame = 0;
  readonly #ending = new AbortController();

  constructor(url: string, token: string, session: string) {
    this.#client = new CoreClient({ url, token, name: 'console-log' });
    this.shown = new Store(this.#now());
    void this.#read(session);
  }

  close(): void {
    this.#ending.abort();
    cancelAnimationFrame(this.#frame);
    void this.#client.close();
  }

  async #read(name: string): Promise<void> {
    const session = this.#client.session(name, { every: true, watching: false });
    try {
      for await (const event of session.events({ signal: this.#ending.signal })) {
        if (event.type === 'entry') this.#window.take(event);
        else if (event.type === 'caught_up') this.#isCaughtUp = true;
        else if (event.type !== 'snapshot') this.#forget();
        this.#changed();
      }
    } catch (error) {
      if (this.#ending.signal.aborted) return;
      this.#error = error as AntiphonError;
      this.#changed();
    }
  }

  /** What was read is void: it comes anew. */
  #forget(): void {
    this.#window = new LogWindow();
    this.#isCaughtUp = false;
  }

  #now(): Logged {
    const { entries, dropped } = this.#window;
    return { window: this.#window, entries, dropped, isCaughtUp: this.#isCaughtUp, error: this.#error };
  }

  /** Once for all that comes before the next frame. */
  #changed(): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.shown.set(this.#now());
    });
  }
}
