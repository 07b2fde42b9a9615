// @ts-check
/**
 * What waits for people, as cards: approvals, questions, and what this browser is asked. A card
 * stands until its matter leaves the state, with what somebody has written in it so far.
 *
 * @typedef {import('./fold.js').Approval} Approval
 * @typedef {import('./tools.js').Ask} Ask
 * @typedef {{error: string, me: string, from: string}} Around
 * @typedef {Around & {approval: Approval, args: any,
 *            respond: (option: string, payload?: any) => void}} ApprovalCard
 * @typedef {Around & {ask: Ask}} AskCard
 */
import { OPTIONS } from './advice.js';
import { announce, button, element, folded, nameOf, setLine, timeOf } from './dom.js';
import { fieldFor } from './fields.js';

const MAX_DETAILS = 20_000; // characters of them that are shown

/** @param {ApprovalCard | AskCard} item */
export function newCard(item) {
  return 'ask' in item ? askCard(item) : approvalCard(item);
}

/** @param {ApprovalCard} item */
function approvalCard({ approval, args, from, me, respond }) {
  const isQuestion = approval.kind === 'question';
  const card = frame(isQuestion ? 'Question' : 'Approval', from, approval.message);
  const shown = approval.details ?? (approval.responseSchema ? null : args);
  if (shown !== null && shown !== undefined) card.node.append(folded('Details', detailsOf(shown)));
  const field = payloadField(approval, args);
  if (field) card.node.append(isQuestion ? field.node : folded('Edit the arguments', field.node));
  const before = JSON.stringify(field?.read().value);
  const [votes, foot] = [element('p', 'hint votes'), element('p', 'hint', termsOf(approval))];
  const buttons = approval.options.map((option) => button(isYes(option) ? 'primary' : 'plain', OPTIONS[option] ?? option, () => {
    if (!field || !isYes(option)) return respond(option);
    const { value, problem } = field.read();
    if (problem) return card.complain(problem);
    const isEdited = isQuestion || JSON.stringify(value) !== before;
    respond(option, isEdited ? value : undefined);
  }));
  card.finish(buttons, votes, foot);
  return { node: card.node, update: (/** @type {any} */ now) => {
    const { votes: cast } = /** @type {ApprovalCard} */ (now).approval;
    setLine(votes, votesOf(approval, cast));
    for (const each of buttons) each.disabled = cast.some((vote) => vote.by?.id === me);
    card.complain(now.error);
  } };
}

/** The answer, or the arguments to go on with. @param {Approval} approval @param {any} args */
function payloadField({ kind, responseSchema }, args) {
  if (kind === 'question') return fieldFor(responseSchema, 'Your answer');
  return responseSchema ? fieldFor(responseSchema, 'Arguments to go on with', args ?? undefined) : null;
}

/** @param {AskCard} item */
function askCard({ ask }) {
  const card = frame('This browser is asked', '', ask.question);
  const field = fieldFor(null, 'Your answer');
  card.node.append(field.node);
  card.finish([button('primary', OPTIONS.answer, () => ask.answer(field.read().value)),
    button('plain', OPTIONS.decline, ask.decline)]);
  return { node: card.node, update: (/** @type {any} */ now) => card.complain(now.error) };
}

/** @param {string} kind @param {string} from @param {string} message */
function frame(kind, from, message) {
  const node = element('article', 'ask');
  node.setAttribute('aria-label', kind);
  const head = element('p', 'head');
  head.append(element('span', 'author', kind), element('span', 'hint', from));
  node.append(head, element('p', 'what', message));
  const error = element('p', 'error');
  error.setAttribute('role', 'alert');
  error.hidden = true;
  const [actions, complain] = [element('div', 'actions'), (/** @type {string} */ why) => setLine(error, why)];
  announce(`${kind}: ${message}`);
  return { node, complain, finish: (/** @type {HTMLElement[]} */ buttons, /** @type {HTMLElement[]} */ ...lines) => {
    actions.append(...buttons);
    node.append(...lines.filter((line) => line.textContent || line.classList.contains('votes')), actions, error);
  } };
}

/** @param {any} details */
function detailsOf(details) {
  const node = element('pre', '', JSON.stringify(details, null, 2).slice(0, MAX_DETAILS));
  node.tabIndex = 0; // scrolls sideways: reachable by keyboard
  return node;
}

/** @param {Approval} approval */
function termsOf({ expiresAt, default: fallback, roles, kind }) {
  const then = fallback ? `, then “${OPTIONS[fallback] ?? fallback}”` : '';
  return [roles.length ? `For: ${roles.join(', ')}.` : '', expiresAt === null ? '' : `Until ${timeOf(expiresAt)}${then}.`]
    .filter(Boolean).join(' ');
}

/** @param {Approval} approval @param {Approval['votes']} votes */
function votesOf({ quorum }, votes) {
  if (quorum < 2 && votes.length === 0) return '';
  const cast = votes.map(({ by, option }) => `${nameOf(by)}: ${OPTIONS[option] ?? option}`).join(', ');
  return `${votes.length} of ${quorum} have decided${cast && ` (${cast})`}`;
}

/** @param {string} option */
function isYes(option) {
  return option.startsWith('allow') || option === 'answer';
}
