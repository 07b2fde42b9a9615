/**
 * A session's log as one AG-UI stream: entries in, the events of one run out.
 *
 * The log holds AG-UI events, but not as one reader of one run must get them: lanes run side by side, deltas come merged
 * or not at all, workers die in mid-step, others speak in between, and a reader may come when half of it is over. What
 * counts is decided by the fold; a stream is what changes in its messages and its state, told in AG-UI's words. Gateways
 * have the same projection; both are held to tests/conformance/agui of the repository.
 *
 * One stream is a window on the session's main lane: from where its reader begins to the end of the run that it waits
 * for. Runs of agents that were asked are its subagents.
 */
import type { Change } from '../fold/changes.js';
import { Fold } from '../fold/fold.js';
import { asString, type JsonObject } from '../json.js';
import type { Call, Entry, LogEvent, Message, State } from '../model.js';
import { type Ending, endingOf, failed, failureOf, finished, messageOf, SUCCESS, streamOf } from './endings.js';
import { interruptOf, type Page, type Waiting, waitingFor } from './interrupts.js';
import { conversation, isQuestion, type Shown, shownId, subagentOf } from './messages.js';
import { passedOn } from './passing.js';
import { type Event, Stream } from './stream.js';
import { Told } from './told.js';

const MAIN = 'main';
const SHARED_STATE: readonly string[] = ['STATE_SNAPSHOT', 'STATE_DELTA'];

/** Folds a session from `load` on; tells of it from `begin` on, until it `isOver`. */
export class Projection {
  readonly #stream: Stream;
  readonly #told: Told;
  #fold = new Fold();
  #older: readonly Message[] = [];
  #isLive = false;
  /** What closes the texts that were open when the log had to be folded anew. */
  #left: Event[] = [];
  #seq = 0;
  #target: { readonly runId: string; readonly seq: number; readonly ending: Ending | null } | null = null;

  /** The run of each lane. */
  readonly #runs = new Map<string, string>();
  readonly #endings = new Map<string, Ending>();
  /** The run into which each input went; null: it was for a human. */
  readonly #applied = new Map<string, string | null>();
  readonly #dropped = new Map<string, string>();
  /** Open steps of each lane. */
  readonly #steps = new Map<string, string[]>();
  /** The agent's shared state: its last snapshot, and the changes since. */
  #shared: Event[] = [];

  constructor(
    threadId: string,
    runId: string,
    readonly page: Page,
    isModern: boolean,
  ) {
    this.#stream = new Stream(threadId, runId, isModern);
    this.#told = new Told({ session: threadId, isModern, results: new Map() }, this.#stream);
  }

  /** The stream has had its last event. */
  get isOver(): boolean {
    return this.#stream.isOver;
  }

  get state(): State {
    return this.#fold.state;
  }

  // ---- folding

  /** Begins to fold from a state on, that of entry `seq`. Whatever was folded is void. */
  load(state: JsonObject | undefined, seq: number): void {
    if (this.#isLive) {
      this.#stream.closeTexts();
      this.#left = this.#stream.take();
    }
    this.#isLive = false;
    this.#forget();
    this.#fold = new Fold({ state });
    this.#older = [];
    this.#seq = seq;
    for (const { lane, runId } of this.#fold.state.runs) this.#runs.set(lane, runId);
  }

  #forget(): void {
    for (const each of [this.#runs, this.#endings, this.#applied, this.#dropped, this.#steps]) each.clear();
    this.#shared = [];
  }

  /** The events that an entry is; none before `begin`. */
  take(entry: Entry): Event[] {
    const fold = this.#fold;
    this.#seq = Math.max(this.#seq, entry.seq);
    if (entry.off !== null) {
      fold.apply(entry);
      if (fold.counted) for (const event of entry.events) this.#grow(streamOf(event));
      return this.#stream.take();
    }
    const before = fold.state;
    const changes = fold.apply(entry);
    if (!fold.counted) return [];
    this.#noteInputs(changes);
    for (const event of entry.events) this.#tell(entry, event, before, changes);
    for (const change of changes) this.#speak(change);
    this.#told.tellFiles(() => this.shown);
    this.#settle();
    return this.#stream.take();
  }

  #grow(id: string | null): void {
    const message = id === null ? undefined : this.#fold.message(id);
    if (message) this.#stream.grow(message);
  }

  // ---- the stream's beginning

  /** The session's messages as AG-UI has them. */
  get shown(): Shown[] {
    return conversation([...this.#older, ...this.#fold.messages], this.#told.reader);
  }

  /** Whether an application with these messages lacks something of the log, as far as that is known here. */
  lacks(client: readonly Shown[]): boolean {
    return this.#told.lacks(client, this.shown);
  }

  /** What was before `load`, as far as it is to be shown. */
  remember(older: readonly Message[]): void {
    this.#older = older;
  }

  /**
   * The stream's first events, for an application that has these messages and is about to send the `fresh` ones. One
   * that lacks something of the log, or has it otherwise, gets a snapshot; texts that are open are begun again, with
   * what there is of them in the snapshot.
   */
  begin(client: readonly Shown[], fresh: readonly Shown[] = []): Event[] {
    this.#isLive = true;
    this.#told.expect(client, fresh);
    this.#stream.begin();
    const shown = this.shown;
    this.#told.begin(shown);
    this.#openAll();
    this.#told.noteAll(shown);
    for (const event of this.#shared) this.#stream.say(event);
    return this.#stream.take();
  }

  /** Goes on after the log was folded anew (`load`), because entries had been missed. */
  again(): Event[] {
    this.#isLive = true;
    this.#told.show(this.shown);
    this.#openAll();
    this.#settle();
    const left = this.#left;
    this.#left = [];
    return [...left, ...this.#stream.take()];
  }

  #openAll(): void {
    for (const [lane, runId] of this.#runs) this.#startSubagent(lane, runId);
    for (const [lane, names] of this.#steps) for (const name of names) this.#stream.startStep(this.#tag(lane), name);
    for (const message of this.#fold.messages) {
      if (message.status !== 'streaming' || message.rolledBack) continue;
      this.#stream.startText(message, this.#told.has(message) ? message.text.length : 0);
      this.#stream.grow(message);
    }
  }

  // ---- what the stream waits for

  /**
   * Says with which run the stream ends; null: with the main lane's, or the one that is next. The run's input is in the
   * log by entry `seq`; `ending` is how the run ended, if that lies before what is folded.
   */
  aim(runId: string | null, seq = 0, ending: Ending | null = null): Event[] {
    const next = this.state.inputs.find(({ lane }) => lane === MAIN);
    const target = runId ?? this.#runs.get(MAIN) ?? (next ? `run_${next.inputId}` : null);
    if (target === null) {
      this.#finish(ending ?? SUCCESS);
    } else {
      this.#target = { runId: target, seq, ending };
      this.#settle();
    }
    return this.#stream.take();
  }

  /** What the page can give. `now` is in ms since 1970. */
  waiting(now: number): Waiting {
    return waitingFor(this.state, this.page, now);
  }

  /** Ends the stream, because the user has to decide. The log's run goes on waiting. */
  interrupt({ approvals }: Waiting): Event[] {
    this.#stream.interrupt(approvals.map(interruptOf));
    return this.#stream.take();
  }

  /** Ends the stream, because the page has to execute these calls, which it has claimed. */
  handOver(calls: readonly Call[]): Event[] {
    this.#stream.finish(calls);
    return this.#stream.take();
  }

  /** Ends the stream, because it cannot go on: without an error it would be taken for a whole answer. */
  fail(message: string, code: string): Event[] {
    this.#stream.fail(message, code);
    return this.#stream.take();
  }

  /** Ends the stream, because there is nothing to wait for. */
  succeed(): Event[] {
    this.#finish(SUCCESS);
    return this.#stream.take();
  }

  #isRunning(runId: string): boolean {
    return [...this.#runs.values()].includes(runId);
  }

  /** Ends the stream if nothing more comes of the run that it waits for. */
  #settle(): void {
    const target = this.#target;
    if (!this.#isLive || !target || this.isOver || this.#isRunning(target.runId)) return;
    const inputId = target.runId.replace(/^run_/, '');
    const ending = this.#endings.get(target.runId);
    const dropped = this.#dropped.get(inputId);
    const applied = this.#applied.get(inputId);
    if (ending) this.#finish(ending);
    else if (this.#fold.isQueued(inputId)) return;
    else if (dropped !== undefined) this.#finish(endingOf(dropped));
    else if (applied !== undefined && applied !== target.runId) this.#move(target.seq, applied);
    else if (this.#seq >= target.seq) this.#finish(target.ending ?? SUCCESS);
  }

  /** The input went into another run, or to a human, who answers in messages of no run. */
  #move(seq: number, runId: string | null): void {
    if (runId === null) return this.#finish(SUCCESS);
    this.#target = { runId, seq, ending: this.#target?.ending ?? null };
    this.#settle();
  }

  #finish({ kind, reason = 'requested', code = null, message = '', usage = [] }: Ending): void {
    this.#told.tellFiles(() => this.shown);
    if (kind === 'cancelled') this.#stream.cancel(reason);
    else if (kind === 'error') this.#stream.fail(message, code);
    else this.#stream.finish([], usage);
  }

  // ---- records

  #noteInputs(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'applied' && change.source) this.#applied.set(change.inputId, change.runId);
      if (change.kind === 'spoken') this.#applied.set(change.inputId, null);
      if (change.kind === 'dropped') this.#dropped.set(change.inputId, change.code);
    }
  }

  #tell(entry: Entry, event: LogEvent, before: State, changes: readonly Change[]): void {
    if (entry.lane !== null) return this.#tellOfLane(entry, entry.lane, event, before, changes);
    if (event.type === 'session.deleted') return this.#deleted();
    const isImport = event.type === 'messages.imported' && changes.some(({ kind }) => kind === 'imported');
    if (isImport && this.#isLive) this.#told.show(this.shown);
  }

  #tellOfLane(entry: Entry, lane: string, event: LogEvent, before: State, changes: readonly Change[]): void {
    const stepName = asString(event['stepName']);
    switch (event.type) {
      case 'RUN_STARTED':
        return this.#started(lane, asString(event['runId']), before);
      case 'run.taken_over':
        this.#steps.delete(lane);
        return this.#stream.closeOf(this.#tag(lane));
      case 'RUN_FINISHED':
        if (this.#runs.get(lane) === event['runId']) this.#ended(lane, finished(event), changes);
        return;
      case 'RUN_ERROR':
        if (this.#runs.has(lane)) this.#ended(lane, failed(event), changes);
        return;
      case 'STEP_STARTED':
        if (stepName === null) return;
        this.#steps.set(lane, [...(this.#steps.get(lane) ?? []), stepName]);
        if (this.#isLive) this.#stream.startStep(this.#tag(lane), stepName);
        return;
      case 'STEP_FINISHED': {
        if (stepName === null) return;
        const names = this.#steps.get(lane) ?? [];
        if (names.includes(stepName)) names.splice(names.indexOf(stepName), 1);
        return this.#stream.finishStep(this.#tag(lane), stepName);
      }
      case 'message.attached': {
        const message = this.#fold.message(asString(event['messageId']) ?? '');
        if (this.#isLive && message?.lane === lane) this.#told.noteFiles(message);
        return;
      }
      default:
        if (!this.#passOn(event)) this.#tellOfText(entry.seq, event);
    }
  }

  #tellOfText(seq: number, event: LogEvent): void {
    const id = messageOf(event);
    const message = id === null ? undefined : this.#fold.message(id);
    if (!message || !this.#isLive) return;
    switch (event.type) {
      case 'TEXT_MESSAGE_START':
      case 'REASONING_MESSAGE_START':
      case 'TOOL_CALL_START':
        if (message.seq !== seq) return;
        this.#stream.startText(message);
        return this.#stream.grow(message);
      case 'message.segment':
        return this.#stream.grow(message);
      case 'TEXT_MESSAGE_END':
      case 'REASONING_MESSAGE_END':
      case 'TOOL_CALL_END':
        this.#stream.grow(message);
        return this.#stream.endText(shownId(message));
      case 'TOOL_CALL_RESULT':
        if (message.seq === seq && !this.#told.reader.results.has(asString(event['toolCallId']) ?? ''))
          this.#stream.result(message);
        return;
      case 'input.applied':
        if (message.seq === seq) this.#appear(message);
    }
  }

  /** A message that comes whole; the application has its own already. */
  #appear(message: Message): void {
    if (this.#told.has(message) || isQuestion(message)) return;
    this.#told.note(message);
    this.#stream.wholeText(message);
    this.#told.noteFiles(message);
  }

  /** What people say to a human who has the lane, and what that one says. */
  #speak(change: Change): void {
    const message = this.#isLive && change.kind === 'spoken' && this.#fold.message(`msg_${change.inputId}`);
    if (message) this.#appear(message);
  }

  /** Answers whether the event is one of those that are passed on, if they are as they must be. */
  #passOn(event: LogEvent): boolean {
    const told = passedOn(event);
    if (!told) return false;
    if (SHARED_STATE.includes(told.type)) {
      this.#shared = told.type === 'STATE_SNAPSHOT' ? [told] : [...this.#shared, told];
    }
    if (this.#isLive) this.#stream.say(told);
    return true;
  }

  // ---- runs

  #tag(lane: string): string | null {
    return subagentOf(lane, this.#runs.get(lane) ?? null);
  }

  #started(lane: string, runId: string | null, before: State): void {
    if (runId === null || this.#runs.has(lane) || this.#isRunning(runId)) return;
    this.#runs.set(lane, runId);
    this.#steps.delete(lane);
    if (this.#isLive) this.#startSubagent(lane, runId, before);
  }

  #startSubagent(lane: string, runId: string, before?: State): void {
    if (lane === MAIN) return;
    const run = this.state.runs.find((each) => each.runId === runId);
    const inputId = runId.replace(/^run_/, '');
    const asked = before?.inputs.find((each) => each.inputId === inputId);
    const question = () => this.#fold.messages.find((each) => each.run === runId && isQuestion(each));
    this.#stream.startSubagent(
      runId,
      run?.agent ?? lane,
      asked?.content ?? question()?.text ?? '',
      run?.parent ?? null,
    );
  }

  #ended(lane: string, ending: Ending, changes: readonly Change[]): void {
    const tag = this.#tag(lane);
    const runId = this.#runs.get(lane) ?? '';
    this.#runs.delete(lane);
    this.#endings.set(runId, ending);
    this.#steps.delete(lane);
    if (!this.#isLive) return;
    this.#stream.closeOf(tag);
    if (tag !== null) this.#stream.finishSubagent(tag, failureOf(ending));
    const isUndone = changes.some((each) => each.kind === 'ended' && each.runId === runId && each.rolledBack);
    if (isUndone) this.#told.show(this.shown);
    if (runId === this.#target?.runId) this.#finish(ending);
  }

  #deleted(): void {
    this.#forget();
    this.#older = [];
    if (this.#isLive) this.#stream.fail('the session was deleted', 'session_deleted');
  }
}
