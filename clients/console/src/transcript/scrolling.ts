/**
 * Where a transcript is scrolled to. It stays at its end while that grows, unless the reader has scrolled up; and it
 * asks for older messages when its beginning comes near.
 */
import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from 'react';

/** So near to the end counts as being there. */
const END_PX = 48;
/** So near to the beginning, older messages are asked for. */
const OLDER_PX = 800;
/** For so long after a wheel, a finger, a key or a pointer has moved it, it is the reader who scrolls. */
const GESTURE_MS = 400;
const GESTURES = ['wheel', 'touchmove', 'keydown', 'pointerdown', 'pointermove'] as const;

interface Geometry {
  readonly top: number;
  readonly height: number;
  readonly shown: number;
}

const geometryOf = (node: HTMLElement): Geometry => ({
  top: node.scrollTop,
  height: node.scrollHeight,
  shown: node.clientHeight,
});

const isNearEnd = ({ top, height, shown }: Geometry): boolean => height - top - shown < END_PX;

/** Whether the reader has moved up; what moves by itself does so because something has another size than before. */
export function hasLeft(last: Geometry, now: Geometry, isGesture: boolean): boolean {
  if (now.top >= last.top || isNearEnd(now)) return false;
  const isSameSize = now.height === last.height && now.shown === last.shown;
  return isGesture || isSameSize || last.top - now.top > last.shown;
}

export interface Scrolling {
  readonly scroller: RefObject<HTMLDivElement | null>;
  readonly content: RefObject<HTMLDivElement | null>;
  readonly isAtEnd: boolean;
  readonly toEnd: () => void;
  /** Asks for older messages if the beginning is near. */
  readonly look: () => void;
}

export function useScrolling(nearBeginning: () => void): Scrolling {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  const [isAtEnd, setAtEnd] = useState(true);
  const older = useRef(nearBeginning);
  useEffect(() => {
    older.current = nearBeginning;
  });

  const toEnd = useCallback(() => {
    const node = scroller.current;
    if (!node) return;
    pinned.current = true;
    setAtEnd(true);
    node.scrollTop = node.scrollHeight;
  }, []);

  const look = useCallback(() => {
    if (scroller.current && scroller.current.scrollTop < OLDER_PX) older.current();
  }, []);

  useLayoutEffect(() => {
    const [node, inner] = [scroller.current, content.current];
    if (!node || !inner) return;
    let last = geometryOf(node);
    let touchedAt = Number.NEGATIVE_INFINITY;
    const touched = (event: Event) => {
      if (event instanceof PointerEvent && !event.buttons) return;
      touchedAt = event.timeStamp;
    };
    const scrolled = () => {
      const now = geometryOf(node);
      if (isNearEnd(now)) pinned.current = true;
      else if (hasLeft(last, now, performance.now() - touchedAt < GESTURE_MS)) pinned.current = false;
      last = now;
      setAtEnd(pinned.current);
      look();
    };
    const resized = () => {
      if (pinned.current) node.scrollTop = node.scrollHeight;
      last = geometryOf(node);
      look();
    };
    const watcher = new ResizeObserver(resized);
    watcher.observe(inner);
    watcher.observe(node);
    node.addEventListener('scroll', scrolled, { passive: true });
    for (const name of GESTURES) node.addEventListener(name, touched, { passive: true });
    return () => {
      watcher.disconnect();
      node.removeEventListener('scroll', scrolled);
      for (const name of GESTURES) node.removeEventListener(name, touched);
    };
  }, [look]);

  return { scroller, content, isAtEnd, toEnd, look };
}
