// @ts-check
/** What is to be drawn, made of what the room knows; and what its buttons do. */
import { advice } from './advice.js';
import { nameOf } from './dom.js';
import { newId } from './outbox.js';

/**
 * @typedef {import('./room.js').Room} Room
 * @typedef {import('./view.js').Scene} Scene
 * @typedef {import('./view.js').Waiting} Waiting
 */

/** @type {Record<string, string>} */
const MODE_TAGS = { enqueue: 'queued', inject: 'steers', interrupt: 'interrupts', rollback: 'in its place' };

export class Scenery {
  /** @param {Room} room */
  constructor(room) {
    this.room = room;
  }

  /** @returns {Scene} */
  scene() {
    const { fold, me, phase, why, notice, before, isSettled, people, link } = this.room;
    return { fold, me, phase, why, notice, isSettled, people, session: link.session, hasEarlier: before !== null,
      waiting: this.#waiting(), cards: this.#cards(), banners: this.#banners() };
  }

  /** @returns {Waiting[]} what is queued in the session, then what is on its way there */
  #waiting() {
    const { fold, outbox } = this.room;
    return [...fold.inputs.map((input) => this.#queued(input)), ...(outbox?.items ?? []).map((item) => this.#onItsWay(item))];
  }

  /** @param {import('./fold.js').Input} input @returns {Waiting} */
  #queued({ inputId, content, by, mode, lane }) {
    const { room } = this;
    const isMine = by?.kind === 'user' && by.id === room.me;
    /** @type {Waiting['actions']} */ const actions = [];
    if (isMine && room.phase === 'live') {
      actions.push(['Take back', () => void room.command('input.cancel', { inputId }, inputId)]);
    }
    const who = `${isMine ? '' : nameOf(by)}${lane === 'main' ? '' : ` → ${lane}`}`;
    return { key: inputId, content, tag: MODE_TAGS[mode] ?? mode, tone: mode, who, actions, error: room.errors.get(inputId) };
  }

  /** @param {import('./outbox.js').Item} item @returns {Waiting} */
  #onItsWay({ inputId, content, state, why, tries, mode }) {
    const { outbox } = this.room;
    const hasFailed = state === 'failed';
    /** @type {Waiting['actions']} */ const actions = [];
    if (hasFailed) actions.push(['Try again', () => outbox?.retry(inputId, mode)]);
    if (hasFailed && mode && mode !== 'enqueue') actions.push(['Send after this', () => outbox?.retry(inputId)]);
    if (hasFailed || tries === 0) actions.push(['Discard', () => outbox?.discard(inputId)]);
    if (hasFailed) return { key: inputId, content, tag: 'not sent', tone: 'bad', who: advice(why), actions };
    return { key: inputId, content, tag: tries ? 'sending…' : 'waiting', tone: '', who: '', actions };
  }

  /** @returns {Scene['cards']} */
  #cards() {
    const { room } = this;
    const { fold, me, errors } = room;
    const asks = (room.tool?.asks ?? []).map((ask) =>
      /** @type {Scene['cards'][0]} */ ([ask.toolCallId, { ask, me, from: '', error: errors.get(ask.toolCallId) ?? '' }]));
    return [...asks, ...fold.pendingApprovals.map((approval) => this.#approval(approval))];
  }

  /** @param {import('./fold.js').Approval} approval @returns {Scene['cards'][0]} */
  #approval(approval) {
    const { room } = this;
    const { approvalId, runId, lane, toolCallId } = approval;
    const agent = room.fold.runs.find((run) => run.runId === runId)?.agent;
    const args = (toolCallId && room.fold.calls.get(toolCallId)?.args) ?? null;
    const respond = (/** @type {string} */ option, /** @type {any} */ payload) =>
      void room.command('approval.respond', { approvalId, option, payload }, approvalId);
    return [approvalId, { approval, args, respond, me: room.me, from: lane === 'main' ? '' : agent ?? lane,
      error: room.errors.get(approvalId) ?? '' }];
  }

  /** @returns {Scene['banners']} */
  #banners() {
    const { room } = this;
    const { fold, errors } = room;
    const waiting = fold.waitingHandoffs.map((handoff) => {
      const { handoffId, lane } = handoff;
      const take = () => void room.command('handoff.claim', { lane, handoffId }, handoffId);
      return /** @type {Scene['banners'][0]} */ ([handoffId, { handoff, take, error: errors.get(handoffId) ?? '' }]);
    });
    const own = [...fold.lanes].filter(([, { owner }]) => owner?.kind === 'user' && owner.id === room.me).map(([lane]) => {
      const key = `lane:${lane}`;
      const giveBack = (/** @type {string} */ note) =>
        void room.command('handoff.return', { lane, inputId: newId(), note: note || undefined }, key);
      return /** @type {Scene['banners'][0]} */ ([key, { lane, giveBack, error: errors.get(key) ?? '' }]);
    });
    return [...waiting, ...own];
  }
}
