/** What the browser keeps for this page. It may be forbidden or full: then what is kept lives as long as the page. */

function open(kind: 'localStorage' | 'sessionStorage'): Storage | null {
  try {
    return window[kind];
  } catch {
    return null;
  }
}

class Kept {
  readonly #storage: Storage | null;
  readonly #memory = new Map<string, string>();

  constructor(kind: 'localStorage' | 'sessionStorage') {
    this.#storage = open(kind);
  }

  get(key: string): string | null {
    return this.#memory.get(key) ?? this.#storage?.getItem(key) ?? null;
  }

  set(key: string, value: string): void {
    try {
      this.#storage?.setItem(key, value);
      this.#memory.delete(key);
    } catch {
      this.#memory.set(key, value);
    }
  }

  remove(key: string): void {
    this.#memory.delete(key);
    this.#storage?.removeItem(key);
  }
}

/** Of this tab: tokens, drafts, what is on its way. */
export const tab = new Kept('sessionStorage');
/** Of this browser: how the page looks. */
export const browser = new Kept('localStorage');
