/** The keys of this page: what they do, and the list of them. */
import { useEffect, useRef } from 'react';
import { Dialog } from './dialog.js';

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
const COMMAND = isMac ? '⌘' : 'Ctrl';

const KEYS: readonly { readonly keys: readonly string[]; readonly does: string }[] = [
  { keys: ['Enter'], does: 'Send the message' },
  { keys: ['Shift', 'Enter'], does: 'Begin a new line' },
  { keys: ['Esc'], does: 'Close what is open; in the message, stop the run' },
  { keys: [COMMAND, 'K'], does: 'Go to another session' },
  { keys: ['↑', '↓'], does: 'Move in a list' },
  { keys: ['/'], does: 'Write a message' },
  { keys: ['R'], does: 'Replay, token by token' },
  { keys: ['I'], does: 'Inspect the raw entries' },
  { keys: ['?'], does: 'This list' },
];

/** What the keys do that are the page's own. */
export interface Actions {
  readonly switcher: () => void;
  readonly help: () => void;
  readonly replay: () => void;
  readonly inspector: () => void;
  readonly write: () => void;
  /** What is open closes, the topmost first. */
  readonly close: () => void;
}

const isField = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

export function useShortcuts(actions: Actions): void {
  const latest = useRef(actions);
  useEffect(() => {
    latest.current = actions;
  });
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const name = nameOfKey(event);
      if (name === null || document.querySelector('dialog[open]')) return;
      event.preventDefault();
      latest.current[name]();
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  }, []);
}

function nameOfKey(event: KeyboardEvent): keyof Actions | null {
  const { key, ctrlKey, metaKey, altKey, target, defaultPrevented } = event;
  if (key === 'Escape') return defaultPrevented ? null : 'close';
  if ((ctrlKey || metaKey) && !altKey && key.toLowerCase() === 'k') return 'switcher';
  if (ctrlKey || metaKey || altKey || isField(target)) return null;
  const plain: Readonly<Record<string, keyof Actions>> = { '?': 'help', '/': 'write', r: 'replay', i: 'inspector' };
  return plain[key] ?? null;
}

export function ShortcutsDialog({ close }: { close: () => void }) {
  return (
    <Dialog title="Keys" close={close}>
      <dl className="keys-list">
        {KEYS.map(({ keys, does }) => (
          <div key={does}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
