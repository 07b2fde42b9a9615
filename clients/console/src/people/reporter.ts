/** What this page says of who sits before it: typing, active, idle or away. Said only when it changes. */
import type { PresenceState } from '@antiphon/client';
import { useEffect, useRef } from 'react';

/** After the last key. */
const TYPING_MS = 4000;
/** After the last sign of life. */
const IDLE_MS = 120_000;
const SIGNS = ['pointerdown', 'keydown', 'wheel'] as const;

/** Where there is a session that is read, says so to it; answers with what is to be called while somebody writes. */
export function useReporting(isLive: boolean, say: (state: PresenceState) => void): (isWriting: boolean) => void {
  const wrote = useRef<(isWriting: boolean) => void>(() => {});
  const latest = useRef(say);
  useEffect(() => {
    latest.current = say;
  });
  useEffect(() => {
    if (!isLive) return;
    let typedAt = Number.NEGATIVE_INFINITY;
    let touchedAt = performance.now();
    let said: PresenceState = 'active'; // as every subscription begins
    let timer: ReturnType<typeof setTimeout> | undefined;
    const update = () => {
      clearTimeout(timer);
      const now = performance.now();
      const typingMs = typedAt + TYPING_MS - now;
      const activeMs = touchedAt + IDLE_MS - now;
      const state = document.hidden ? 'away' : typingMs > 0 ? 'typing' : activeMs > 0 ? 'active' : 'idle';
      const nextMs = typingMs > 0 ? typingMs : activeMs;
      if (nextMs > 0) timer = setTimeout(update, nextMs);
      if (state !== said) latest.current(state);
      said = state;
    };
    const touched = () => {
      touchedAt = performance.now();
      update();
    };
    wrote.current = (isWriting) => {
      typedAt = isWriting ? performance.now() : Number.NEGATIVE_INFINITY;
      update();
    };
    for (const name of SIGNS) document.addEventListener(name, touched, { passive: true });
    document.addEventListener('visibilitychange', touched);
    update();
    return () => {
      clearTimeout(timer);
      wrote.current = () => {};
      for (const name of SIGNS) document.removeEventListener(name, touched);
      document.removeEventListener('visibilitychange', touched);
    };
  }, [isLive]);
  return useRef((isWriting: boolean) => wrote.current(isWriting)).current;
}
