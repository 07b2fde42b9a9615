// @ts-check
/** @typedef {{kind: 'prose' | 'code', start: number, lead: string, body: string, tail: string}} Block */
/**
 * Shows a text that grows: paragraphs and ``` code blocks. Every character of the text stands in
 * the DOM once and in order (fence marks and blank lines hidden), so `textContent` is the text.
 * Only text nodes are ever made from it, and only the last block is built again when it grows.
 */

/** UTF-16 units after which a paragraph is cut in two, so that a long one stays cheap to lay out. */
const MAX_PROSE = 8192;
const FENCE = /^ {0,3}```([^\n`]*)\n/;
const CLOSING = /\n {0,3}```[^\S\n]*(?:\n+|$)/;
const BLANK_LINES = /^\s*\n/;
const PARAGRAPH_END = /\n(?=[^\S\n]*\n)\s*\n|\n(?= {0,3}```[^\n`]*\n)/;

/** @param {string} text @param {number} start where a block begins @returns {Block[]} */
export function blocksFrom(text, start) {
  /** @type {Block[]} */ const blocks = [];
  while (start < text.length) {
    const block = blockAt(text.slice(start), start);
    blocks.push(block);
    start += block.lead.length + block.body.length + block.tail.length;
  }
  return blocks;
}

/** @param {string} rest @param {number} start @returns {Block} */
function blockAt(rest, start) {
  const fence = FENCE.exec(rest);
  if (!fence) return proseAt(rest, start);
  const inside = rest.slice(fence[0].length - 1); // keeps a newline for an empty block's close
  const close = CLOSING.exec(inside);
  const body = close ? inside.slice(1, Math.max(1, close.index)) : inside.slice(1);
  const tail = close ? inside.slice(1 + body.length, close.index + close[0].length) : '';
  return { kind: 'code', start, lead: fence[0], body, tail };
}

/** @param {string} rest @param {number} start @returns {Block} */
function proseAt(rest, start) {
  const lead = BLANK_LINES.exec(rest)?.[0] ?? '';
  const head = rest.slice(lead.length, lead.length + MAX_PROSE);
  const end = PARAGRAPH_END.exec(head);
  let at = end?.index ?? head.length;
  let tail = end?.[0] ?? '';
  if (!end && head.length === MAX_PROSE) {
    at = Math.max(head.lastIndexOf('\n'), 0) || Math.max(head.lastIndexOf(' '), 0);
    tail = head.slice(at, at + 1);
    if (!at) [at, tail] = [cutBefore(head), ''];
  }
  return { kind: 'prose', start, lead, body: head.slice(0, at), tail };
}

/** @param {string} head @returns {number} where to cut so that no surrogate pair is torn */
function cutBefore(head) {
  return /[\uD800-\uDBFF]$/.test(head) ? head.length - 1 : head.length;
}

export class TextView {
  #length = 0;
  /** @type {Block[]} */ #blocks = [];

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /** @param {string} text what was there, or more */
  update(text) {
    if (text.length === this.#length) return;
    this.#length = text.length;
    const last = this.#blocks.pop();
    const fresh = blocksFrom(text, last?.start ?? 0);
    const node = /** @type {HTMLElement | null} */ (last ? this.element.lastElementChild : null);
    if (node && last && canGrow(last, fresh[0])) {
      /** @type {Text} */ (node.lastChild?.firstChild).appendData(fresh[0].body.slice(last.body.length));
      this.element.append(...fresh.slice(1).map(built));
    } else {
      node?.remove();
      this.element.append(...fresh.map(built));
    }
    this.#blocks.push(...fresh);
  }
}

/** Whether a block on screen only has to be appended to. @param {Block} old @param {Block} now */
function canGrow(old, now) {
  return old.kind === now.kind && old.lead === now.lead && !old.tail && !now.tail
    && old.body !== '' && now.body.startsWith(old.body);
}

/** @param {Block} block @returns {HTMLElement} */
function built({ kind, lead, body, tail }) {
  const node = document.createElement('div');
  node.className = kind;
  const shown = document.createElement(kind === 'code' ? 'code' : 'p');
  shown.textContent = body;
  if (kind === 'code') {
    const language = lead.trim().slice(3).trim();
    if (language) node.dataset.language = language;
    node.tabIndex = 0; // scrolls sideways: reachable by keyboard
  }
  node.append(...hidden(lead), shown, ...hidden(tail));
  return node;
}

/** @param {string} text @returns {HTMLElement[]} */
function hidden(text) {
  if (!text) return [];
  const span = document.createElement('span');
  span.hidden = true;
  span.textContent = text;
  return [span];
}
