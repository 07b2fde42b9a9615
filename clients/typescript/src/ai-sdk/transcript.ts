/**
 * Messages of the transcript as the AI SDK's UI messages. Pure.
 *
 * The same mapping is in the gateway (`gateway/http/ui_messages/transcript.py`); both pass
 * `tests/conformance/cases/ui-transcripts`.
 */
import { asObject, asString } from '../json.js';
import type { Message } from '../model.js';
import type { UIMessageLike, UIPart } from './chunks.js';
import { fileParts } from './files.js';
import { parsed } from './tool-parts.js';

/** Before the id of an input in that of its message. */
const INPUT_MESSAGE = 'msg_';
const TEXTS: { readonly [role: string]: string } = { assistant: 'text', reasoning: 'reasoning' };

interface Draft extends UIMessageLike {
  readonly parts: UIPart[];
}

/**
 * What a page begins with. What is attached to a message of the session are its parts of type `file`. An answer that is
 * still being given comes as a stream, too, and takes its place then.
 */
export function uiMessages(messages: readonly Message[], session: string): UIMessageLike[] {
  const list = new List(session);
  for (const message of messages) {
    if ((message.lane ?? 'main') === 'main' && !message.rolledBack) list.add(message);
  }
  return list.messages;
}

class List {
  readonly messages: Draft[] = [];
  #run: string | null = null;
  #answer: Draft | null = null;
  #answerId = '';
  readonly #calls = new Map<string, Record<string, unknown>>();
  #isStepDue = true;

  constructor(readonly session: string) {}

  add(message: Message): void {
    const { id, role, run, text, seq } = message;
    const kind = TEXTS[role];
    const files: UIPart[] = fileParts(message.attachments, this.session);
    if (role === 'user') {
      const inputId = id.startsWith(INPUT_MESSAGE) ? id.slice(INPUT_MESSAGE.length) : id;
      this.messages.push({ id: inputId, role, parts: partsOf(textPart(text), files), metadata: { seq } });
      this.#begin(run, `run_${inputId}`);
    } else if (run === null && role === 'assistant') {
      this.messages.push({ id, role, parts: partsOf({ ...textPart(text), ...DONE }, files) });
    } else if (role === 'tool') this.#result(message);
    else if (kind) {
      for (const part of partsOf({ ...textPart(text, kind), ...DONE }, files)) this.#add(message, part);
    } else if (role === 'tool_call') this.#call(message);
  }

  #begin(run: string | null, answerId: string): void {
    this.#run = run;
    this.#answer = null;
    this.#answerId = answerId;
    this.#isStepDue = true;
  }

  #add({ run }: Message, part: UIPart): void {
    if (run !== this.#run) this.#begin(run, run ?? ''); // its input is on the page before
    if (!this.#answer) {
      this.#answer = { id: this.#answerId, role: 'assistant', parts: [], metadata: { runId: run } };
      this.messages.push(this.#answer);
    }
    if (this.#isStepDue) this.#answer.parts.push({ type: 'step-start' });
    this.#answer.parts.push(part);
    this.#isStepDue = false;
  }

  #call(message: Message): void {
    const { id, name, text } = message;
    const part = {
      type: `tool-${name ?? ''}`,
      toolCallId: id,
      state: 'output-error',
      input: text ? parsed(text) : {},
      errorText: 'outcome_unknown',
      providerExecuted: true,
    };
    this.#calls.set(id, part);
    this.#add(message, part);
  }

  #result({ toolCallId, text }: Message): void {
    const part = this.#calls.get(toolCallId ?? '');
    if (!part) return;
    this.#isStepDue = true;
    const output = parsed(text);
    const failed = asObject(output);
    const error = asString(failed?.['error']);
    if (failed && error !== null && Object.keys(failed).every((field) => field === 'error' || field === 'message')) {
      part['errorText'] = asString(failed['message']) || error;
    } else {
      delete part['errorText'];
      Object.assign(part, { state: 'output-available', output });
    }
  }
}

const DONE = { state: 'done' };

/** Where there are files alone, there is no text. */
const partsOf = (text: UIPart & { readonly text: string }, files: readonly UIPart[]): UIPart[] =>
  text.text || !files.length ? [text, ...files] : [...files];

const textPart = (text: string, type = 'text') => ({ type, text });
