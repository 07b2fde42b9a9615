// @ts-check
/** What all parts of the picture are made with. Untrusted text goes into text nodes alone. */

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
export const byId = (id) => /** @type {T} */ (document.getElementById(id));

/** @param {string} tag @param {string} [className] @param {string} [text] @returns {HTMLElement} */
export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** @param {string} className @param {string} label @param {() => void} run @returns {HTMLButtonElement} */
export function button(className, label, run) {
  const node = /** @type {HTMLButtonElement} */ (element('button', className, label));
  node.type = 'button';
  node.onclick = run;
  return node;
}

/** @param {string} summary @param {...HTMLElement} inside @returns {HTMLElement} what can be unfolded */
export function folded(summary, ...inside) {
  const node = element('details');
  node.append(element('summary', '', summary), ...inside);
  return node;
}

/** Writes only what is new, so that nothing is announced or selected anew.
 * @param {HTMLElement} node @param {string} text empty: the node is hidden */
export function setLine(node, text) {
  setText(node, text);
  node.hidden = !text;
}

/** @param {HTMLElement} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} text for those who hear the page */
export function announce(text) {
  byId('announcer').textContent = text;
}

/** @param {{kind?: string, id?: string, name?: string} | null | undefined} by @returns {string} */
export function nameOf(by) {
  return by?.name || (by?.kind === 'user' ? by.id : '') || (by?.kind === 'system' ? 'System' : 'Agent');
}

/** @param {number} ts ms since 1970 @returns {string} */
export function timeOf(ts) {
  return new Date(ts).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/**
 * A list with one node for each key. A node that is there is updated, never built again: what
 * somebody writes in it stays, and so does the focus.
 * @template T
 */
export class Keyed {
  /** @type {Map<string, {node: HTMLElement, update: (item: T) => void}>} */ #shown = new Map();

  /** @param {HTMLElement} list @param {(item: T) => {node: HTMLElement, update: (item: T) => void}} build */
  constructor(list, build) {
    this.list = list;
    this.build = build;
  }

  /** @param {[string, T][]} items by key, in their order */
  draw(items) {
    const keys = new Set(items.map(([key]) => key));
    for (const [key, { node }] of this.#shown) {
      if (keys.has(key)) continue;
      node.remove();
      this.#shown.delete(key);
    }
    items.forEach(([key, item], at) => {
      const shown = this.#shown.get(key) ?? this.build(item);
      this.#shown.set(key, shown);
      shown.update(item);
      if (this.list.children[at] !== shown.node) this.list.insertBefore(shown.node, this.list.children[at] ?? null);
    });
  }
}
