/** A message's text, piece by piece: of a long one only what is near the window is parsed and laid out. */
import {
  createContext,
  memo,
  type ReactNode,
  type RefObject,
  use,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from 'react';
import { type Chunk, Chunker, sourceOf } from './chunks.js';
import { renderMarkdown } from './render.js';

/** Pieces that come near, and go, together; a text of no more than these is drawn as a whole. */
const GROUP = 8;
/** How far beyond the window they are drawn: more than browsers lay out by themselves of what is skipped (150 %). */
const MARGIN = '200% 0px';
/** What a far text is taken to be high, until it was near: about so many characters in a line of so many pixels. */
const LINE_CHARS = 90;
const LINE_PX = 26;

export function MessageText({ text, isMarkdown }: { text: string; isMarkdown: boolean }) {
  const chunker = useRef<Chunker>(null);
  chunker.current ??= new Chunker();
  const chunks = chunker.current.cut(text);
  return (
    <div data-part="text" className={isMarkdown ? 'prose' : 'prose verbatim'}>
      {chunks.length <= GROUP ? (
        chunks.map((chunk) => <Piece key={chunk.start} chunk={chunk} isMarkdown={isMarkdown} />)
      ) : (
        <LongText chunks={chunks} isMarkdown={isMarkdown} />
      )}
    </div>
  );
}

interface PieceProps {
  readonly chunk: Chunk;
  readonly isMarkdown: boolean;
}

const Piece = memo(function Piece({ chunk, isMarkdown }: PieceProps) {
  return useMemo(() => (isMarkdown ? renderMarkdown(sourceOf(chunk)) : chunk.text), [chunk, isMarkdown]);
});

interface LongTextProps {
  readonly chunks: readonly Chunk[];
  readonly isMarkdown: boolean;
}

function LongText({ chunks, isMarkdown }: LongTextProps) {
  const groups: ReactNode[] = [];
  for (let at = 0; at < chunks.length; at += GROUP) {
    const last = Math.min(at + GROUP, chunks.length);
    groups.push(
      <Group key={at} chunks={chunks} from={at} last={chunks[last - 1]} count={last - at} isMarkdown={isMarkdown} />,
    );
  }
  return <Watching>{groups}</Watching>;
}

// ---- what is near

type Tell = (isNear: boolean) => void;

/** Tells elements of a scroller whether they are near the window: one observer for all of them. */
class Watcher {
  readonly #observer: IntersectionObserver;
  readonly #told = new WeakMap<Element, Tell>();

  constructor(root: Element | null) {
    this.#observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) this.#told.get(target)?.(isIntersecting);
      },
      { root, rootMargin: MARGIN },
    );
  }

  watch(node: Element, tell: Tell): () => void {
    this.#told.set(node, tell);
    this.#observer.observe(node);
    return () => this.#observer.unobserve(node);
  }

  close(): void {
    this.#observer.disconnect();
  }
}

const Near = createContext<Watcher | null>(null);

function Watching({ children }: { children: ReactNode }) {
  const place = useRef<HTMLSpanElement>(null);
  const [watcher, setWatcher] = useState<Watcher | null>(null);
  useEffect(() => {
    const made = new Watcher(place.current?.closest('[role="log"]') ?? null);
    setWatcher(made);
    return () => made.close();
  }, []);
  return (
    <Near value={watcher}>
      <span ref={place} hidden />
      {children}
    </Near>
  );
}

interface GroupProps {
  readonly chunks: readonly Chunk[];
  readonly from: number;
  readonly count: number;
  /** The only one of them that changes. */
  readonly last: Chunk | undefined;
  readonly isMarkdown: boolean;
}

/** While it is far, it is one text that is not laid out: it can be searched and selected, and costs next to nothing. */
const Group = memo(function Group({ chunks, from, count, isMarkdown }: GroupProps) {
  const watcher = use(Near);
  const node = useRef<HTMLDivElement>(null);
  const own = chunks.slice(from, from + count);
  const { isNear, height } = useNear(watcher, node, own);
  return (
    <div
      ref={node}
      className={isNear ? 'piece' : 'piece far'}
      style={isNear ? undefined : { containIntrinsicBlockSize: `${height}px` }}
    >
      {isNear
        ? own.map((chunk) => <Piece key={chunk.start} chunk={chunk} isMarkdown={isMarkdown} />)
        : own.map(({ text }) => text).join('')}
    </div>
  );
}, isSameGroup);

/** Whether a group is near, and how high it is while it is not: as it was, or by a guess. */
function useNear(watcher: Watcher | null, node: RefObject<HTMLDivElement | null>, own: readonly Chunk[]) {
  const [isNear, setNear] = useState(false);
  const height = useRef<number | null>(null);
  useEffect(() => {
    const element = node.current;
    if (!element) return;
    return watcher?.watch(element, (now) => {
      height.current = element.offsetHeight;
      setNear(now);
    });
  }, [watcher, node]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: it has another height because of `isNear`
  useLayoutEffect(() => {
    if (node.current && height.current !== null) keepPlace(node.current, node.current.offsetHeight - height.current);
  }, [isNear]);
  const chars = own.reduce((sum, { text }) => sum + text.length, 0);
  return { isNear, height: height.current ?? Math.ceil((chars / LINE_CHARS) * LINE_PX) };
}

/**
 * What is in the window stays where it is though a group above it has become higher. The list sees to that for whole
 * messages; this is for the one that reaches into the window.
 */
function keepPlace(group: HTMLElement, grownPx: number): void {
  const scroller = group.closest('[role="log"]');
  const message = group.closest('article');
  if (!grownPx || !scroller || !message) return;
  const { top } = scroller.getBoundingClientRect();
  const { top: from, bottom: to } = message.getBoundingClientRect();
  if (from < top && to > top && group.getBoundingClientRect().top < top) scroller.scrollTop += grownPx;
}

function isSameGroup(before: GroupProps, after: GroupProps): boolean {
  return before.last === after.last && before.count === after.count && before.isMarkdown === after.isMarkdown;
}
