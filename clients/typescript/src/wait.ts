/** Waiting, for something to change or for a time, in a way that can be aborted. */

/** Wakes all who wait. */
export class Notifier {
  #waiting = new Set<() => void>();

  fire(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const wake of waiting) wake();
  }

  /** Until the next `fire`. Rejects with the signal's reason. */
  wait(signal?: AbortSignal | null): Promise<void> {
    return abortable((resolve) => {
      this.#waiting.add(resolve);
      return () => this.#waiting.delete(resolve);
    }, signal);
  }
}

/** So many ms. Rejects with the signal's reason. */
export const delay = (ms: number, signal?: AbortSignal | null): Promise<void> =>
  abortable((resolve) => {
    const timer = setTimeout(resolve, ms);
    return () => clearTimeout(timer);
  }, signal);

/** A promise that begins something, which is undone if the signal comes first. */
export function abortable<T>(
  begin: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
  signal?: AbortSignal | null,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      undo();
      reject(signal?.reason);
    };
    const ended =
      <A>(settle: (value: A) => void) =>
      (value: A) => {
        signal?.removeEventListener('abort', onAbort);
        settle(value);
      };
    signal?.addEventListener('abort', onAbort);
    const undo = begin(ended(resolve), ended(reject));
  });
}

export interface Abortable {
  /** Ends the wait, which rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}
