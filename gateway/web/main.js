// @ts-check
/** Joins the session that the link names, and wires connection, fold, outbox and view together. */
import { CommandError, Connection } from './connection.js';
import { Fold } from './fold.js';
import { Outbox } from './outbox.js';
import { View, byId, nameOf } from './view.js';

/**
 * @typedef {import('./connection.js').Welcome} Welcome
 * @typedef {import('./connection.js').Phase} Phase
 * @typedef {import('./connection.js').Snapshot} Snapshot
 * @typedef {import('./view.js').Notice} Notice
 * @typedef {import('./view.js').Waiting} Waiting
 */

const HISTORY_PAGE = 50;
const MAX_MESSAGES = 2_000; // kept while the reader follows the end; `history` has the rest
const TRIM_OVERLAP = 16;
const FRAME_SPARE_BYTES = 512; // of a command, around its content
const BYTES = new TextEncoder();

/** What to do about it, by error code. @type {Record<string, string>} */
const ADVICE = {
  unauthorized: 'This token is not valid here, or no longer. Ask for a new link.',
  not_allowed: 'Your token does not allow that in this session.',
  bad_name: 'A session name has 1 to 128 letters, digits, “_” or “-”.',
  queue_full: 'Sixteen messages are waiting already. Try again when one has run.',
  content_too_large: 'This message is too long. Send it in parts.',
  session_full: 'This session is full. Go on in a new one.',
  input_already_applied: 'Too late to take it back: it has reached the agent.',
  lost: 'The connection was lost on the way. Try again.',
  timeout: 'The server did not answer in time. Try again.',
  unavailable: 'The server cannot reach its log just now. Try again.',
};

/** @returns {Storage | null} null where the browser forbids it */
function openStorage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

const storage = openStorage();
const tokenKey = (/** @type {string} */ session) => `antiphon.token.${session}`;

/** Takes session and token from the link, and the token out of the address bar.
 * @returns {{session: string, token: string}} */
function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const session = link.get('session') ?? '';
  const token = link.get('token') ?? '';
  if (!token) return { session, token: storage?.getItem(tokenKey(session)) ?? '' };
  remember(session, token);
  return { session, token };
}

/** @param {string} session @param {string} token */
function remember(session, token) {
  try {
    storage?.setItem(tokenKey(session), token);
  } catch {
    // Storage full: the next reload asks for the token again.
  }
  history.replaceState(null, '', `#session=${encodeURIComponent(session)}`);
}

/** @param {string} session @param {string} why @param {(session: string, token: string) => void} joined */
function askToJoin(session, why, joined) {
  const [name, secret, error] = [byId('join-session'), byId('join-token'), byId('join-error')];
  const inputs = /** @type {HTMLInputElement[]} */ ([name, secret]);
  inputs[0].value ||= session;
  error.textContent = why;
  error.hidden = !why;
  byId('room').hidden = true;
  byId('join').hidden = false;
  inputs[session ? 1 : 0].focus();
  byId('join-form').onsubmit = (event) => {
    event.preventDefault();
    const pasted = new URLSearchParams(inputs[0].value.split('#')[1] ?? '');
    const wanted = pasted.get('session') ?? inputs[0].value.trim();
    const token = pasted.get('token') ?? inputs[1].value.trim();
    if (!/^[\w-]{1,128}$/.test(wanted)) return askToJoin('', ADVICE.bad_name, joined);
    if (!token) return askToJoin(wanted, 'A token is needed to join.', joined);
    inputs[1].value = '';
    joined(wanted, token);
  };
}

class Room {
  fold = new Fold();
  /** @type {Outbox | null} */ outbox = null;
  /** @type {Welcome | null} */ welcome = null;
  /** @type {Phase} */ phase = 'joining';
  why = '';
  /** @type {Notice | null} */ notice = null;
  /** Where the next page of history ends; null: there is no more. @type {number | null} */ before = null;
  isSettled = false; // caught up since the last snapshot: what is folded may be shown
  hasDrawn = false;
  isDrawing = false;
  isLoading = false;
  draft = /** @type {HTMLTextAreaElement} */ (byId('draft'));
  view = new View();

  /** @param {string} session @param {string} token */
  constructor(session, token) {
    this.session = session;
    const url = new URL('v1/connect', document.baseURI.split('#')[0]);
    url.protocol = url.protocol.replace('http', 'ws');
    this.connection = new Connection(url.href, session, token, {
      phase: (phase, why) => this.phased(phase, why),
      welcome: (welcome) => this.welcomed(welcome),
      reset: (snapshot) => this.reset(snapshot),
      entry: (entry) => (this.fold.apply(entry), this.redraw()),
      caughtUp: () => this.caughtUp(),
    });
    this.listen();
    this.open();
  }

  open() {
    byId('join').hidden = true;
    for (const id of ['room', 'pill', 'session']) byId(id).hidden = false;
    byId('session').textContent = this.session;
    document.title = `${this.session} · Antiphon`;
    this.connection.connect();
    this.draft.focus();
  }

  listen() {
    byId('composer').onsubmit = (event) => (event.preventDefault(), this.send());
    byId('stop').onclick = () => this.stop();
    byId('earlier').onclick = () => this.loadEarlier();
    this.draft.oninput = () => this.sizeDraft();
    this.draft.onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    };
    for (const name of ['online', 'offline']) window.addEventListener(name, () => this.connection.wake());
    document.addEventListener('visibilitychange', () => document.hidden || this.connection.wake());
  }

  /** @param {Phase} phase @param {string} why */
  phased(phase, why) {
    this.phase = phase;
    this.why = why;
    if (phase === 'live') this.notice = null;
    if (phase === 'offline') {
      this.say('No connection. Trying again by itself; what you send is kept.', 'Try now', () => this.connection.wake());
    }
    if (phase === 'closed') this.say('The server ended the connection.', 'Reconnect', () => this.connection.connect());
    if (phase === 'expired') this.askForToken('Your token has expired. Paste a new one to go on where you were.');
    if (phase === 'refused') {
      if (['unauthorized', 'not_allowed', 'bad_name'].includes(why)) this.askForToken(ADVICE[why]);
      else this.say(`The server refused the connection (${why}).`, 'Reload', () => location.reload());
    }
    this.redraw();
  }

  /** @param {string} why */
  askForToken(why) {
    askToJoin(this.session, why, (session, token) => this.renew(session, token));
  }

  /** Goes on with another token; into another session only by starting over.
   * @param {string} session @param {string} token */
  renew(session, token) {
    remember(session, token);
    if (session !== this.session) return location.reload();
    this.connection.token = token;
    this.open();
  }

  /** @param {Welcome} welcome */
  welcomed(welcome) {
    const userId = welcome.user.id;
    if (this.welcome && this.welcome.user.id !== userId) return location.reload();
    this.welcome = welcome;
    this.outbox ??= new Outbox(`antiphon.outbox.${this.session}.${userId}`, storage,
      (item) => this.transmit(item), () => this.redraw());
    this.outbox.pump();
    this.sizeDraft();
  }

  /** @param {import('./outbox.js').Item} item */
  transmit({ inputId, content }) {
    if (!this.connection.isOpen) return null;
    return this.connection.request('input.send', { session: this.session, inputId, content });
  }

  /** @param {Snapshot} snapshot */
  reset({ asOf, messagesBefore, state }) {
    this.fold = new Fold(state);
    this.before = messagesBefore > 0 ? asOf + 1 : null; // pages hold what ended before `before`
    this.isSettled = false;
    if (this.before !== null) this.loadEarlier();
    this.redraw();
  }

  caughtUp() {
    this.isSettled = true;
    this.redraw();
  }

  async loadEarlier() {
    const { before, fold } = this;
    if (before === null || this.isLoading) return;
    this.isLoading = true;
    try {
      const page = await this.connection.request('history', { session: this.session, before, limit: HISTORY_PAGE });
      if (fold === this.fold) {
        fold.prepend(page.messages);
        this.before = page.before;
      }
    } catch (error) {
      this.failed(error);
    }
    this.isLoading = false;
    this.redraw();
  }

  send() {
    const content = this.draft.value;
    if (!content.trim() || !this.outbox || !this.welcome) return;
    const { input_bytes: inputBytes, frame_bytes: frameBytes } = this.welcome.limits;
    const isLong = BYTES.encode(content).length > inputBytes
      || BYTES.encode(JSON.stringify(content)).length > frameBytes - FRAME_SPARE_BYTES;
    if (isLong) return this.say(ADVICE.content_too_large);
    if (this.outbox.isFull) return this.say('Too many messages wait to be sent already. Discard some, or try again later.');
    this.notice = null;
    this.draft.value = '';
    this.sizeDraft();
    this.outbox.add(content);
    this.view.toEnd();
  }

  stop() {
    for (const run of this.fold.runs) if (!run.cancel) this.command('run.cancel', { runId: run.runId });
  }

  /** @param {string} op @param {Record<string, string>} fields */
  async command(op, fields) {
    try {
      await this.connection.request(op, { session: this.session, ...fields });
    } catch (error) {
      this.failed(error);
    }
  }

  /** @param {unknown} error */
  failed(error) {
    if (!(error instanceof CommandError)) throw error;
    const isMoot = ['run_ended', 'run_not_found', 'input_not_found'].includes(error.code);
    if (!isMoot) this.say(ADVICE[error.code] ?? `The server refused: ${error.message}`);
  }

  /** @param {string} text @param {string} [action] @param {() => void} [run] */
  say(text, action = 'Dismiss', run = () => {}) {
    this.notice = { text, action, run: () => ((this.notice = null), run(), this.redraw()) };
    this.redraw();
  }

  sizeDraft() {
    this.draft.style.height = 'auto';
    this.draft.style.height = `${this.draft.scrollHeight}px`;
    byId('send').toggleAttribute('disabled', !this.draft.value.trim() || !this.outbox);
  }

  /** @returns {Waiting[]} what is queued in the session, then what is on its way there */
  waiting() {
    return [...this.fold.inputs.map((input) => this.queued(input)),
      ...(this.outbox?.items ?? []).map((item) => this.onItsWay(item))];
  }

  /** @param {import('./fold.js').Input} input @returns {Waiting} */
  queued({ inputId, content, by }) {
    const isMine = by?.id === this.welcome?.user.id;
    /** @type {Waiting['actions']} */ const actions = [];
    if (isMine && this.phase === 'live') actions.push(['Take back', () => void this.command('input.cancel', { inputId })]);
    return { key: inputId, content, tag: 'queued', tone: '', who: isMine ? '' : nameOf(by), actions };
  }

  /** @param {import('./outbox.js').Item} item @returns {Waiting} */
  onItsWay({ inputId, content, state, why, tries }) {
    const hasFailed = state === 'failed';
    /** @type {Waiting['actions']} */ const actions = [];
    if (hasFailed) actions.push(['Try again', () => this.outbox?.retry(inputId)]);
    if (hasFailed || tries === 0) actions.push(['Discard', () => this.outbox?.discard(inputId)]);
    if (hasFailed) return { key: inputId, content, tag: 'not sent', tone: 'bad', who: ADVICE[why] ?? why, actions };
    return { key: inputId, content, tag: tries ? 'sending…' : 'waiting', tone: '', who: '', actions };
  }

  /** At most one drawing per frame, however many entries came. */
  redraw() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => ((this.isDrawing = false), this.draw()));
  }

  draw() {
    // While a gap is mended the old picture stays, so that nothing flickers.
    if (!this.isSettled && this.hasDrawn && this.phase === 'live') return;
    this.hasDrawn ||= this.isSettled;
    this.outbox?.settle((item) => this.fold.hasTaken(item.inputId)
      || (item.state === 'stored' && this.connection.position >= item.seq));
    if (this.view.isStuck && this.fold.trim(MAX_MESSAGES)) {
      // Some way into what is kept: a message may have ended after the next one had begun.
      this.before = this.fold.messages[TRIM_OVERLAP].seq ?? null;
    }
    this.view.draw({ fold: this.fold, me: this.welcome?.user.id ?? '', phase: this.phase, why: this.why,
      waiting: this.waiting(), notice: this.notice, hasEarlier: this.before !== null, isSettled: this.isSettled });
  }
}

byId('leave').onclick = () => storage?.removeItem(tokenKey(link.session));
window.addEventListener('hashchange', () => location.reload());

const link = readLink();
const start = (/** @type {string} */ session, /** @type {string} */ token) => {
  remember(session, token);
  link.session = session;
  return new Room(session, token);
};
if (link.session && link.token) start(link.session, link.token);
else askToJoin(link.session, '', start);
