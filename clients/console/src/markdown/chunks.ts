/**
 * A long text in pieces that can be drawn by themselves. A text only grows at its end, and so only its last piece ever
 * changes: the others are the same objects as before, so nothing of them is parsed, compared or drawn again.
 *
 * Pieces end where a block of Markdown ends (an empty line outside of a fence) once they are long enough; where there is
 * no such place, at the end of a line, and without lines anywhere between two characters.
 */

/** Characters after which a piece ends with its block, with its line, and anyhow. */
export const SOFT_CHARS = 2048;
export const LINE_CHARS = 8192;
export const HARD_CHARS = 16_384;

export interface Chunk {
  /** Where it begins in the whole text, in UTF-16 units. */
  readonly start: number;
  readonly text: string;
  /** The line that opened the fence in which the piece begins; null outside. */
  readonly fence: string | null;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})/;

/** Cuts a text, and goes on where it was when the text has grown. */
export class Chunker {
  #text = '';
  #settled: Chunk[] = [];
  #chunks: readonly Chunk[] = [];

  /** The pieces of `text`; the same ones as before, as far as it begins as before. */
  cut(text: string): readonly Chunk[] {
    if (text === this.#text) return this.#chunks;
    if (!text.startsWith(this.#text)) this.#settled = [];
    this.#text = text;
    const last = this.#settled.at(-1);
    let start = last ? last.start + last.text.length : 0;
    let fence = last ? fenceAfter(last.text, last.fence) : null;
    for (;;) {
      const length = pieceLength(text, start, fence);
      if (length === null) break;
      const chunk = { start, text: text.slice(start, start + length), fence };
      this.#settled.push(chunk);
      fence = fenceAfter(chunk.text, fence);
      start += length;
    }
    const rest = start < text.length ? [{ start, text: text.slice(start), fence }] : [];
    this.#chunks = [...this.#settled, ...rest];
    return this.#chunks;
  }
}

/** How long the piece is that begins at `start`; null while it may still grow. */
function pieceLength(text: string, start: number, fence: string | null): number | null {
  let open = fence;
  let isAfterBlank = false;
  for (let at = start; at < text.length; ) {
    const newline = text.indexOf('\n', at);
    const end = newline < 0 ? text.length : newline + 1;
    const size = at - start;
    if (end - start > HARD_CHARS && size < LINE_CHARS) return hardLength(text, start);
    if (size >= LINE_CHARS) return size;
    if (newline < 0) return null; // the line may still grow
    const line = text.slice(at, newline);
    if (open === null && isAfterBlank && size >= SOFT_CHARS && !continues(line)) return size;
    isAfterBlank = open === null && line.trim() === '';
    open = fenceOn(line, open);
    at = end;
  }
  return null;
}

/** Whether a line after an empty one belongs to the block before it: a list goes on. */
const continues = (line: string): boolean => /^(\s|[-*+] |\d{1,9}[.)] |$)/.test(line);

/** Never between the halves of a character. */
function hardLength(text: string, start: number): number {
  const code = text.charCodeAt(start + HARD_CHARS - 1);
  return code >= 0xd800 && code <= 0xdbff ? HARD_CHARS - 1 : HARD_CHARS;
}

/** The open fence after a line; null outside. */
function fenceOn(line: string, open: string | null): string | null {
  const marks = FENCE.exec(line)?.[1];
  if (!marks) return open;
  if (open === null)
    return marks[0] === '`' && line.slice(line.indexOf(marks) + marks.length).includes('`') ? null : line;
  const opened = FENCE.exec(open)?.[1] ?? '';
  const closes = marks[0] === opened[0] && marks.length >= opened.length && line.trim() === marks;
  return closes ? null : open;
}

function fenceAfter(text: string, fence: string | null): string | null {
  let open = fence;
  for (const line of text.split('\n')) open = fenceOn(line, open);
  return open;
}

/** What a piece is to a parser that knows nothing of the pieces before it. */
export const sourceOf = ({ text, fence }: Chunk): string => (fence === null ? text : `${fence}\n${text}`);
