// @ts-check
/**
 * The one tool that this page executes, if the link says so: `ask_browser` puts a question to who
 * sits before it. A call is claimed, held while the question stands here, and answered once
 * (docs/PROTOCOL.md, section 7).
 *
 * @typedef {import('./fold.js').Fold} Fold
 * @typedef {import('./fold.js').Call} Call
 * @typedef {import('./connection.js').CommandError} CommandError
 * @typedef {{toolCallId: string, question: string, answer: (text: string) => void, decline: () => void}} Ask
 */
import { isTarget } from './fold/calls.js';

const NAME = 'ask_browser';
const LEASE_MS = 60_000;
const RENEW_MS = 20_000;
const MAX_WAIT_MS = 3_600_000;

export const DECLARED = [{ name: NAME, description: 'Asks the person before the browser, and gives their answer back',
  parameters: { type: 'object', properties: { question: { type: 'string' } }, required: ['question'] },
  result: { type: 'object', properties: { answer: { type: 'string' } }, required: ['answer'] },
  idempotent: false, needsPermission: false }];

export class BrowserTool {
  /** Calls that are claimed here, or on their way to it.
   * @type {Map<string, {call: Call, isClaimed: boolean, timer: number}>} */ #held = new Map();
  /** @type {number | undefined} */ #timer;
  /** Calls that somebody else has; tried again after a reconnect. @type {Set<string>} */ #refused = new Set();

  /** @param {string} device names the claims too: a reload goes on with what it held
   * @param {(op: string, fields: Record<string, unknown>) => Promise<unknown>} request
   * @param {(error: CommandError, toolCallId?: string) => void} refused with the call, if its card stands
   * @param {() => void} changed */
  constructor(device, request, refused, changed) {
    this.device = device;
    this.request = request;
    this.refused = refused;
    this.changed = changed;
  }

  /** @returns {Ask[]} the questions that stand here */
  get asks() {
    return [...this.#held.values()].filter((held) => held.isClaimed).map(({ call }) => ({
      toolCallId: call.toolCallId,
      question: String(call.args?.question ?? ''),
      answer: (text) => void this.#resolve(call.toolCallId, { result: { answer: text } }),
      decline: () => void this.#resolve(call.toolCallId, { error: 'The person declined to answer.' }),
    }));
  }

  rejoined() {
    this.#refused.clear();
  }

  /** Claims what is for this page; lets go of what is over. @param {Fold} fold @param {string} me */
  look(fold, me) {
    for (const id of this.#held.keys()) if (!fold.openCall(id)) this.#drop(id);
    this.#lookAgain(fold);
    for (const call of fold.openCalls) {
      if (call.name !== NAME || call.executor !== 'client') continue;
      if (this.#held.has(call.toolCallId) || this.#refused.has(call.toolCallId)) continue;
      const isOurs = call.claim?.claimId === this.device && call.claim.by?.id === me;
      const isFree = call.claim === null && !document.hidden && isTarget(call, me, this.device, Date.now());
      if (isOurs || isFree) this.#claim(call);
    }
  }

  /** When a call that is for somebody else may be anybody's. @param {Fold} fold */
  #lookAgain(fold) {
    clearTimeout(this.#timer);
    const times = fold.openCalls.flatMap(({ name, claim, anyAfter }) => (name === NAME && !claim && anyAfter) || []);
    const waits = times.map((time) => time - Date.now()).filter((ms) => ms > 0 && ms < MAX_WAIT_MS);
    if (waits.length) this.#timer = setTimeout(this.changed, Math.min(...waits));
  }

  /** @param {Call} call */
  async #claim(call) {
    const { toolCallId } = call;
    const held = { call, isClaimed: false, timer: setInterval(() => this.#renew(toolCallId), RENEW_MS) };
    this.#held.set(toolCallId, held);
    if (!(await this.#renew(toolCallId))) return;
    held.isClaimed = true;
    this.changed();
  }

  /** @param {string} toolCallId @returns {Promise<boolean>} false: it is not ours */
  async #renew(toolCallId) {
    try {
      await this.request('tool.claim', { toolCallId, claimId: this.device, leaseMs: LEASE_MS });
      return true;
    } catch (error) {
      const refusal = /** @type {CommandError} */ (error);
      if (refusal.retryable && this.#held.get(toolCallId)?.isClaimed) return true; // until the lease is over
      this.#refused.add(toolCallId);
      this.#drop(toolCallId);
      if (refusal.code === 'not_allowed') this.refused(refusal);
      this.changed();
      return false;
    }
  }

  /** @param {string} toolCallId @param {{result: object} | {error: string}} outcome */
  async #resolve(toolCallId, outcome) {
    try {
      await this.request('tool.result', { toolCallId, claimId: this.device, ...outcome });
      this.#refused.add(toolCallId); // its entry may still be on the way
      this.#drop(toolCallId);
    } catch (error) {
      this.refused(/** @type {CommandError} */ (error), toolCallId);
    }
    this.changed();
  }

  /** @param {string} toolCallId */
  #drop(toolCallId) {
    clearInterval(this.#held.get(toolCallId)?.timer);
    this.#held.delete(toolCallId);
  }
}
