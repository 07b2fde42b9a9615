import { type RefObject, useEffect } from 'react';

/** While something is open: calls `close` on Esc, and on a click outside of it. */
export function useClosing(isOpen: boolean, place: RefObject<HTMLElement | null>, close: () => void): void {
  useEffect(() => {
    if (!isOpen) return;
    const outside = ({ target }: Event) => {
      if (!place.current?.contains(target as Node)) close();
    };
    const escaped = (event: KeyboardEvent) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation(); // only the topmost closes
      close();
    };
    document.addEventListener('pointerdown', outside);
    document.addEventListener('keydown', escaped, { capture: true });
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('keydown', escaped, { capture: true });
    };
  }, [isOpen, place, close]);
}
