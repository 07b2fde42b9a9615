/** Calls of tools as an answer shows them. */
import { asObject, asString } from '../json.js';
import type { LogEvent } from '../model.js';
import type { Chunk } from './chunks.js';

/** A call without its output. */
interface Call {
  readonly name: string;
  /** The arguments so far. */
  text: string;
  isStreaming: boolean;
  isRequested: boolean;
  /** The viewer is the one to execute it, and has not yet. */
  isWaiting: boolean;
  isClients: boolean;
  /** A result of a client that is a text. */
  said: string | null;
  code: string | null;
}

const newCall = (name: string, isStreaming: boolean): Call => ({
  name,
  text: '',
  isStreaming,
  isRequested: false,
  isWaiting: false,
  isClients: false,
  said: null,
  code: null,
});

/** The calls of one answer, for a viewer who executes those that are for them. */
export class ToolParts {
  readonly #calls = new Map<string, Call>();

  constructor(readonly isViewers: (call: LogEvent) => boolean) {}

  /** Calls that have no output yet. */
  get open(): string[] {
    return [...this.#calls.keys()];
  }

  /** Those that wait for the viewer. */
  get waiting(): string[] {
    return [...this.#calls].flatMap(([id, call]) => (call.isWaiting ? id : []));
  }

  /** The arguments of a call are still coming. */
  get isStreaming(): boolean {
    return [...this.#calls.values()].some((call) => call.isStreaming);
  }

  knows(id: string): boolean {
    return this.#calls.has(id);
  }

  begin(toolCallId: string, toolName: string): Chunk[] {
    this.#calls.set(toolCallId, newCall(toolName, true));
    return [{ type: 'tool-input-start', toolCallId, toolName }];
  }

  addInput(toolCallId: string, inputTextDelta: string): Chunk[] {
    const call = this.#calls.get(toolCallId);
    if (!call?.isStreaming) return [];
    call.text += inputTextDelta;
    return [{ type: 'tool-input-delta', toolCallId, inputTextDelta }];
  }

  endInput(id: string): Chunk[] {
    const call = this.#calls.get(id);
    if (call) call.isStreaming = false;
    return [];
  }

  request(id: string, event: LogEvent): Chunk[] {
    const call = this.#calls.get(id) ?? newCall(asString(event['name']) ?? '', false);
    this.#calls.set(id, call);
    call.isClients = event['executor'] === 'client';
    call.isWaiting = call.isClients && this.isViewers(event);
    return this.#available(id, call, asObject(event['args']) ?? {});
  }

  #available(toolCallId: string, call: Call, input: unknown): Chunk[] {
    call.isRequested = true;
    call.isStreaming = false;
    // the SDK neither executes nor waits for what somebody else executes
    const elsewhere = call.isWaiting ? {} : { providerExecuted: true };
    return [{ type: 'tool-input-available', toolCallId, toolName: call.name, input, ...elsewhere }];
  }

  /** A client has sent what came of it. */
  resolve(id: string, { result, error }: LogEvent): void {
    const call = this.#calls.get(id);
    if (!call) return;
    call.isWaiting = false;
    call.said = asString(result) ?? call.said;
    if (error !== undefined && error !== null) call.code = 'error';
  }

  fail(id: string, code: string): void {
    const call = this.#calls.get(id);
    if (!call) return;
    call.isWaiting = false;
    call.code = code;
  }

  /** Of a TOOL_CALL_RESULT; nothing if the answer does not show the call. */
  output(toolCallId: string, event: LogEvent): Chunk[] {
    const call = this.#calls.get(toolCallId);
    if (!call) return [];
    const before = call.isRequested ? [] : this.#available(toolCallId, call, call.text ? parsed(call.text) : {});
    const content = event['content'];
    if (call.code !== null) {
      return [...before, { type: 'tool-output-error', toolCallId, errorText: errorText(content, call.code) }];
    }
    const isJson = event['json'] === true || (call.isClients && content !== call.said);
    const output = isJson && typeof content === 'string' ? parsed(content) : (content ?? null);
    return [...before, { type: 'tool-output-available', toolCallId, output }];
  }

  forget(id: string): void {
    this.#calls.delete(id);
  }
}

const errorText = (content: unknown, code: string): string =>
  asString(asObject(typeof content === 'string' ? parsed(content) : content)?.['message']) ?? code;

/** JSON as what it is, any other text as text. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
