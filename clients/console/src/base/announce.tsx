/** What a screen reader is to say: finished messages and answers that are needed, never tokens. */
import { Store, useStore } from './store.js';

interface Said {
  readonly text: string;
  /** So that the same words are said again. */
  readonly count: number;
}

const said = new Store<Said>({ text: '', count: 0 });

/** Has `text` said after what is being said now. */
export function announce(text: string): void {
  said.set({ text, count: said.value.count + 1 });
}

export function Announcer() {
  const { text, count } = useStore(said);
  // two of them by turns: the same words in the same place would be no change
  return (
    <div className="unseen">
      <p aria-live="polite">{count % 2 ? text : ''}</p>
      <p aria-live="polite">{count % 2 ? '' : text}</p>
    </div>
  );
}
