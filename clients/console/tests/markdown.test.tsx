/** Markdown is drawn as elements; nothing in a text becomes HTML, code, or a request to somebody else. */
import { renderToStaticMarkup } from 'react-dom/server';
import { describe, expect, test } from 'vitest';
import { renderMarkdown, safeHref } from '../src/markdown/render.js';

const html = (source: string) => renderToStaticMarkup(renderMarkdown(source));

function drawn(source: string): HTMLElement {
  const place = document.createElement('div');
  place.innerHTML = html(source);
  return place;
}

describe('what it draws', () => {
  test('blocks', () => {
    const place = drawn(
      '# One\n\ntext **bold** `code`\n\n- a\n- b\n\n3. c\n\n> said\n\n---\n\n```js\nlet x = 1 < 2;\n```\n',
    );
    expect(place.querySelector('h3')?.textContent).toBe('One');
    expect(place.querySelector('strong')?.textContent).toBe('bold');
    expect([...place.querySelectorAll('ul li')].map((item) => item.textContent)).toEqual(['a', 'b']);
    expect(place.querySelector('ol')?.getAttribute('start')).toBe('3');
    expect(place.querySelector('blockquote')?.textContent).toBe('said');
    expect(place.querySelector('pre')?.textContent).toBe('let x = 1 < 2;');
  });

  test('tables, with their columns', () => {
    const place = drawn('| a | b |\n|---|--:|\n| 1 | 2 |\n');
    expect([...place.querySelectorAll('th, td')].map((cell) => cell.textContent)).toEqual(['a', 'b', '1', '2']);
    expect(place.querySelector('td.align-right')?.textContent).toBe('2');
  });

  test('a fence that is still open is code already', () => {
    expect(drawn('```\nhalf of').querySelector('pre')?.textContent).toBe('half of');
  });

  test('plain words are themselves', () => {
    expect(drawn('Tom & Jerry’s "a < b" 1 * 2').textContent).toBe('Tom & Jerry’s "a < b" 1 * 2');
  });
});

describe('what nobody can read anyhow', () => {
  test.each([
    ['quotes', '>'.repeat(8000)],
    ['numbers', '1. '.repeat(3000)],
    ['lists', Array.from({ length: 100 }, (_, at) => `${' '.repeat(at * 2)}- a`).join('\n')],
    ['emphasis', '**_'.repeat(2000)],
    ['pictures', '!['.repeat(2000)],
  ])('%s in each other are drawn, not deeper than a page can take', (_name, source) => {
    const place = drawn(source);
    const deepest = Math.max(...[...place.querySelectorAll('*')].map(depthIn(place)));
    expect(deepest).toBeLessThan(100);
    expect(place.textContent).not.toBe('');
  });
});

const depthIn = (place: Element) => (node: Element) => {
  let depth = 0;
  for (let at: Element | null = node; at && at !== place; at = at.parentElement) depth += 1;
  return depth;
};

describe('what it never draws', () => {
  test.each([
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    'text <b onclick="x()">bold</b> text',
    '<iframe src="https://example.com"></iframe>',
    '<style>body{display:none}</style>',
  ])('HTML: %s', (source) => {
    const place = drawn(source);
    expect(place.textContent).toBe(source);
    expect(place.querySelector('script, img, b, iframe, style')).toBeNull();
  });

  test.each([
    '[x](javascript:alert(1))',
    '[x](JaVaScRiPt:alert(1))',
    '[x](<java\tscript:alert(1)>)',
    '[x](data:text/html,hi)',
    '[x](vbscript:x)',
    '[x](file:///etc/passwd)',
    '![x](javascript:alert(1))',
    '![x](https://)',
    '[x](https://[)',
    '![x](data:image/svg+xml;base64,PHN2Zz4=)',
    '<javascript:alert(1)>',
  ])('a link that is no link: %s', (source) => {
    expect(drawn(source).querySelector('a, img')).toBeNull();
  });

  test('a picture from elsewhere, until somebody follows the link to it', () => {
    const place = drawn('![a cat](https://example.com/cat.png)');
    expect(place.querySelector('img')).toBeNull();
    const link = place.querySelector('a');
    expect(link?.textContent).toBe('Picture: a cat (example.com)');
    expect(link?.rel).toContain('noreferrer');
  });

  test('what a link opens does not know this page', () => {
    const link = drawn('[docs](https://example.com/docs)').querySelector('a');
    expect(link?.getAttribute('href')).toBe('https://example.com/docs');
    expect(link?.rel.split(' ')).toEqual(['noopener', 'noreferrer', 'nofollow']);
    expect(link?.target).toBe('_blank');
  });
});

test('schemes', () => {
  expect(safeHref('https://example.com')).toBe('https://example.com');
  expect(safeHref('mailto:a@example.com')).toBe('mailto:a@example.com');
  expect(safeHref('/relative')).toBeNull();
  expect(safeHref('java\nscript:alert(1)')).toBeNull();
});
