/** How runs and inputs end, and what events are about: what the projection asks of the log's events. */
import { asObject, asString, type JsonObject } from '../json.js';
import type { LogEvent } from '../model.js';
import { usageOf } from './stream.js';

/** Codes of inputs that somebody took back; the others are failures. */
const CANCELLED: readonly string[] = ['cancelled', 'superseded', 'parent_cancelled', 'deleted'];

export interface Ending {
  readonly kind: 'success' | 'cancelled' | 'error';
  readonly reason?: string;
  readonly code?: string | null;
  readonly message?: string;
  readonly usage?: readonly JsonObject[];
}

export const SUCCESS: Ending = { kind: 'success' };

/** How the run of an input ends that will never be applied. */
export const endingOf = (code: string): Ending =>
  CANCELLED.includes(code)
    ? { kind: 'cancelled', reason: code }
    : { kind: 'error', code, message: `the input was not taken: ${code}` };

/** The text that a delta adds to. */
export const streamOf = (event: LogEvent): string | null =>
  asString(event.type === 'TOOL_CALL_ARGS' ? event['toolCallId'] : event['messageId']);

export const messageOf = (event: LogEvent): string | null =>
  asString(
    event.type === 'TOOL_CALL_START' || event.type === 'TOOL_CALL_END' ? event['toolCallId'] : event['messageId'],
  );

export function finished(event: LogEvent): Ending {
  const outcome = asObject(event['outcome']);
  if (outcome?.['type'] !== 'cancelled') return { kind: 'success', usage: usageOf(event['usage']) };
  return { kind: 'cancelled', reason: asString(outcome['reason']) ?? 'requested' };
}

export const failed = (event: LogEvent): Ending => ({
  kind: 'error',
  code: asString(event['code']),
  message: asString(event['message']) ?? '',
});

export function failureOf({ kind, reason = 'requested', code = null, message = '' }: Ending) {
  if (kind === 'success') return null;
  return kind === 'cancelled' ? { message: `the run was cancelled: ${reason}`, code: 'cancelled' } : { message, code };
}
