/**
 * One AG-UI stream as its reader's verifier sees it: what is open in it, and the events that open and close it.
 *
 * The verifiers of `@ag-ui/client` end a run at the first event that has no place: a text that is ended twice, a step
 * that is begun twice, anything open at the end. So every event is made here, where it is known what is open.
 */
import { asObject, asObjects, type JsonObject } from '../json.js';
import type { Call, Message } from '../model.js';
import { roleOf, shownId, subagentOf } from './messages.js';

export type Event = JsonObject & { readonly type: string };

interface OpenText {
  readonly kind: 'text' | 'reasoning' | 'tool_call';
  readonly tag: string | null;
  /** How much of it the reader has. */
  sent: number;
}

export class Stream {
  isOver = false;
  #events: Event[] = [];
  readonly #ids: { readonly threadId: string; readonly runId: string };
  readonly #texts = new Map<string, OpenText>();
  readonly #steps = new Map<string | null, string[]>();
  /** Those that were begun: whether they still are. */
  readonly #subagents = new Map<string, boolean>();
  /** Calls that were begun here: a reader looks at no others when the run ends. */
  readonly #told = new Set<string>();

  /** `isModern`: its reader speaks AG-UI 1.0; else that of `@ag-ui/client` 0.0.59. */
  constructor(
    threadId: string,
    runId: string,
    readonly isModern: boolean,
  ) {
    this.#ids = { threadId, runId };
  }

  /** The events since the last time. */
  take(): Event[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  say(event: Event, tag: string | null = null): void {
    if (!this.isOver) this.#events.push(tag === null ? event : { ...event, subagentRunId: tag });
  }

  // ---- the run

  begin(): void {
    this.say({ type: 'RUN_STARTED', ...this.#ids, ...(this.isModern && { protocolVersion: '1.0' }) });
  }

  /**
   * The run is a success; `pending` are calls that its reader executes. Older readers know those by their having no
   * result, and by a run that does not say how it ended.
   */
  finish(pending: readonly Call[] = [], usage: readonly JsonObject[] = []): void {
    for (const call of pending) this.#tell(call);
    const pendingToolCallIds = pending.map(({ toolCallId }) => toolCallId);
    const outcome = { type: 'success', ...(pending.length > 0 && { pendingToolCallIds }) };
    this.#end(pending.length && !this.isModern ? null : outcome, usage.length ? { usage } : {});
  }

  /** To a reader that knows no cancelled runs it is an error: as a success it would be taken for a whole answer. */
  cancel(reason: string): void {
    if (this.isModern) this.#end({ type: 'cancelled' }, { metadata: { antiphon: { reason } } });
    else this.fail(`the run was cancelled: ${reason}`, 'cancelled');
  }

  interrupt(interrupts: readonly (JsonObject & { readonly id: string })[]): void {
    const asked = new Map<string, string[]>();
    for (const { id, subagentRunId: tag } of interrupts) {
      if (typeof tag === 'string') asked.set(tag, [...(asked.get(tag) ?? []), id]);
    }
    this.#close(asked);
    this.#end({ type: 'interrupt', interrupts });
  }

  fail(message: string, code: string | null): void {
    this.say({ type: 'RUN_ERROR', message, ...(code !== null && { code }) });
    this.isOver = true;
  }

  #end(outcome: JsonObject | null, more: JsonObject = {}): void {
    this.#close(new Map());
    this.say({ type: 'RUN_FINISHED', ...this.#ids, ...(outcome && { outcome }), ...more });
    this.isOver = true;
  }

  /** Closes all that is open. A subagent that is still at work is suspended, for `asked` by what it waits for. */
  #close(asked: ReadonlyMap<string, readonly string[]>): void {
    this.closeTexts();
    for (const [tag, isActive] of this.#subagents) {
      const interruptIds = asked.get(tag);
      const outcome = { type: 'suspended', ...(interruptIds && { interruptIds }) };
      if (isActive) this.#endSubagent(tag, { type: 'SUBAGENT_FINISHED', outcome });
    }
  }

  /** Closes the texts and steps of everybody. */
  closeTexts(): void {
    const tags = [null, ...[...this.#texts.values()].map(({ tag }) => tag), ...this.#steps.keys()];
    for (const tag of new Set(tags)) this.closeOf(tag);
  }

  /** Closes the texts and steps of a subagent; null: of the main agent. */
  closeOf(tag: string | null): void {
    for (const [id, text] of [...this.#texts]) if (text.tag === tag) this.endText(id);
    const names = this.#steps.get(tag) ?? [];
    this.#steps.delete(tag);
    for (const stepName of names.reverse()) this.say({ type: 'STEP_FINISHED', stepName }, tag);
  }

  // ---- texts

  /** Begins a text, or begins again one of which the reader has the first `sent` characters. */
  startText(message: Message, sent = 0): void {
    const id = shownId(message);
    if (this.#texts.has(id)) return;
    const tag = subagentOf(message.lane, message.run);
    const kind = message.role === 'reasoning' || message.role === 'tool_call' ? message.role : 'text';
    this.#texts.set(id, { kind, tag, sent });
    switch (kind) {
      case 'reasoning':
        this.say({ type: 'REASONING_START', messageId: id }, tag);
        return this.say({ type: 'REASONING_MESSAGE_START', messageId: id, role: 'reasoning' }, tag);
      case 'tool_call':
        this.#told.add(id);
        return this.say({ type: 'TOOL_CALL_START', toolCallId: id, toolCallName: message.name ?? '' }, tag);
      case 'text':
        return this.say({ type: 'TEXT_MESSAGE_START', messageId: id, role: roleOf(message) }, tag);
    }
  }

  /** Says what the reader does not have of an open text. */
  grow(message: Message): void {
    const id = shownId(message);
    const text = this.#texts.get(id);
    if (!text) return;
    const delta = message.text.slice(text.sent);
    text.sent = message.text.length;
    if (!delta) return;
    switch (text.kind) {
      case 'reasoning':
        return this.say({ type: 'REASONING_MESSAGE_CONTENT', messageId: id, delta });
      case 'tool_call':
        return this.say({ type: 'TOOL_CALL_ARGS', toolCallId: id, delta });
      case 'text':
        return this.say({ type: 'TEXT_MESSAGE_CONTENT', messageId: id, delta });
    }
  }

  endText(id: string): void {
    const kind = this.#texts.get(id)?.kind;
    this.#texts.delete(id);
    switch (kind) {
      case 'reasoning':
        this.say({ type: 'REASONING_MESSAGE_END', messageId: id });
        return this.say({ type: 'REASONING_END', messageId: id });
      case 'tool_call':
        return this.say({ type: 'TOOL_CALL_END', toolCallId: id });
      case 'text':
        return this.say({ type: 'TEXT_MESSAGE_END', messageId: id });
    }
  }

  wholeText(message: Message): void {
    this.startText(message);
    this.grow(message);
    this.endText(shownId(message));
  }

  result({ id: messageId, toolCallId, text: content, lane, run }: Message): void {
    this.say({ type: 'TOOL_CALL_RESULT', messageId, toolCallId, content, role: 'tool' }, subagentOf(lane, run));
  }

  /** The reader has the call from before, with its arguments: this only has it looked at. */
  #tell({ toolCallId, name: toolCallName }: Call): void {
    if (this.#told.has(toolCallId)) return;
    this.#told.add(toolCallId);
    this.say({ type: 'TOOL_CALL_START', toolCallId, toolCallName });
    this.say({ type: 'TOOL_CALL_END', toolCallId });
  }

  // ---- steps and subagents

  /** Begins a step; one of that name which is open has been left by a worker that is gone. */
  startStep(tag: string | null, stepName: string): void {
    this.finishStep(tag, stepName);
    this.#steps.set(tag, [...(this.#steps.get(tag) ?? []), stepName]);
    this.say({ type: 'STEP_STARTED', stepName }, tag);
  }

  finishStep(tag: string | null, stepName: string): void {
    const names = this.#steps.get(tag);
    if (!names?.includes(stepName)) return;
    names.splice(names.indexOf(stepName), 1);
    this.say({ type: 'STEP_FINISHED', stepName }, tag);
  }

  /** Once for each stream: what comes of it after its end is still marked as its own. */
  startSubagent(tag: string, name: string, description: string, parent: string | null): void {
    if (this.#subagents.has(tag)) return;
    const isKnown = parent !== null && this.#subagents.has(parent);
    this.#subagents.set(tag, true);
    this.say({
      type: 'SUBAGENT_STARTED',
      subagentRunId: tag,
      name,
      ...(description && { description }),
      ...(isKnown && { parentSubagentRunId: parent }),
    });
  }

  finishSubagent(tag: string, failure: { readonly message: string; readonly code: string | null } | null): void {
    if (!this.#subagents.get(tag)) return;
    this.closeOf(tag);
    if (!failure) return this.#endSubagent(tag, { type: 'SUBAGENT_FINISHED', outcome: { type: 'success' } });
    const { message, code } = failure;
    this.#endSubagent(tag, { type: 'SUBAGENT_ERROR', message, ...(code !== null && { code }) });
  }

  #endSubagent(tag: string, event: Event): void {
    this.#subagents.set(tag, false);
    this.say(event, tag);
  }
}

const LABELS: readonly string[] = ['provider', 'model'];
const COUNTS: readonly string[] = [
  'inputTokens',
  'outputTokens',
  'totalTokens',
  'reasoningTokens',
  'cachedInputTokens',
];

/** Token usage as AG-UI has it, as far as it is such. */
export const usageOf = (value: unknown): JsonObject[] =>
  asObjects(value).flatMap((entry) => {
    const isGood = ([name, field]: [string, unknown]) =>
      (LABELS.includes(name) && typeof field === 'string') ||
      (COUNTS.includes(name) && Number.isInteger(field) && (field as number) >= 0);
    const kept = Object.entries(asObject(entry) ?? {}).filter(isGood);
    return kept.length ? [Object.fromEntries(kept)] : [];
  });
