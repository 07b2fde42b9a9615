// @ts-check
/** A session on this page: wires connection, fold, outbox, tool, presence and view together. */
import { OVERTAKEN, advice, adviceOn } from './advice.js';
import { Composer } from './composer.js';
import { CommandError, Connection } from './connection.js';
import { byId } from './dom.js';
import { Fold } from './fold.js';
import { askToJoin, deviceName, remember, storage } from './link.js';
import { Outbox } from './outbox.js';
import { Reporter } from './presence.js';
import { Scenery } from './scenery.js';
import { BrowserTool, DECLARED } from './tools.js';
import { View } from './view.js';

/**
 * @typedef {import('./connection.js').Welcome} Welcome
 * @typedef {import('./connection.js').Phase} Phase
 * @typedef {import('./connection.js').Snapshot} Snapshot
 * @typedef {import('./connection.js').Participant} Participant
 * @typedef {import('./view.js').Notice} Notice
 */

const HISTORY_PAGE = 50;
const MAX_MESSAGES = 2_000; // kept while the reader follows the end; `history` has the rest
const TRIM_OVERLAP = 16;
const MAX_ERRORS = 64; // refusals that are shown where they were met

export class Room {
  fold = new Fold();
  /** @type {Outbox | null} */ outbox = null;
  /** @type {Welcome | null} */ welcome = null;
  /** @type {Phase} */ phase = 'joining';
  why = '';
  /** @type {Notice | null} */ notice = null;
  /** @type {Participant[]} */ people = [];
  /** Refusals, by what was clicked. @type {Map<string, string>} */ errors = new Map();
  /** Where the next page of history ends; null: there is no more. @type {number | null} */ before = null;
  isSettled = false; // caught up since the last snapshot: what is folded may be shown
  hasDrawn = false;
  isDrawing = false;
  isLoading = false;
  view = new View();
  composer = new Composer(this);
  scenery = new Scenery(this);
  reporter = new Reporter((state) => this.request('presence.set', { state }));
  /** @type {BrowserTool | null} */ tool = null;

  /** @param {import('./link.js').Link} link */
  constructor(link) {
    this.link = link;
    const url = new URL('v1/connect', document.baseURI.split('#')[0]);
    url.protocol = url.protocol.replace('http', 'ws');
    const device = deviceName();
    this.connection = new Connection(url.href, link.session, link.token, device, link.hasTools ? DECLARED : [], {
      phase: (phase, why) => this.phased(phase, why),
      welcome: (welcome) => this.welcomed(welcome),
      reset: (snapshot) => this.reset(snapshot),
      entry: (entry) => this.entered(entry),
      caughtUp: () => this.caughtUp(),
      presence: (participants) => ((this.people = participants), this.redraw()),
    });
    if (link.hasTools) {
      this.tool = new BrowserTool(device, (op, fields) => this.request(op, fields),
        (error, id) => this.failed(error, id), () => this.redraw());
    }
    this.listen();
    this.open();
  }

  get me() {
    return this.welcome?.user.id ?? '';
  }

  open() {
    byId('join').hidden = true;
    for (const id of ['room', 'pill', 'session']) byId(id).hidden = false;
    this.connection.connect();
    this.composer.focus();
  }

  listen() {
    byId('stop').onclick = () => this.stop();
    byId('earlier').onclick = () => this.loadEarlier();
    for (const name of ['online', 'offline']) window.addEventListener(name, () => this.connection.wake());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.connection.wake();
      this.redraw();
    });
  }

  /** @param {Phase} phase @param {string} why */
  phased(phase, why) {
    this.phase = phase;
    this.why = why;
    if (phase === 'live') this.notice = null;
    else this.reporter.left();
    if (phase === 'offline') {
      this.say('No connection. Trying again by itself; what you send is kept.', 'Try now', () => this.connection.wake());
    }
    if (phase === 'closed') this.say('The server ended the connection.', 'Reconnect', () => this.connection.connect());
    if (phase === 'expired') this.askForToken('Your token has expired. Paste a new one to go on where you were.');
    if (phase === 'refused') {
      if (['unauthorized', 'not_allowed', 'bad_name'].includes(why)) this.askForToken(advice(why));
      else this.say(`The server refused the connection (${why}).`, 'Reload', () => location.reload());
    }
    this.redraw();
  }

  /** @param {string} why */
  askForToken(why) {
    askToJoin(this.link.session, why, (session, token) => this.renew(session, token));
  }

  /** Goes on with another token; into another session only by starting over.
   * @param {string} session @param {string} token */
  renew(session, token) {
    remember({ ...this.link, session, token });
    if (session !== this.link.session) return location.reload();
    this.connection.token = token;
    this.open();
  }

  /** @param {Welcome} welcome */
  welcomed(welcome) {
    const userId = welcome.user.id;
    if (this.welcome && this.welcome.user.id !== userId) return location.reload();
    this.welcome = welcome;
    this.outbox ??= new Outbox(`antiphon.outbox.${this.link.session}.${userId}`, storage,
      (item) => this.transmit(item), () => this.redraw());
    this.outbox.pump();
    this.composer.size();
  }

  /** @param {import('./outbox.js').Item} item */
  transmit({ inputId, content, mode }) {
    if (!this.connection.isOpen) return null;
    return this.request('input.send', { inputId, content, mode });
  }

  /** @param {Snapshot} snapshot */
  reset({ asOf, messagesBefore, state }) {
    this.fold = new Fold(state);
    this.before = messagesBefore > 0 ? asOf + 1 : null; // pages hold what ended before `before`
    this.isSettled = false;
    if (this.before !== null) this.loadEarlier();
    this.redraw();
  }

  /** @param {import('./fold.js').Entry} entry */
  entered(entry) {
    this.fold.apply(entry);
    if (entry.events.some((event) => event.type === 'session.deleted')) {
      this.before = null;
      this.say('The session was deleted: it begins anew.');
    }
    this.redraw();
  }

  caughtUp() {
    this.isSettled = true;
    this.reporter.joined();
    this.tool?.rejoined();
    this.redraw();
  }

  async loadEarlier() {
    const { before, fold } = this;
    if (before === null || this.isLoading) return;
    this.isLoading = true;
    try {
      const page = await this.request('history', { before, limit: HISTORY_PAGE });
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

  stop() {
    for (const run of this.fold.runs) {
      if (run.cancel?.mode !== 'immediate') this.command('run.cancel', { runId: run.runId, mode: 'immediate' });
    }
  }

  /** @param {string} op @param {Record<string, unknown>} fields */
  request(op, fields) {
    return this.connection.request(op, { session: this.link.session, ...fields });
  }

  /** @param {string} op @param {Record<string, unknown>} fields
   * @param {string} [key] of what was clicked: a refusal is shown there */
  async command(op, fields, key) {
    if (key) this.errors.delete(key);
    try {
      await this.request(op, fields);
    } catch (error) {
      this.failed(error, key);
    }
  }

  /** @param {unknown} error @param {string} [key] of what was clicked, if it still stands */
  failed(error, key) {
    if (!(error instanceof CommandError)) throw error;
    const text = adviceOn(error);
    if (!text) return;
    if (!key || OVERTAKEN.includes(error.code)) return this.say(text);
    if (this.errors.size >= MAX_ERRORS) this.errors.clear();
    this.errors.set(key, text);
    this.redraw();
  }

  /** @param {string} text @param {string} [action] @param {() => void} [run] */
  say(text, action = 'Dismiss', run = () => {}) {
    this.notice = { text, action, run: () => ((this.notice = null), run(), this.redraw()) };
    this.redraw();
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
    if (this.phase === 'live' && this.isSettled) this.tool?.look(this.fold, this.me);
    this.composer.draw();
    this.view.draw(this.scenery.scene());
  }
}
