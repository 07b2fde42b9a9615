/** Commands whose refusals are shown where they were met: beside what was clicked, or in the notice. */
import { useCallback, useRef, useState } from 'react';
import { adviceOn } from '../advice.js';

/** Refusals that are kept, by what was clicked; the oldest goes. */
const MAX_KEPT = 64;

export interface Refusals {
  /** By what was clicked. */
  readonly errors: ReadonlyMap<string, string>;
  /** What has no place of its own. */
  readonly notice: string;
  readonly dismiss: () => void;
  /** Says why, if `command` is refused. */
  readonly run: (command: Promise<unknown>, key?: string) => void;
}

export function useRefusals(): Refusals {
  const [errors, setErrors] = useState<ReadonlyMap<string, string>>(new Map());
  const [notice, setNotice] = useState('');
  const put = useRef((key: string | undefined, text: string) => {
    if (key === undefined) return setNotice(text);
    setErrors((last) => {
      const next = new Map(last);
      next.delete(key);
      if (text) next.set(key, text);
      const [oldest] = next.keys();
      if (next.size > MAX_KEPT && oldest !== undefined) next.delete(oldest);
      return next;
    });
  }).current;
  const run = useCallback(
    (command: Promise<unknown>, key?: string) => {
      if (key !== undefined) put(key, '');
      command.catch((error: unknown) => put(key, adviceOn(error)));
    },
    [put],
  );
  const dismiss = useCallback(() => setNotice(''), []);
  return { errors, notice, dismiss, run };
}
