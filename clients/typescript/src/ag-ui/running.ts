/** One run of an agent of AG-UI, over a session of a client: what it is asked for, and what comes of it. */
import type { CoreClient } from '../core-client.js';
import type { CoreSession } from '../core-session.js';
import { AntiphonError } from '../errors.js';
import { newId } from '../ids.js';
import type { Approval, Call, Message } from '../model.js';
import type { SessionEvent } from '../subscription.js';
import { partsOf, textOf } from './content.js';
import { endingOf } from './endings.js';
import { decision, type Page, type Waiting } from './interrupts.js';
import { resultsOf, type Shown } from './messages.js';
import { Projection } from './projection.js';
import { type Asked, checkHistory, declarations, freshMessages, resultOf } from './request.js';
import type { Event } from './stream.js';

/** How long a run must have waited for the page before its stream ends: agents ask for several things at once. */
const SETTLE_MS = 100;
/** How long a page may execute a tool: the longest lease that a gateway gives. */
const LEASE_MS = 120_000;
/** The newest messages of a session that an application is shown. */
const MESSAGES = 1000;
/** Those that its own are compared with: who has them has those before. */
const RECENT = 32;
const PAGE = 200;
/** Refusals that say that a call went another way: the log tells which. */
const NOT_OURS: readonly string[] = [
  'already_claimed',
  'already_resolved',
  'arguments_invalid',
  'call_not_found',
  'deadline_passed',
  'not_claimed',
  'not_targeted',
];
const DECIDED: readonly string[] = ['already_resolved', 'already_voted', 'deadline_passed'];

const codeOf = (error: unknown): string => (error instanceof AntiphonError ? error.code : 'internal');

/** How a run is asked for beside its input. */
export interface RunningOptions {
  readonly client: CoreClient;
  /** The user's roles: what only others may decide is waited for, and is no interrupt. */
  readonly roles: readonly string[];
  /** Nothing is sent or answered: the stream is that of what runs now. */
  readonly onlyJoins: boolean;
}

export class Running {
  readonly #over = new AbortController();
  readonly #tools: readonly ReturnType<typeof declarations>[number][];
  readonly #left = new Set<string>();
  #session: CoreSession | null = null;
  #runId: string | null = null;
  #isCancelled = false;
  #waitsSince: number | null = null;
  /** The entry before which older messages are; null: there are none. */
  #end: number | null = null;

  constructor(
    readonly asked: Asked,
    readonly options: RunningOptions,
    readonly emit: (event: Event) => void,
  ) {
    this.#tools = declarations(asked.tools ?? []);
  }

  /** Nobody listens any more. The log's run goes on. */
  leave(): void {
    this.#over.abort(new AntiphonError('left'));
  }

  /** Stops the log's run; the stream then ends with it. */
  cancel(): void {
    this.#isCancelled = true;
    if (this.#runId !== null) void this.#session?.cancelRun(this.#runId).catch(() => {}); // it is over already
  }

  /** Resolves when the stream has ended. Rejects with a refusal, as long as nothing has been emitted. */
  async run(): Promise<void> {
    const { client } = this.options;
    const welcome = await client.connect({ signal: this.#over.signal });
    const { threadId, runId, protocolVersion } = this.asked;
    if (client.has(threadId)) {
      throw new AntiphonError(
        'session_open',
        `session ${threadId} is open already: give the agent a client of its own`,
      );
    }
    const tools = new Set(this.#tools.map(({ name }) => String(name)));
    const page: Page = { user: welcome.user.id, roles: this.options.roles, approves: true, tools };
    const projection = new Projection(threadId, runId, page, protocolVersion !== undefined);
    const session = client.session(threadId, this.#tools.length ? { declares: this.#tools } : {});
    this.#session = session;
    try {
      await this.#stream(session, projection);
    } finally {
      await session.close();
    }
  }

  async #stream(session: CoreSession, projection: Projection): Promise<void> {
    const events = session.events({ signal: this.#over.signal });
    await this.#fold(session, projection, events);
    const client = this.asked.messages as readonly Shown[];
    if (projection.lacks(client)) projection.remember(await this.#older(session, MESSAGES));
    const shown = projection.shown;
    checkHistory(client, shown, session.name);
    const queued = projection.state.inputs.map(({ inputId }) => inputId);
    const known = new Set([...shown.map(({ id }) => id), ...queued]);
    const fresh = this.options.onlyJoins ? [] : freshMessages(client, known, session.name);
    const first = projection.begin(client, fresh);
    first.push(...(await this.#act(session, projection, fresh)));
    this.#say(first);
    if (this.#isCancelled) this.cancel();
    await this.#follow(session, projection, events);
  }

  #say(events: readonly Event[]): void {
    for (const event of events) this.emit(event);
  }

  // ---- reading

  /** Folds the session anew, from its snapshot to the log's end. */
  async #fold(session: CoreSession, projection: Projection, events: AsyncIterator<SessionEvent>): Promise<void> {
    for (let { value, done } = await events.next(); !done; { value, done } = await events.next()) {
      const event = value as SessionEvent;
      if (event.type === 'entry') projection.take(event);
      if (event.type === 'snapshot') {
        projection.load(event.state, event.asOf);
        this.#end = event.messagesBefore ? event.asOf + 1 : null;
      }
      if (event.type === 'caught_up') return projection.remember(await this.#older(session, RECENT));
    }
  }

  /** So many messages from before what is folded. */
  async #older(session: CoreSession, count: number): Promise<Message[]> {
    const found: Message[] = [];
    for (let before = this.#end; before !== null && found.length < count; ) {
      const limit = Math.min(PAGE, count);
      const page = await session.history({ before, limit, signal: this.#over.signal });
      found.unshift(...page.messages);
      before = page.before;
    }
    return found;
  }

  /** Passes on what comes, until the run is over, or waits for the page. */
  async #follow(session: CoreSession, projection: Projection, events: AsyncIterator<SessionEvent>): Promise<void> {
    let next: Promise<IteratorResult<SessionEvent>> | null = null;
    while (!projection.isOver) {
      const waiting = this.#still(projection.waiting(Date.now()));
      next ??= events.next();
      const found = await before(next, this.#waitMs(waiting));
      if (found === null) {
        if (waiting.approvals.length || waiting.calls.length)
          this.#say(await this.#pause(session, projection, waiting));
        continue;
      }
      next = null;
      if (found.done) return this.#say(projection.fail('the session was closed', 'closed'));
      this.#say(await this.#eventsOf(session, projection, events, found.value));
    }
    next?.catch(() => {}); // it ends with the session
  }

  async #eventsOf(
    session: CoreSession,
    projection: Projection,
    events: AsyncIterator<SessionEvent>,
    event: SessionEvent,
  ): Promise<Event[]> {
    if (event.type === 'entry') return projection.take(event);
    if (event.type !== 'gap' && event.type !== 'reset') return [];
    await this.#fold(session, projection, events);
    projection.remember(await this.#older(session, MESSAGES));
    return projection.again();
  }

  // ---- waiting for the page

  #still({ approvals, calls, nextAt }: Waiting): Waiting {
    const ours = calls.filter(({ toolCallId }) => !this.#left.has(toolCallId));
    if (!approvals.length && !ours.length) this.#waitsSince = null;
    else this.#waitsSince ??= performance.now();
    return { approvals, calls: ours, nextAt };
  }

  #waitMs({ nextAt }: Waiting): number | null {
    if (this.#waitsSince !== null) return Math.max(0, this.#waitsSince + SETTLE_MS - performance.now());
    return nextAt === null ? null : Math.max(0, nextAt - Date.now());
  }

  async #pause(session: CoreSession, projection: Projection, waiting: Waiting): Promise<Event[]> {
    if (waiting.approvals.length) return projection.interrupt(waiting);
    const claimed: Call[] = [];
    for (const call of waiting.calls) if ((await this.#claim(session, call)) !== null) claimed.push(call);
    return claimed.length ? projection.handOver(claimed) : [];
  }

  // ---- acting

  /** Does what is asked for, and aims the stream at the run that it is about. */
  async #act(session: CoreSession, projection: Projection, fresh: readonly Shown[]): Promise<Event[]> {
    const about = this.options.onlyJoins ? null : await this.#answer(session, projection);
    let stored = null;
    for (const message of fresh) {
      const attachments = partsOf(message, session.name).flatMap(({ attachment }) => attachment ?? []);
      stored = await session.send(textOf(message), {
        inputId: message.id,
        ...(attachments.length > 0 && { attachments }),
      });
    }
    if (!stored) {
      this.#runId = about ?? projection.state.lanes['main']?.run ?? null;
      return projection.aim(about);
    }
    this.#runId = stored.runId;
    if (stored.runId === null) return projection.succeed();
    const isLost = stored.status === 'cancelled' || stored.status === 'failed';
    return projection.aim(stored.runId, stored.seq ?? 0, isLost ? endingOf(stored.reason ?? stored.status) : null);
  }

  /** Results and decisions; answers the run of the main lane that they are for. */
  async #answer(session: CoreSession, { state }: Projection): Promise<string | null> {
    let about: string | null = null;
    for (const [toolCallId, message] of resultsOf(this.asked.messages as readonly Shown[])) {
      const call = state.calls.find((each) => each.toolCallId === toolCallId && each.executor === 'client');
      if (!call) continue;
      await this.#resolve(session, call, resultOf(message));
      about = call.runId;
    }
    for (const answer of this.asked.resume ?? []) {
      const approval = state.approvals.find(({ approvalId }) => approvalId === answer.interruptId);
      if (!approval) continue; // decided meanwhile, by somebody else or by this very answer
      await this.#decide(session, approval, answer);
      about = approval.runId;
    }
    let run = state.runs.find(({ runId }) => runId === about);
    for (let parent = run; parent; parent = state.runs.find(({ runId }) => runId === parent?.parent)) run = parent;
    return run?.runId ?? about;
  }

  /** Claims a call for the page that is about to be told of it; null: it is somebody else's. */
  async #claim(session: CoreSession, { toolCallId }: Call): Promise<string | null> {
    const claimId = newId();
    try {
      await session.claimCall(toolCallId, claimId, LEASE_MS, { signal: this.#over.signal });
      return claimId;
    } catch (error) {
      if (!NOT_OURS.includes(codeOf(error))) throw error;
      this.#left.add(toolCallId);
      return null;
    }
  }

  async #resolve(session: CoreSession, call: Call, outcome: ReturnType<typeof resultOf>): Promise<void> {
    const user = this.options.client.welcome?.user.id;
    if (call.claim && call.claim.by?.id !== user) return;
    const claimId = call.claim?.claimId ?? (await this.#claim(session, call));
    if (claimId === null) return;
    try {
      await session.sendResult(call.toolCallId, claimId, outcome, { signal: this.#over.signal });
    } catch (error) {
      if (codeOf(error) === 'result_invalid') {
        const text = `the tool's result was refused: ${error instanceof Error ? error.message : error}`;
        await session.sendResult(call.toolCallId, claimId, { error: text }, { signal: this.#over.signal });
      } else if (!NOT_OURS.includes(codeOf(error))) throw error;
    }
  }

  async #decide(
    session: CoreSession,
    approval: Approval,
    answer: { readonly status: string; readonly payload?: unknown },
  ): Promise<void> {
    const user = this.options.client.welcome?.user.id;
    if (approval.votes.some(({ by }) => by?.id === user)) return;
    const decided = decision(approval, answer);
    if (!decided) {
      throw new AntiphonError('payload_invalid', 'the payload of an approval says `approved`, or one of its options');
    }
    const { option, payload } = decided;
    try {
      const more = payload === undefined ? {} : { payload };
      await session.respond(approval.approvalId, option, { ...more, signal: this.#over.signal });
    } catch (error) {
      if (!DECIDED.includes(codeOf(error))) throw error;
    }
  }
}

/** What is promised, or null if it takes longer than so many ms. */
async function before<T>(promised: Promise<T>, ms: number | null): Promise<T | null> {
  if (ms === null) return promised;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  return Promise.race([promised, late]).finally(() => clearTimeout(timer));
}
