// @ts-check
/**
 * A field for a value, by its JSON Schema: text, number, a choice; JSON for all else. Only the
 * form is seen to here: whether the value is right, the server says.
 *
 * @typedef {{node: HTMLElement, read: () => {value?: any, problem?: string}}} Field
 */
import { element } from './dom.js';

let made = 0;

/** @param {any} schema null: any text will do @param {string} label @param {any} [initial]
 * @returns {Field} */
export function fieldFor(schema, label, initial) {
  const control = controlFor(schema);
  if (initial !== undefined) control.input.value = control.write(initial);
  control.input.id = `field-${(made += 1)}`;
  const caption = /** @type {HTMLLabelElement} */ (element('label', '', label));
  caption.htmlFor = control.input.id;
  const node = element('div', 'field');
  node.append(caption, control.input);
  return { node, read: () => control.read(control.input.value) };
}

/** @param {any} schema @returns {{input: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement,
 *   write: (value: any) => string, read: (text: string) => {value?: any, problem?: string}}} */
function controlFor(schema) {
  const type = [schema?.type ?? (schema?.properties ? 'object' : 'string')].flat()[0];
  if (Array.isArray(schema?.enum)) return { input: choice(schema.enum), write: JSON.stringify, read: json };
  if (type === 'boolean') return { input: choice([true, false], ['Yes', 'No']), write: JSON.stringify, read: json };
  if (type === 'string') return { input: area(2), write: String, read: (value) => ({ value }) };
  if (type === 'number' || type === 'integer') {
    const input = /** @type {HTMLInputElement} */ (element('input'));
    input.inputMode = 'decimal';
    return { input, write: String, read: number };
  }
  const input = area(4);
  input.classList.add('json');
  input.spellcheck = false;
  input.placeholder = JSON.stringify(outlineOf(schema));
  return { input, write: (value) => JSON.stringify(value, null, 2), read: json };
}

/** @param {any} schema @returns {any} what there is to fill in */
function outlineOf(schema) {
  if (schema?.type === 'array') return [];
  return Object.fromEntries(Object.keys(Object(schema?.properties)).map((name) => [name, null]));
}

/** @param {any[]} values @param {string[]} [labels] @returns {HTMLSelectElement} */
function choice(values, labels) {
  const select = /** @type {HTMLSelectElement} */ (element('select'));
  values.forEach((value, at) => {
    const text = labels?.[at] ?? (typeof value === 'string' ? value : JSON.stringify(value));
    const option = /** @type {HTMLOptionElement} */ (element('option', '', text));
    option.value = JSON.stringify(value);
    select.append(option);
  });
  return select;
}

/** @param {number} rows @returns {HTMLTextAreaElement} */
function area(rows) {
  const node = /** @type {HTMLTextAreaElement} */ (element('textarea'));
  node.rows = rows;
  return node;
}

/** @param {string} text */
function number(text) {
  const value = Number(text.trim() || NaN);
  return Number.isFinite(value) ? { value } : { problem: 'This must be a number.' };
}

/** @param {string} text */
function json(text) {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return { problem: 'This must be JSON.' };
  }
}
