/** Long texts in pieces: nothing is lost, what is settled stays the same object, and blocks are not torn apart. */
import { describe, expect, test } from 'vitest';
import { Chunker, HARD_CHARS, LINE_CHARS, SOFT_CHARS, sourceOf } from '../src/markdown/chunks.js';

const joined = (text: string) =>
  new Chunker()
    .cut(text)
    .map((chunk) => chunk.text)
    .join('');

/** Numbers in [0, 1), the same ones for a seed. */
function randomOf(seed: number): () => number {
  let state = seed + 1;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return (state >>> 0) / 2 ** 32;
  };
}

const PARTS = [
  'word ',
  '\n',
  '\n\n',
  '```js\n',
  '```\n',
  '- item\n',
  '    code\n',
  '😀',
  '| a | b |\n',
  'x'.repeat(900),
];

test('any text, however it grows, is all there, in order, in the pieces it has as a whole', () => {
  for (let seed = 0; seed < 60; seed += 1) {
    const random = randomOf(seed);
    const growing = new Chunker();
    let text = '';
    for (let step = 0; step < 120; step += 1) {
      text += PARTS[Math.floor(random() * PARTS.length)];
      if (random() < 0.5) growing.cut(text);
    }
    expect(joined(text), `seed ${seed}`).toBe(text);
    expect(growing.cut(text), `seed ${seed}`).toEqual(new Chunker().cut(text));
  }
});

test('pieces before the last are the same objects when the text has grown', () => {
  const chunker = new Chunker();
  const paragraph = `${'a word and another '.repeat(20)}\n\n`;
  const before = chunker.cut(paragraph.repeat(40));
  const after = chunker.cut(paragraph.repeat(80));
  expect(before.length).toBeGreaterThan(3);
  for (const [at, chunk] of before.slice(0, -1).entries()) expect(after[at]).toBe(chunk);
  expect(chunker.cut(paragraph.repeat(80))).toBe(after);
});

test('another text begins anew', () => {
  const chunker = new Chunker();
  chunker.cut('one\n\n'.repeat(2000));
  expect(chunker.cut('another')).toEqual([{ start: 0, text: 'another', fence: null }]);
});

describe('where a piece ends', () => {
  const filler = `${'x'.repeat(99)}\n`.repeat(Math.ceil(SOFT_CHARS / 100));

  test('after a block, once it is long enough', () => {
    const [first, second] = new Chunker().cut(`${filler}\nnext paragraph\nand its end`);
    expect(first?.text).toBe(`${filler}\n`);
    expect(second?.text).toBe('next paragraph\nand its end');
  });

  test('not between the items of a list, nor inside of a fence', () => {
    expect(new Chunker().cut(`${filler}\n- one\n\n- two\n\n  more of it\n`)).toHaveLength(1);
    expect(new Chunker().cut(`\`\`\`\n${filler}\n\nstill code\n`)).toHaveLength(1);
  });

  test('a fence that is longer than a piece may be goes on in the next one', () => {
    const code = `\`\`\`python\n${'y = 1\n'.repeat(3000)}\`\`\`\n\nafter it`;
    const chunks = new Chunker().cut(code);
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks[0]?.text.length).toBeLessThanOrEqual(LINE_CHARS + 20);
    expect(chunks[1]?.fence).toBe('```python');
    expect(chunks[1] && sourceOf(chunks[1])).toMatch(/^```python\ny = 1\n/);
    expect(new Chunker().cut(`${code}\n\n${filler}\n\nlast\n`).at(-1)?.fence).toBeNull();
  });

  test('a line without an end is cut, never through a character', () => {
    const text = `a${'😀'.repeat(HARD_CHARS)}`;
    const chunks = new Chunker().cut(text);
    expect(chunks.length).toBeGreaterThan(1);
    for (const chunk of chunks) {
      expect(chunk.text.length).toBeLessThanOrEqual(HARD_CHARS);
      expect(chunk.text).not.toMatch(/\p{Cs}/u);
    }
    expect(joined(text)).toBe(text);
  });
});
