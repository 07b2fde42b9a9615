// @ts-check
/** The field one writes in, and how what is written goes: at once, after this, in its place. */
import { advice } from './advice.js';
import { byId, setText } from './dom.js';

/** @typedef {import('./room.js').Room} Room */

const FRAME_SPARE_BYTES = 512; // of a command, around its content
const BYTES = new TextEncoder();

/** What a session does by itself with a message while a run is active. @type {Record<string, string>} */
const USUAL = { auto: 'as the agent can', inject: 'steers now', enqueue: 'after this', interrupt: 'interrupts',
  rollback: 'in its place', reject: 'not now' };

export class Composer {
  draft = /** @type {HTMLTextAreaElement} */ (byId('draft'));
  mode = /** @type {HTMLSelectElement} */ (byId('mode'));

  /** @param {Room} room */
  constructor(room) {
    this.room = room;
    byId('composer').onsubmit = (event) => (event.preventDefault(), this.send());
    this.draft.oninput = () => {
      this.size();
      room.reporter.typed(this.draft.value !== '');
    };
    this.draft.onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    };
  }

  focus() {
    this.draft.focus();
  }

  /** The choice stands while there is something to choose. */
  draw() {
    const { fold, me } = this.room;
    const lane = fold.lanes.get('main');
    const isChoice = Boolean(lane?.run) && lane?.owner?.kind !== 'user';
    byId('how').hidden = !isChoice;
    if (!isChoice) this.mode.value = '';
    setText(this.mode.options[0], `Usual: ${USUAL[fold.config.onBusy]}`);
    this.mode.options[1].disabled = !lane?.can.includes('inject');
    const isOwn = lane?.owner?.kind === 'user' && lane.owner.id === me;
    this.draft.placeholder = isOwn ? 'Write for the agent' : 'Write a message';
  }

  send() {
    const { room, draft } = this;
    const content = draft.value;
    if (!content.trim() || !room.outbox || !room.welcome) return;
    const { input_bytes: inputBytes, frame_bytes: frameBytes } = room.welcome.limits;
    const isLong = BYTES.encode(content).length > inputBytes
      || BYTES.encode(JSON.stringify(content)).length > frameBytes - FRAME_SPARE_BYTES;
    if (isLong) return room.say(advice('content_too_large'));
    if (room.outbox.isFull) return room.say('Too many messages wait to be sent already. Discard some, or try again later.');
    room.notice = null;
    draft.value = '';
    this.size();
    room.reporter.typed(false);
    room.outbox.add(content, this.mode.value || undefined);
    room.view.toEnd();
  }

  size() {
    this.draft.style.height = 'auto';
    this.draft.style.height = `${this.draft.scrollHeight}px`;
    byId('send').toggleAttribute('disabled', !this.draft.value.trim() || !this.room.outbox);
  }
}
