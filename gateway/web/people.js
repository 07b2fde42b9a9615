// @ts-check
/**
 * Who is there, and what the session is doing, in words.
 *
 * @typedef {import('./connection.js').Participant} Participant
 * @typedef {import('./fold.js').Fold} Fold
 */
import { Keyed, byId, element, nameOf, setLine, setText } from './dom.js';

const MAX_SHOWN = 5;

/** @type {Keyed<Participant>} */ let chips;

/** @param {Participant[]} participants @param {string} me */
export function drawPeople(participants, me) {
  chips ??= new Keyed(byId('people'), newChip);
  chips.draw(participants.slice(0, MAX_SHOWN).map((person) => [person.id, person]));
  const rest = participants.length - MAX_SHOWN;
  setLine(byId('more-people'), rest > 0 ? `+${rest}` : '');
  const typing = participants.filter(({ id, state }) => id !== me && state === 'typing').map(nameOf);
  setLine(byId('typing'), typingLine(typing));
}

/** @param {string[]} names */
function typingLine(names) {
  if (names.length === 0) return '';
  if (names.length > 2) return `${names.length} people are typing`;
  return `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} typing`;
}

/** @param {Participant} person */
function newChip(person) {
  const node = element('li', 'person');
  const initial = element('span', 'initial', [...nameOf(person)][0]?.toUpperCase() ?? '?');
  initial.setAttribute('aria-hidden', 'true');
  const said = element('span', 'unseen');
  node.append(initial, said);
  return { node, update: (/** @type {Participant} */ now) => {
    const text = `${nameOf(now)}, ${now.state}`;
    setText(said, text);
    node.dataset.state = now.state;
    const devices = now.devices.length > 1 ? ` on ${now.devices.length} devices` : '';
    const tools = [...new Set(now.devices.flatMap((device) => device.tools))];
    node.title = text + devices + (tools.length ? `; can execute ${tools.join(', ')}` : '');
  } };
}

/** @param {Fold} fold @param {string} me @param {Participant[]} participants @returns {string} */
export function statusLine(fold, me, participants) {
  switch (fold.status) {
    case 'closed':
      return 'Closed: it takes no messages';
    case 'paused':
      return pausedLine(fold);
    case 'requires_action':
      return `Waiting for ${wantedOf(fold)}`;
    case 'running':
      return fold.runs.length > 0 && fold.runs.every((run) => run.cancel) ? 'Stopping' : 'Running';
    case 'human':
      return humanLine(fold, me, participants);
    default:
      return '';
  }
}

/** @param {Fold} fold */
function pausedLine(fold) {
  const reasons = [...fold.lanes.values()].map((lane) => lane.paused).filter(Boolean);
  return reasons.length ? `Paused: ${reasons.join(', ')}` : 'Paused';
}

/** @param {Fold} fold */
function wantedOf(fold) {
  /** @type {string[]} */ const kinds = fold.pendingApprovals.map(({ kind }) => (kind === 'question' ? 'an answer' : 'a decision'));
  if (fold.openCalls.some((call) => call.executor === 'client')) kinds.push('a client’s tool');
  if (fold.waitingHandoffs.length) kinds.push('a human to take over');
  return [...new Set(kinds)].join(', ');
}

/** @param {Fold} fold @param {string} me @param {Participant[]} participants */
function humanLine(fold, me, participants) {
  const id = fold.lanes.get('main')?.owner?.id;
  if (id === me) return 'You have the conversation';
  return `${nameOf(participants.find((person) => person.id === id) ?? { kind: 'user', id })} has the conversation`;
}
