/** Files that are to go with the next message. Each is stored in the session as soon as it is chosen. */
import { AntiphonError, type Attachment, type Session } from '@antiphon/client';
import { fileAdvice } from '../advice.js';
import { newId } from '../base/ids.js';
import { Store } from '../base/store.js';

export interface ChosenFile {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  /** Null while it is on its way. */
  readonly stored: Attachment | null;
  /** Why it cannot be stored. */
  readonly problem: string | null;
}

/** As many as a gateway takes with one message by default. */
export const MAX_FILES = 16;

/** What of a session is used here. */
export type Keeper = Pick<Session, 'upload'>;

export class ChosenFiles {
  readonly all = new Store<readonly ChosenFile[]>([]);
  readonly #keeper: () => Keeper;
  readonly #uploads = new Map<string, AbortController>();

  constructor(keeper: () => Keeper) {
    this.#keeper = keeper;
  }

  /** Begins to store them; those beyond `MAX_FILES` are left out, and it is said so. */
  add(files: Iterable<File>): void {
    for (const file of files) {
      const id = newId();
      const isTooMany = this.all.value.length >= MAX_FILES;
      const problem = isTooMany ? `At most ${MAX_FILES} files go with one message.` : null;
      this.all.set([...this.all.value, { id, name: file.name, size: file.size, stored: null, problem }]);
      if (isTooMany) return;
      void this.#store(id, file);
    }
  }

  remove(id: string): void {
    this.#uploads.get(id)?.abort();
    this.#uploads.delete(id);
    this.all.set(this.all.value.filter((file) => file.id !== id));
  }

  /** Those that are stored, for a message that takes them along; what could not be stored stays, to be seen. */
  take(): readonly Attachment[] {
    const taken = this.all.value.flatMap(({ stored }) => stored ?? []);
    this.all.set(this.all.value.filter(({ stored }) => stored === null));
    return taken;
  }

  /** Ends what is on its way. */
  end(): void {
    for (const upload of this.#uploads.values()) upload.abort();
    this.#uploads.clear();
  }

  async #store(id: string, file: File): Promise<void> {
    const upload = new AbortController();
    this.#uploads.set(id, upload);
    try {
      const stored = await this.#keeper().upload(file, { id, signal: upload.signal });
      this.#change(id, { stored });
    } catch (error) {
      if (upload.signal.aborted) return;
      const problem = error instanceof AntiphonError ? fileAdvice(error.code, error.message) : String(error);
      this.#change(id, { problem });
    } finally {
      this.#uploads.delete(id);
    }
  }

  #change(id: string, change: Partial<ChosenFile>): void {
    this.all.set(this.all.value.map((file) => (file.id === id ? { ...file, ...change } : file)));
  }
}
