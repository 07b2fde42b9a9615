/**
 * What the log says of one input's answer, as chunks of the AI SDK's UI message stream. Pure.
 *
 * An answer is what the agent says from the entry that applies an input until the next input is applied to the same run,
 * or the run ends; it is one assistant message, `run_` + the input's id. The same mapping is in the gateway
 * (`gateway/http/ui_messages/answer.py`); both pass `tests/conformance/cases/ui-messages`.
 */
import { pointsIn } from '../fold/transcript.js';
import { asCount, asObject, asString } from '../json.js';
import type { Entry, LogEvent } from '../model.js';
import { Ballot, inputOf } from './ballots.js';
import type { AnswerMetadata, Chunk } from './chunks.js';
import { fileChunks } from './files.js';
import { ToolParts } from './tool-parts.js';

const LANE_ID = /^(\d{1,19})-(\d{1,19})$/;
const NOTHING: Chunk[] = [];
const MAIN = 'main';

type Kind = 'text' | 'reasoning';
type Rule = (answer: Answer, entry: Entry, event: LogEvent) => Chunk[];

/** Takes the session's entries, in order, from the input's own on (or from any before it). */
export class Answer {
  /** Nothing more comes. */
  isOver = false;
  #run: string | null = null;
  #isStarted = false;
  #fence: number | null = null;
  #written = -1;
  /** Texts that are open. */
  readonly #texts = new Map<string, Kind>();
  readonly #lengths = new Map<string, number>();
  readonly #tools: ToolParts;
  readonly #ballots = new Map<string, Ballot>();
  #isInStep = false;
  #isStepDue = true;

  /** `isViewers` says of a `tool.requested` whether it is for the viewer to execute. */
  constructor(
    readonly inputId: string,
    readonly session: string,
    isViewers: (call: LogEvent) => boolean,
  ) {
    this.#tools = new ToolParts(isViewers);
  }

  get messageId(): string {
    return `run_${this.inputId}`;
  }

  /** The run that the answer is of; null while its input waits. */
  get runId(): string | null {
    return this.#run;
  }

  /** The calls and approvals that the viewer is waited for with, once nothing is being said any more. */
  get waitsFor(): readonly string[] {
    return this.#texts.size || this.#tools.isStreaming ? [] : this.awaited;
  }

  /** The calls and approvals whose output is up to the viewer. */
  get awaited(): readonly string[] {
    return [...this.#tools.waiting, ...this.#ballots.keys()];
  }

  /** What was told until now, for who begins to read: with calls that nobody has to execute any more as such. */
  replayed(chunks: readonly Chunk[]): Chunk[] {
    const { awaited } = this;
    return chunks.map((chunk) =>
      chunk.type === 'tool-input-available' && !awaited.includes(chunk.toolCallId)
        ? { ...chunk, providerExecuted: true }
        : chunk,
    );
  }

  #metadata(cursor: string): { messageMetadata?: AnswerMetadata } {
    return this.#isStarted ? { messageMetadata: { runId: this.#run ?? '', cursor } } : {};
  }

  /** Ends the stream while the viewer is waited for; it goes on after the entry at `cursor`. */
  pause(cursor: string): Chunk[] {
    return [{ type: 'finish', finishReason: 'tool-calls', ...this.#metadata(cursor) }];
  }

  /** Ends the answer with an error that is not in the log's entries. */
  fail(errorText: string): Chunk[] {
    this.isOver = true;
    return [...this.#closeTexts(), { type: 'error', errorText }];
  }

  /** Ends an answer that never began: its input was taken back for `reason`, or (null) went to a human. */
  withdraw(reason: string | null): Chunk[] {
    this.isOver = true;
    if (reason === null) return [{ type: 'finish', finishReason: 'stop' }];
    return [
      { type: 'abort', reason },
      { type: 'finish', finishReason: 'other' },
    ];
  }

  /** What the entry adds. */
  take(entry: Entry): Chunk[] {
    if (this.isOver) return NOTHING;
    if (!this.#admits(entry)) return this.#elsewhere(entry);
    return entry.events.flatMap((event) => (this.isOver ? NOTHING : this.#take(entry, event)));
  }

  /** PROTOCOL, rule 1, for the main lane as far as it has been seen. */
  #admits({ lane, seq, id, off, events }: Entry): boolean {
    if (lane === null) return true;
    if (lane !== MAIN) return false;
    if (events.length === 1 && events[0]?.type === 'session.owner') {
      this.#fence = seq;
      this.#written = -1;
      return true;
    }
    const match = LANE_ID.exec(id);
    if (!match) return false;
    const number = Number(match[2]);
    this.#fence ??= Number(match[1]);
    if (Number(match[1]) !== this.#fence) return false;
    if (off !== null) return true;
    const isNew = number > this.#written;
    this.#written = Math.max(number, this.#written);
    return isNew;
  }

  /** The input of an agent that was asked has its answer in another lane, which is no part of the chat. */
  #elsewhere({ lane, events }: Entry): Chunk[] {
    const isOurs = events.some(({ type, inputId }) => type === 'input.applied' && inputId === this.inputId);
    if (lane === MAIN || !isOurs) return NOTHING;
    this.isOver = true;
    return [{ type: 'finish', finishReason: 'stop' }];
  }

  #take(entry: Entry, event: LogEvent): Chunk[] {
    if (entry.lane === null) return OF_PARTICIPANTS.get(event.type)?.(this, entry, event) ?? NOTHING;
    if (event.type === 'input.applied') return this.#applied(entry, event);
    if (this.#run === null || (entry.run !== null && entry.run !== this.#run)) return NOTHING;
    return OF_OWNERS.get(event.type)?.(this, entry, event) ?? NOTHING;
  }

  // ---- the answer's beginning and end

  sent(event: LogEvent): Chunk[] {
    return event['inputId'] === this.inputId && this.#run === null ? [this.#runData('queued')] : NOTHING;
  }

  #applied({ cursor }: Entry, event: LogEvent): Chunk[] {
    if (event['inputId'] === this.inputId && this.#run === null) {
      this.#run = asString(event['runId']);
      return [this.#runData('running')];
    }
    if (this.#run === null || event['runId'] !== this.#run) return NOTHING;
    // what the agent says from here on answers another input
    return [...this.#end(), { type: 'finish', finishReason: 'other', ...this.#metadata(cursor) }];
  }

  finished({ cursor }: Entry, event: LogEvent): Chunk[] {
    if (event['runId'] !== this.#run) return NOTHING;
    const outcome = asObject(event['outcome']);
    const isCancelled = outcome?.['type'] === 'cancelled';
    const aborted: Chunk[] = isCancelled
      ? [{ type: 'abort', reason: asString(outcome?.['reason']) || 'cancelled' }]
      : [];
    const finishReason = isCancelled ? 'other' : 'stop';
    return [...this.#end(), ...aborted, { type: 'finish', finishReason, ...this.#metadata(cursor) }];
  }

  failed(event: LogEvent): Chunk[] {
    const code = asString(event['code']) || 'agent_error';
    return [...this.#end(), { type: 'error', errorText: `${code}: ${asString(event['message']) ?? ''}` }];
  }

  deleted({ cursor }: Entry): Chunk[] {
    const finish: Chunk = { type: 'finish', finishReason: 'other', ...this.#metadata(cursor) };
    return [...this.#end(), { type: 'abort', reason: 'deleted' }, finish];
  }

  /** Closes what is open. The last step has no tools in it: the SDK takes one that has for a reason to send again. */
  #end(): Chunk[] {
    this.isOver = true;
    const chunks = this.#closeTexts();
    for (const toolCallId of [...this.#tools.open, ...this.#ballots.keys()]) {
      chunks.push(...this.#ended(toolCallId, [{ type: 'tool-output-error', toolCallId, errorText: 'not_run' }]));
    }
    this.#ballots.clear();
    if (this.#isInStep && this.#isStepDue) chunks.push(...this.#step());
    if (this.#isInStep) chunks.push({ type: 'finish-step' });
    return chunks;
  }

  #runData(status: string, more: object = {}): Chunk {
    const data = { inputId: this.inputId, runId: this.#run, status, ...more };
    return { type: 'data-run', data, transient: true };
  }

  // ---- texts

  /** What must stand before anything that is said. */
  #content(): Chunk[] {
    const chunks: Chunk[] = [];
    if (!this.#isStarted) {
      this.#isStarted = true;
      chunks.push({ type: 'start', messageId: this.messageId, messageMetadata: { runId: this.#run ?? '' } });
    }
    if (this.#isStepDue) chunks.push(...this.#step());
    return chunks;
  }

  #step(): Chunk[] {
    const ended: Chunk[] = this.#isInStep ? [{ type: 'finish-step' }] : [];
    this.#isInStep = true;
    this.#isStepDue = false;
    return [...ended, { type: 'start-step' }];
  }

  opened(kind: Kind, event: LogEvent): Chunk[] {
    const id = asString(event['messageId']);
    const isAnswer = kind === 'reasoning' || (event['role'] ?? 'assistant') === 'assistant';
    if (id === null || this.#lengths.has(id) || !isAnswer) return NOTHING;
    this.#texts.set(id, kind);
    this.#lengths.set(id, 0);
    return [...this.#content(), { type: `${kind}-start`, id }];
  }

  /** As the fold puts texts together: what is known already adds nothing, what lies beyond the end waits. */
  put(id: string | null, offset: number | null, text: string | null): Chunk[] {
    const length = this.#lengths.get(id ?? '');
    if (id === null || length === undefined || !text || offset === null || offset > length) return NOTHING;
    const delta = offset === length ? text : [...text].slice(length - offset).join('');
    if (!delta) return NOTHING;
    this.#lengths.set(id, length + pointsIn(delta));
    const kind = this.#texts.get(id);
    return kind ? [{ type: `${kind}-delta`, id, delta }] : this.#tools.addInput(id, delta);
  }

  closed(event: LogEvent): Chunk[] {
    const id = asString(event['messageId']) ?? '';
    const kind = this.#texts.get(id);
    this.#texts.delete(id);
    return kind ? [{ type: `${kind}-end`, id }] : NOTHING;
  }

  /** Files of a text of this answer, also of one that is whole: they stand where they come. */
  attached({ messageId, attachments }: LogEvent): Chunk[] {
    const chunks = this.#lengths.has(asString(messageId) ?? '') ? fileChunks(attachments, this.session) : NOTHING;
    return chunks.length ? [...this.#content(), ...chunks] : NOTHING;
  }

  #closeTexts(): Chunk[] {
    const chunks = Array.from(this.#texts, ([id, kind]): Chunk => ({ type: `${kind}-end`, id }));
    this.#texts.clear();
    return chunks;
  }

  // ---- tools

  callOpened(event: LogEvent): Chunk[] {
    const id = asString(event['toolCallId']);
    if (id === null || this.#lengths.has(id)) return NOTHING;
    this.#lengths.set(id, 0);
    return [...this.#content(), ...this.#tools.begin(id, asString(event['toolCallName']) ?? '')];
  }

  callClosed(event: LogEvent): Chunk[] {
    return this.#tools.endInput(callOf(event));
  }

  requested(event: LogEvent): Chunk[] {
    const id = callOf(event);
    return [...(this.#tools.knows(id) ? NOTHING : this.#content()), ...this.#tools.request(id, event)];
  }

  progressed(event: LogEvent): Chunk[] {
    const toolCallId = callOf(event);
    if (!this.#tools.knows(toolCallId)) return NOTHING;
    return [{ type: 'data-progress', data: { toolCallId, value: event['value'] ?? null }, transient: true }];
  }

  resolved(event: LogEvent): Chunk[] {
    this.#tools.resolve(callOf(event), event);
    return NOTHING;
  }

  callFailed(event: LogEvent): Chunk[] {
    this.#tools.fail(callOf(event), asString(event['code']) ?? 'error');
    return NOTHING;
  }

  result(event: LogEvent): Chunk[] {
    const output = this.#tools.output(callOf(event), event);
    return output.length ? this.#ended(callOf(event), output) : output;
  }

  /** A part has its output: what is said next is another step. */
  #ended(id: string, chunks: Chunk[]): Chunk[] {
    this.#tools.forget(id);
    this.#isStepDue = true;
    return chunks;
  }

  // ---- approvals, each a part of its own

  asked(event: LogEvent): Chunk[] {
    const id = asString(event['approvalId']);
    if (id === null) return NOTHING;
    const toolName = asString(event['kind']) || 'approval';
    this.#ballots.set(id, new Ballot(event));
    const call: Chunk = { type: 'tool-input-available', toolCallId: id, toolName, input: inputOf(event) };
    const chunks = [...this.#content(), call];
    if (toolName === 'approval') chunks.push({ type: 'tool-approval-request', approvalId: id, toolCallId: id });
    return chunks;
  }

  responded(entry: Entry, event: LogEvent): Chunk[] {
    const id = asString(event['approvalId']) ?? '';
    const option = this.#ballots.get(id)?.vote(entry, asString(event['option'])) ?? null;
    if (option === null) return NOTHING;
    const { payload } = event;
    const answered = payload !== undefined && payload !== null && { payload };
    return this.#decided(id, { option, by: entry.by?.id ?? null, ...answered });
  }

  undecided(event: LogEvent): Chunk[] {
    const id = asString(event['approvalId']) ?? '';
    const ballot = this.#ballots.get(id);
    if (!ballot) return NOTHING;
    const status = asString(event['status']);
    const option = status === 'expired' ? asString(ballot.event['default']) : null;
    return this.#decided(id, { option, by: null, status });
  }

  #decided(toolCallId: string, output: object): Chunk[] {
    this.#ballots.delete(toolCallId);
    return this.#ended(toolCallId, [{ type: 'tool-output-available', toolCallId, output }]);
  }

  // ---- the rest

  nextStep(): Chunk[] {
    this.#isStepDue = true;
    return NOTHING;
  }

  held({ state, reason }: LogEvent): Chunk[] {
    if (state !== 'paused' && state !== 'running') return NOTHING;
    return [this.#runData(state, reason ? { reason } : {})];
  }
}

const callOf = (event: LogEvent): string => asString(event['toolCallId']) ?? '';

const data = (name: string, value: unknown): Chunk[] => [
  { type: `data-${name}`, data: value ?? null, transient: true },
];

const delta: Rule = (answer, { off }, event) =>
  answer.put(asString(event['messageId'] ?? event['toolCallId']), off ?? 0, asString(event['delta']));

const segment: Rule = (answer, _, event) =>
  answer.put(asString(event['messageId']), asCount(event['offset']), asString(event['text']));

/** Maps, because an event's type is whatever the log says. */
const OF_PARTICIPANTS = new Map<string, Rule>([
  ['input.sent', (answer, _, event) => answer.sent(event)],
  ['session.deleted', (answer, entry) => answer.deleted(entry)],
  ['tool.progress', (answer, _, event) => answer.progressed(event)],
  ['tool.resolved', (answer, _, event) => answer.resolved(event)],
  ['approval.responded', (answer, entry, event) => answer.responded(entry, event)],
]);

const OF_OWNERS = new Map<string, Rule>([
  ['RUN_FINISHED', (answer, entry, event) => answer.finished(entry, event)],
  ['RUN_ERROR', (answer, _, event) => answer.failed(event)],
  ['STEP_STARTED', (answer) => answer.nextStep()],
  ['TEXT_MESSAGE_START', (answer, _, event) => answer.opened('text', event)],
  ['TEXT_MESSAGE_CONTENT', delta],
  ['TEXT_MESSAGE_END', (answer, _, event) => answer.closed(event)],
  ['REASONING_MESSAGE_START', (answer, _, event) => answer.opened('reasoning', event)],
  ['REASONING_MESSAGE_CONTENT', delta],
  ['REASONING_MESSAGE_END', (answer, _, event) => answer.closed(event)],
  ['message.segment', segment],
  ['message.attached', (answer, _, event) => answer.attached(event)],
  ['TOOL_CALL_START', (answer, _, event) => answer.callOpened(event)],
  ['TOOL_CALL_ARGS', delta],
  ['TOOL_CALL_END', (answer, _, event) => answer.callClosed(event)],
  ['TOOL_CALL_RESULT', (answer, _, event) => answer.result(event)],
  ['tool.requested', (answer, _, event) => answer.requested(event)],
  ['tool.failed', (answer, _, event) => answer.callFailed(event)],
  ['approval.requested', (answer, _, event) => answer.asked(event)],
  ['approval.resolved', (answer, _, event) => answer.undecided(event)],
  ['session.state', (answer, _, event) => answer.held(event)],
  ['STATE_SNAPSHOT', (_, __, event) => data('state', event['snapshot'])],
  ['STATE_DELTA', (_, __, event) => data('state-delta', event['delta'])],
  ['CUSTOM', (_, __, { name, value }) => data('custom', { name: name ?? null, value: value ?? null })],
]);
