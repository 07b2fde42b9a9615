/**
 * The AI SDK's words as far as they are used here, by their structure alone: the package `ai` is not needed, and those of
 * its versions 5, 6 and 7 fit (tests/ai-sdk/types.ts).
 */

/** What is told of a message: the run that it is of, and the place in the log up to which it is told. */
export interface AnswerMetadata {
  readonly runId: string;
  readonly cursor?: string;
}

/** A chunk of a UI message stream. */
export type Chunk =
  | { type: 'start'; messageId: string; messageMetadata: AnswerMetadata }
  | { type: 'finish'; finishReason: 'stop' | 'tool-calls' | 'other'; messageMetadata?: AnswerMetadata }
  | { type: 'start-step' | 'finish-step' }
  | { type: 'abort'; reason: string }
  | { type: 'error'; errorText: string }
  | { type: 'text-start' | 'text-end' | 'reasoning-start' | 'reasoning-end'; id: string }
  | { type: 'text-delta' | 'reasoning-delta'; id: string; delta: string }
  | { type: 'file'; mediaType: string; url: string }
  | { type: 'tool-input-start'; toolCallId: string; toolName: string }
  | { type: 'tool-input-delta'; toolCallId: string; inputTextDelta: string }
  | {
      type: 'tool-input-available';
      toolCallId: string;
      toolName: string;
      input: unknown;
      providerExecuted?: boolean;
    }
  | { type: 'tool-approval-request'; approvalId: string; toolCallId: string }
  | { type: 'tool-output-available'; toolCallId: string; output: unknown }
  | { type: 'tool-output-error'; toolCallId: string; errorText: string }
  | { type: `data-${string}`; data: unknown; transient: true };

/** Those that every version knows by its types. Version 5 passes over a `tool-approval-request`. */
export type CommonChunk = Exclude<Chunk, { type: 'tool-approval-request' }>;

/** A part of a message, such as `text`, `tool-NAME` or `dynamic-tool`. */
export interface UIPart {
  readonly type: string;
}

/** A message as `useChat` has it. */
export interface UIMessageLike {
  readonly id: string;
  readonly role: 'system' | 'user' | 'assistant';
  readonly parts: readonly UIPart[];
  readonly metadata?: unknown;
}
