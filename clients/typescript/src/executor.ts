/**
 * Executes the calls of a session that are for tools of this client.
 *
 * What is open is read from the fold (`look`). A call is claimed when there is room to execute it, executed only after
 * the gateway has confirmed the claim, at most once by this object, and given up as soon as the fold says that it is
 * over or somebody else's:
 *
 *     open, unclaimed ── tool.claim ──► ok ── execute, renewing ──► tool.result
 *                           │ refused        │ over, or the claim is lost: aborted, nothing is sent
 *                           ▼                │ the session is closed: see `#letGo`
 *                     left, or tried later   ▼
 */
import { AntiphonError } from './errors.js';
import { newId } from './ids.js';
import { asObject, type JsonObject } from './json.js';
import type { Call } from './model.js';
import type { Settings } from './settings.js';
import type { Tool } from './tools.js';
import { delay, Notifier } from './wait.js';

/** Calls that are remembered as executed: more than the running runs of a session may have had. */
const KEPT_ENDS = 1024;
/** How much of what a tool threw is told to the agent. */
const ERROR_CHARS = 4096;
/** Refusals while the subscription is being renewed. */
const LATER: readonly string[] = ['not_declared', 'not_subscribed'];
/** Refusals of a result that is not as it must be. */
const VALUE: readonly string[] = ['result_invalid', 'content_too_large', 'frame_too_large'];
const UNKNOWN = { error: 'the client was closed while it executed the call; what it did is not known' };

/** Sends a command of the session until it is answered. */
type Ask = (op: string, fields: JsonObject) => Promise<JsonObject>;

/** A call on its way. */
class Job {
  readonly claimId = newId();
  readonly over = new AbortController();
  readonly done = new Notifier();
  isAsked = false;
  isBegun = false;
  isRefused = false;
  /** The fold has our claim, or (later) that of somebody else. */
  isSeen = false;
  isOthers = false;
  outcome: JsonObject | null = null;

  constructor(readonly call: Call) {}

  get ids(): JsonObject {
    return { toolCallId: this.call.toolCallId, claimId: this.claimId };
  }
}

export class Executor {
  #open = new Map<string, Call>();
  #ts = 0;
  #slots: number;
  #isClosed = false;
  readonly #jobs = new Map<string, Job>();
  readonly #ended = new Set<string>();
  /** Claimed by somebody, says the gateway; the fold will see it, too. */
  readonly #taken = new Set<string>();
  readonly #freed = new Notifier();

  constructor(
    readonly tools: () => ReadonlyMap<string, Tool>,
    readonly settings: Settings,
    readonly ask: Ask,
  ) {
    this.#slots = settings.toolExecutions;
  }

  /** These calls are open, after an entry of the time `ts` (ms since 1970; 0: not known). */
  look(calls: readonly Call[], ts: number): void {
    this.#open = new Map();
    for (const call of calls) {
      const key = `${call.runId} ${call.toolCallId}`;
      const isOurs = this.tools().has(call.name) || this.#jobs.has(key);
      if (isOurs && call.executor === 'client') this.#open.set(key, call);
    }
    this.#ts = Math.max(ts, this.#ts);
    for (const [key, { claim }] of this.#open) {
      if (!claim) continue;
      this.#taken.delete(key);
      const job = this.#jobs.get(key);
      if (!job) continue;
      job.isOthers = claim.claimId !== job.claimId;
      job.isSeen ||= !job.isOthers;
    }
    for (const key of this.#taken) if (!this.#open.has(key)) this.#taken.delete(key);
    this.#reconcile();
  }

  /** Lets go of what is being executed, within `toolReleaseMs`. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const jobs = [...this.#jobs.values()].filter((job) => !job.over.signal.aborted);
    const letGo = jobs.map((job) => this.#letGo(job));
    for (const job of jobs) job.over.abort(new AntiphonError('closed'));
    const enough = new AbortController();
    await Promise.race([Promise.allSettled(letGo), delay(this.settings.toolReleaseMs, enough.signal)]);
    enough.abort(); // the timer would keep a process
  }

  /** Begins what is open and free, and stops what is over. */
  #reconcile(): void {
    if (this.#isClosed) return;
    for (const [key, job] of this.#jobs) {
      if (!this.#open.has(key) || (job.isSeen && job.isOthers)) job.over.abort(new AntiphonError('call_over'));
    }
    for (const [key, call] of this.#open) {
      if (call.claim || this.#jobs.has(key) || this.#taken.has(key) || this.#ended.has(key)) continue;
      const job = new Job(call);
      this.#jobs.set(key, job);
      void this.#serve(key, job);
    }
  }

  async #serve(key: string, job: Job): Promise<void> {
    const { signal } = job.over;
    try {
      for (let attempt = 0; attempt < this.settings.toolClaims; attempt += 1) {
        while (this.#slots === 0) await this.#freed.wait(signal);
        this.#slots -= 1;
        const pauseMs = await this.#attempt(key, job, attempt).finally(() => {
          this.#slots += 1;
          this.#freed.fire();
        });
        if (pauseMs === null) return;
        await delay(pauseMs, signal);
      }
      job.isRefused = true;
    } catch {
      job.isRefused = true; // the call is over, or the client has stopped
    } finally {
      this.#jobs.delete(key);
      if (job.isBegun || (job.isRefused && !signal.aborted)) this.#remember(key);
      this.#reconcile();
    }
  }

  #remember(key: string): void {
    this.#ended.add(key);
    if (this.#ended.size <= KEPT_ENDS) return;
    for (const oldest of this.#ended) return void this.#ended.delete(oldest);
  }

  // ---- claiming

  /** Claims and executes; answers after how many ms to try again, null if there is no sense in that. */
  async #attempt(key: string, job: Job, attempt: number): Promise<number | null> {
    const call = this.#open.get(key);
    if (!call || call.claim || job.over.signal.aborted) return null;
    try {
      job.isAsked = true;
      await this.#claim(job);
    } catch (error) {
      return this.#afterRefusal(key, job, asError(error), attempt);
    }
    if (this.#open.has(key) && !job.over.signal.aborted) await this.#execute(job);
    return null;
  }

  #claim(job: Job): Promise<JsonObject> {
    return this.ask('tool.claim', { ...job.ids, leaseMs: this.settings.toolLeaseMs });
  }

  #afterRefusal(key: string, job: Job, { code, retryable }: AntiphonError, attempt: number): number | null {
    const backOffMs = this.settings.backoffBaseMs * 2 ** attempt;
    if (code === 'already_claimed') {
      if (!job.isOthers) this.#taken.add(key); // until the fold, too, has seen it
      return null;
    }
    const { anyAfter } = job.call;
    if (code === 'not_targeted' && anyAfter !== null) {
      // by the clock that says less: this one's, or that of the latest entry
      return Math.max(0, Math.min(anyAfter - Date.now(), anyAfter - this.#ts)) + backOffMs;
    }
    if (retryable || LATER.includes(code)) return backOffMs;
    job.isRefused = true;
    return null;
  }

  // ---- executing

  async #execute(job: Job): Promise<void> {
    job.isBegun = true;
    const { call, over } = job;
    const renewing = setInterval(() => {
      this.#claim(job).catch((error: unknown) => asError(error).retryable || over.abort(error));
    }, this.settings.toolLeaseMs / 3);
    try {
      const outcome = await this.#outcome(job, call);
      if (over.signal.aborted) return;
      job.outcome = outcome;
      await this.#report(job, outcome);
    } finally {
      clearInterval(renewing);
    }
  }

  async #outcome(job: Job, { name, args, toolCallId, runId, deadline }: Call): Promise<JsonObject> {
    const { signal } = job.over;
    const progress = async (value: unknown) => void (await this.ask('tool.progress', { ...job.ids, value }));
    try {
      const tool = this.tools().get(name);
      const result = await tool?.execute(asObject(args) ?? {}, { toolCallId, runId, deadline, signal, progress });
      return { result: JSON.parse(JSON.stringify(result ?? null)) };
    } catch (error) {
      return { error: String((error as Error | null)?.message || error).slice(0, ERROR_CHARS) };
    }
  }

  /** Sends what came of it, for as long as the claim is held. */
  async #report(job: Job, outcome: JsonObject): Promise<void> {
    for (let sent = outcome; !job.over.signal.aborted; ) {
      try {
        await this.ask('tool.result', { ...job.ids, ...sent });
        return;
      } catch (caught) {
        const error = asError(caught);
        if (VALUE.includes(error.code) && !('error' in sent)) {
          sent = { error: `the tool's result was refused: ${error.message}`.slice(0, ERROR_CHARS) };
        } else if (error.retryable) await delay(this.settings.backoffBaseMs, job.over.signal);
        else return; // the call is not ours any more
      }
    }
  }

  /**
   * The session is being closed while the call is ours. What was not begun, or may be executed twice, is released:
   * somebody else may execute it. Of anything else it is not known what it did, and that is what the agent is told.
   */
  async #letGo(job: Job): Promise<void> {
    if (!job.isAsked) return;
    const isDone = job.outcome !== null || (job.isBegun && !job.call.idempotent);
    if (isDone) await this.ask('tool.result', { ...job.ids, ...(job.outcome ?? UNKNOWN) });
    else await this.ask('tool.release', job.ids);
  }
}

const asError = (error: unknown): AntiphonError =>
  error instanceof AntiphonError ? error : new AntiphonError('internal', String(error));
