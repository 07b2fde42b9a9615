// @ts-check
/**
 * The room on screen. `draw` is given everything and touches only what changed; untrusted text
 * goes into text nodes alone.
 *
 * @typedef {import('./fold.js').Fold} Fold
 * @typedef {import('./fold.js').Message} Message
 * @typedef {import('./fold.js').Actor} Actor
 * @typedef {import('./connection.js').Phase} Phase
 * @typedef {{key: string, content: string, who: string, tag: string, tone: string, error?: string,
 *            actions: [string, () => void][]}} Waiting an entry of the queue
 * @typedef {{text: string, action: string, run: () => void}} Notice
 * @typedef {{fold: Fold, me: string, phase: Phase, why: string, waiting: Waiting[],
 *            notice: Notice | null, hasEarlier: boolean, isSettled: boolean, session: string,
 *            people: import('./connection.js').Participant[],
 *            cards: [string, import('./cards.js').ApprovalCard | import('./cards.js').AskCard][],
 *            banners: [string, import('./handover.js').WaitingHandover | import('./handover.js').OwnLane][]}} Scene
 */
import { newCard } from './cards.js';
import { Keyed, announce, button, byId, element, nameOf, setLine, setText, timeOf } from './dom.js';
import { newBanner } from './handover.js';
import { callLine, isBad, marksOf, nameIn } from './marks.js';
import { drawPeople, statusLine } from './people.js';
import { TextView } from './text.js';

const STUCK_PX = 48; // nearer to the end than this, the view follows it
const ANNOUNCED_CHARS = 600;

/** @type {Record<Phase, string>} */
const PHASES = { joining: 'joining…', live: 'live', reconnecting: 'reconnecting…', offline: 'offline',
  refused: 'refused', expired: 'token expired', closed: 'closed' };
/** @type {Record<string, string>} */
const ASIDES = { reasoning: 'Reasoning', tool_call: 'Tool call', tool: 'Tool result' };

export class View {
  /** @type {Map<string, {node: HTMLElement, text: TextView}>} */ #shown = new Map();
  /** @type {Map<string, HTMLElement>} */ #queued = new Map();
  /** @type {Fold | null} */ #fold = null;
  #isStuck = true;
  /** @type {Message | undefined} */ #first;
  #scroller = byId('scroller');
  #list = byId('messages');
  #cards = new Keyed(byId('cards'), newCard);
  #banners = new Keyed(byId('banners'), newBanner);
  /** @type {Keyed<string>} */ #calls = new Keyed(byId('calls'), newLine);

  constructor() {
    this.#scroller.addEventListener('scroll', () => this.#scrolled(), { passive: true });
    byId('latest').addEventListener('click', () => this.toEnd());
    const resized = new ResizeObserver(() => this.#isStuck && this.toEnd());
    resized.observe(this.#scroller);
  }

  get isStuck() {
    return this.#isStuck;
  }

  toEnd() {
    this.#isStuck = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    byId('latest').hidden = true;
  }

  /** @param {Scene} scene */
  draw(scene) {
    const heightBefore = this.#isStuck ? 0 : this.#scroller.scrollHeight;
    const grewAbove = this.#drawMessages(scene);
    this.#drawQueue(scene.waiting);
    this.#drawSession(scene);
    this.#drawChrome(scene);
    if (this.#isStuck) this.toEnd();
    else if (grewAbove) this.#scroller.scrollTop += this.#scroller.scrollHeight - heightBefore;
    else byId('latest').hidden = this.#isNearEnd();
  }

  /** @param {Scene} scene @returns {boolean} whether messages came in above those shown */
  #drawMessages({ fold, me, isSettled }) {
    if (fold !== this.#fold) this.#shown.clear();
    const grewAbove = fold === this.#fold && this.#first !== undefined && fold.messages[0] !== this.#first;
    for (const id of fold.changed) this.#drawMessage(fold, id, me, isSettled);
    const ids = fold.messages.map((message) => message.id);
    if (fold !== this.#fold || grewAbove || this.#list.childElementCount !== ids.length) this.#arrange(ids);
    fold.changed.clear();
    this.#fold = fold;
    this.#first = fold.messages[0];
    return grewAbove;
  }

  /** @param {string[]} ids */
  #arrange(ids) {
    const known = new Set(ids);
    for (const id of this.#shown.keys()) if (!known.has(id)) this.#shown.delete(id);
    this.#list.replaceChildren(...ids.flatMap((id) => this.#shown.get(id)?.node ?? []));
  }

  /** @param {Fold} fold @param {string} id @param {string} me @param {boolean} isSettled */
  #drawMessage(fold, id, me, isSettled) {
    const message = fold.message(id);
    if (!message) return;
    let shown = this.#shown.get(id);
    const isArrival = !shown && message === fold.messages.at(-1) && message.by?.id !== me;
    if (!shown) {
      shown = newMessage(fold, message, me);
      this.#shown.set(id, shown);
      this.#list.append(shown.node);
    }
    shown.text.update(message.text);
    const isLive = message.status === 'streaming' && fold.runs.some((run) => run.runId === message.run || !message.run);
    const isFinished = isArrival || shown.node.classList.contains('streaming');
    if (isSettled && isFinished && !isLive) announce(`${nameOf(message.by)}: ${message.text.slice(0, ANNOUNCED_CHARS)}`);
    shown.node.classList.toggle('streaming', isLive);
    shown.node.setAttribute('aria-busy', String(isLive));
    shown.node.classList.toggle('rolled-back', Boolean(message.rolledBack));
    const marks = marksOf(fold, message);
    const line = /** @type {HTMLElement} */ (shown.node.lastElementChild);
    setText(line, marks.join(' · '));
    line.classList.toggle('bad', marks.some(isBad));
  }

  /** @param {Waiting[]} waiting */
  #drawQueue(waiting) {
    const list = byId('queue');
    for (const [key, node] of this.#queued) {
      if (waiting.some((item) => item.key === key)) continue;
      node.remove();
      this.#queued.delete(key);
    }
    for (const item of waiting) {
      const old = this.#queued.get(item.key);
      const look = JSON.stringify([item.tag, item.who, item.error, item.actions.map(([label]) => label)]);
      if (old?.dataset.look === look) continue;
      const node = newWaiting(item);
      node.dataset.look = look;
      if (old) old.replaceWith(node);
      else list.append(node);
      this.#queued.set(item.key, node);
    }
    const order = waiting.map((item) => /** @type {HTMLElement} */ (this.#queued.get(item.key)));
    if (order.some((node, at) => list.children[at] !== node)) list.replaceChildren(...order);
  }

  /** Who is there, what it does, and what it waits for. @param {Scene} scene */
  #drawSession({ fold, me, people, cards, banners, session, isSettled }) {
    const title = fold.title || session;
    setText(byId('session'), title);
    document.title = `${title} · Antiphon`;
    drawPeople(people, me);
    const status = byId('status');
    status.dataset.status = isSettled ? fold.status : '';
    setLine(status, isSettled ? statusLine(fold, me, people) : '');
    this.#cards.draw(cards);
    this.#banners.draw(banners);
    const asked = new Set(cards.map(([key]) => key));
    const apart = fold.openCalls.filter(({ executor, toolCallId }) =>
      executor === 'client' && !fold.message(toolCallId) && !asked.has(toolCallId));
    this.#calls.draw(apart.map((call) => [call.toolCallId, `${call.name}: ${callLine(call)}`]));
  }

  /** @param {Scene} scene */
  #drawChrome({ fold, phase, why, notice, hasEarlier, isSettled }) {
    const pill = byId('pill');
    setText(pill, why && phase === 'refused' ? `${PHASES[phase]}: ${why}` : PHASES[phase]);
    pill.dataset.phase = phase;
    byId('earlier').hidden = !hasEarlier;
    byId('empty').hidden = !isSettled || fold.messages.length > 0 || hasEarlier;
    const running = fold.runs.filter((run) => run.cancel?.mode !== 'immediate');
    const stop = byId('stop');
    stop.hidden = fold.runs.length === 0;
    setText(stop, running.length || stop.hidden ? 'Stop' : 'Stopping…');
    stop.toggleAttribute('disabled', phase !== 'live' || running.length === 0);
    byId('working').hidden = fold.runs.length === 0 || fold.messages.at(-1)?.status === 'streaming';
    const line = byId('notice');
    line.hidden = !notice;
    if (!notice) return;
    setText(/** @type {HTMLElement} */ (line.firstElementChild), notice.text);
    const action = /** @type {HTMLButtonElement} */ (line.lastElementChild);
    setText(action, notice.action);
    action.onclick = notice.run;
  }

  #isNearEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < STUCK_PX;
  }

  #scrolled() {
    this.#isStuck = this.#isNearEnd();
    byId('latest').hidden = this.#isStuck;
  }
}

/** @param {Fold} fold @param {Message} message @param {string} me */
function newMessage(fold, message, me) {
  const isMine = message.role === 'user' && message.by?.id === me;
  const aside = ASIDES[message.role];
  const isChild = message.lane !== null && message.lane !== 'main';
  const node = element('article', `message ${message.role}${isMine ? ' mine' : ''}${isChild ? ' child' : ''}`);
  const body = element('div', 'text');
  if (aside) {
    const details = element('details', 'aside');
    const name = message.name ?? (message.toolCallId && fold.message(message.toolCallId)?.name);
    const summary = element('summary', '', name ? `${aside}: ${name}` : aside);
    if (isChild) summary.prepend(element('span', 'author', `${nameIn(fold, message)} `));
    details.append(summary, body);
    node.append(details, element('p', 'marks'));
  } else {
    const head = element('p', 'head');
    head.append(element('span', 'author', isMine ? 'You' : nameIn(fold, message)));
    if (message.role === 'assistant' && message.by?.kind === 'user') head.append(element('span', 'hint', 'for the agent'));
    if (message.ts) head.append(clockTime(message.ts));
    node.append(head, body, element('p', 'marks'));
  }
  node.dataset.id = message.id;
  return { node, text: new TextView(body) };
}

/** @param {Waiting} item */
function newWaiting({ content, who, tag, tone, error, actions }) {
  const node = element('li', '');
  const foot = element('p', 'foot');
  foot.append(element('span', 'who', who), element('span', `tag ${tone}`, tag));
  for (const [label, run] of actions) {
    foot.append(button('quiet', label, run));
  }
  node.append(element('p', 'content', content), foot);
  if (error) {
    const line = element('p', 'error', error);
    line.setAttribute('role', 'alert');
    node.append(line);
  }
  return node;
}

/** @param {string} text */
function newLine(text) {
  const node = element('li', '', text);
  return { node, update: (/** @type {string} */ now) => setText(node, now) };
}

/** @param {number} ts ms since 1970 */
function clockTime(ts) {
  const when = new Date(ts);
  const node = element('time', '', timeOf(ts));
  node.setAttribute('datetime', when.toISOString());
  node.title = when.toLocaleString();
  return node;
}
