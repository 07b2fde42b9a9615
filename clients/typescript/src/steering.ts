/** The commands into a session that need nothing but a connection (PROTOCOL, section 7). */
import { Sharing } from './attachments.js';
import { ConnectionClosed } from './errors.js';
import { readVote } from './fold/read.js';
import { readMessage } from './fold/transcript.js';
import { newId } from './ids.js';
import { asCount, asInt, asString, type JsonObject, readAll } from './json.js';
import type { Config, Message, Vote } from './model.js';
import type { Abortable } from './wait.js';

/** Whole messages, oldest first. Pass `before` on for the page before; null: there is none. */
export interface HistoryPage {
  readonly messages: readonly Message[];
  readonly before: number | null;
}

/** What a session is told about itself. */
export interface About {
  readonly title?: string;
  readonly metadata?: JsonObject;
  readonly config?: Partial<Config>;
}

/**
 * The part of a session that steers runs, decides, takes over, and manages the session. Every command resolves once it
 * is stored, is sent again by itself after a lost connection, and rejects with its refusal (`CommandRefused`), or with
 * `ConnectionClosed` when the client has stopped. One that is aborted may or may not have been stored.
 */
export class Steering extends Sharing {
  protected isClosed = false;

  protected async ask(op: string, fields: JsonObject, { signal }: Abortable = {}, gate?: string): Promise<JsonObject> {
    this.checkOpen();
    return this.host.call({ op, session: this.name, ...fields }, signal, gate);
  }

  protected checkOpen(): void {
    if (this.isClosed) throw new ConnectionClosed('closed', `session ${this.name} was closed`);
  }

  // ---- runs and inputs

  /** Stops a run, even before it starts; safe to repeat. `after_step`: at the end of the step that is going on. */
  async cancelRun(runId: string, { mode, signal }: { mode?: 'immediate' | 'after_step' } & Abortable = {}) {
    const reply = await this.ask('run.cancel', { runId, mode }, { signal });
    return asString(reply['status']) === 'cancelled' ? 'cancelled' : 'cancelling';
  }

  /** Takes back an input that still waits. */
  async cancelInput(inputId: string, options?: Abortable): Promise<void> {
    await this.ask('input.cancel', { inputId }, options);
  }

  /** Up to `limit` (1 to 200, default 50) whole messages that were added before the entry `before`. */
  async history(options: { before?: number | undefined; limit?: number } & Abortable = {}): Promise<HistoryPage> {
    const { before, limit, signal } = options;
    const reply = await this.ask('history', { before, limit }, { signal });
    return { messages: readAll(reply['messages'], readMessage), before: asCount(reply['before']) };
  }

  // ---- calls, for who declares tools without executing them here

  /** Says that this client is about to execute a call, for `leaseMs`; again with the same `claimId` for more time. */
  async claimCall(toolCallId: string, claimId: string, leaseMs?: number, options?: Abortable): Promise<void> {
    await this.ask('tool.claim', { toolCallId, claimId, leaseMs }, options);
  }

  /** Says what came of a claimed call: a result, or an error. */
  async sendResult(
    toolCallId: string,
    claimId: string,
    outcome: { readonly result: unknown } | { readonly error: string },
    options?: Abortable,
  ): Promise<void> {
    await this.ask('tool.result', { toolCallId, claimId, ...outcome }, options);
  }

  /** Executes a call by hand: claims it, and sends what came of it. Its tool must be declared on this connection. */
  async resolveCall(
    toolCallId: string,
    outcome: { readonly result: unknown } | { readonly error: string },
    { claimId = newId(), signal }: { claimId?: string } & Abortable = {},
  ): Promise<void> {
    await this.claimCall(toolCallId, claimId, undefined, { signal });
    await this.sendResult(toolCallId, claimId, outcome, { signal });
  }

  // ---- approvals and questions

  /** Decides a pending approval, or answers a question; `payload` is the answer, or edited arguments. */
  async respond(approvalId: string, option: string, { payload, signal }: { payload?: unknown } & Abortable = {}) {
    const reply = await this.ask('approval.respond', { approvalId, option, payload }, { signal });
    return {
      status: asString(reply['status']) ?? 'pending',
      decision: asString(reply['decision']),
      votes: readAll<Vote>(reply['votes'], readVote),
    };
  }

  /** Has asked again what was decided for always (`state.remembered`). */
  async revoke(key: string, options?: Abortable): Promise<void> {
    await this.ask('approval.revoke', { key }, options);
  }

  // ---- hand-over

  /**
   * Takes a lane from its agent; resolves with the fence under which it is the user's. With `handoffId` it answers that
   * hand-over, else the lane is taken unasked (admin).
   */
  async claimHandoff(options: { lane?: string; handoffId?: string } & Abortable = {}): Promise<number | null> {
    const { signal, ...fields } = options;
    return asInt((await this.ask('handoff.claim', fields, { signal }))['fence']);
  }

  /** Gives the lane back to the agent; a `note` is its next input. Resolves with the id of that input. */
  async returnHandoff(options: { note?: string; lane?: string; inputId?: string } & Abortable = {}): Promise<string> {
    const { signal, note, lane, inputId = newId() } = options;
    await this.ask('handoff.return', { lane, inputId, note: note || undefined }, { signal });
    return inputId;
  }

  // ---- the session itself

  /** Says what the session is before anything is written to it. */
  async create(about: About = {}, options?: Abortable): Promise<{ seq: number | null; isDuplicate: boolean }> {
    const reply = await this.ask('session.create', { ...about }, options);
    return { seq: asCount(reply['seq']), isDuplicate: reply['duplicate'] === true };
  }

  /** Changes what is given, and of `config` its fields. */
  async update(about: About, options?: Abortable): Promise<void> {
    await this.ask('session.update', { ...about }, options);
  }

  /** Has the session take no inputs, for everybody (`close` only stops reading it here). */
  async closeSession(options?: Abortable): Promise<void> {
    await this.ask('session.close', {}, options);
  }

  /** Has the session take inputs again. */
  async reopenSession(options?: Abortable): Promise<void> {
    await this.ask('session.reopen', {}, options);
  }

  /** Deletes the session, for everybody and for good. */
  async delete(options?: Abortable): Promise<void> {
    await this.ask('session.delete', {}, options);
  }

  /** Makes the session `to`, which begins with this one's messages that were added before the entry `before`. */
  async fork(to: string, { before, signal }: { before?: number } & Abortable = {}): Promise<number> {
    const reply = await this.ask('session.fork', { to, before }, { signal });
    return asCount(reply['messages']) ?? 0;
  }
}
