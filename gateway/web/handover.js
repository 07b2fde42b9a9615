// @ts-check
/**
 * Who has the conversation: a banner for each hand-over that waits, and one to give back what
 * this user has taken.
 *
 * @typedef {import('./fold.js').Handoff} Handoff
 * @typedef {{error: string, handoff: Handoff, take: () => void}} WaitingHandover
 * @typedef {{error: string, lane: string, giveBack: (note: string) => void}} OwnLane
 */
import { announce, button, element, setLine, timeOf } from './dom.js';

/** @param {WaitingHandover | OwnLane} item */
export function newBanner(item) {
  return 'handoff' in item ? waiting(item) : own(item);
}

/** @param {WaitingHandover} item */
function waiting({ handoff: { to, reason, summary, expiresAt }, take }) {
  const text = `The agent asks for a human${to ? ` (${to})` : ''}${reason ? `: ${reason}` : ''}`;
  const banner = frame(text, [summary, expiresAt === null ? '' : `It waits until ${timeOf(expiresAt)}.`].filter(Boolean).join(' '));
  banner.row.append(button('primary', 'Take over', take));
  announce(text);
  return banner;
}

/** @param {OwnLane} item */
function own({ lane, giveBack }) {
  const where = lane === 'main' ? '' : ` in ${lane}`;
  const banner = frame(`You have the conversation${where}`, 'What you write stands for the agent.');
  const note = /** @type {HTMLInputElement} */ (element('input'));
  note.placeholder = 'A note for the agent';
  note.setAttribute('aria-label', 'A note for the agent');
  banner.row.append(note, button('primary', 'Give back', () => giveBack(note.value.trim())));
  return banner;
}

/** @param {string} title @param {string} text */
function frame(title, text) {
  const [node, row, error] = [element('article', 'banner'), element('div', 'actions'), element('p', 'error')];
  error.setAttribute('role', 'alert');
  node.append(element('p', 'author', title));
  if (text) node.append(element('p', 'what', text));
  node.append(row, error);
  return { node, row, update: (/** @type {{error: string}} */ now) => setLine(error, now.error) };
}
