/** A tool's call: what was asked, who executes it, and what came of it, folded away. */
import type { Call } from '@antiphon/client';
import type { CallNote } from '@antiphon/client/react';
import { Icon } from '../base/icons.js';
import { nameOf } from '../base/words.js';
import type { Row } from './rows.js';

/** Characters of arguments and results that are shown, and of what is said of a call's progress. */
const SHOWN_CHARS = 20_000;
const PROGRESS_CHARS = 200;

export type ToolState = 'writing' | 'waiting' | 'running' | 'done' | 'failed';

export function toolState({ message, result }: Row, call: Call | null, note: CallNote | null): ToolState {
  if (note?.end && note.end !== 'done') return 'failed';
  if (message.status === 'streaming') return 'writing';
  if (call && call.executor === 'client' && !call.claim) return 'waiting';
  return call && !result ? 'running' : 'done';
}

const FAILURES: Readonly<Record<string, string>> = {
  no_executor: 'nobody executed it',
  deadline: 'not finished in time',
  outcome_unknown: 'who executed it is gone',
  not_run: 'its run was stopped',
  rejected: 'it was not approved',
  error: 'it failed',
};

function line(state: ToolState, call: Call | null, note: CallNote | null): string {
  switch (state) {
    case 'writing':
      return 'being written';
    case 'waiting':
      return `waits for ${call?.participant ?? 'somebody'} to execute it`;
    case 'running':
      return `${call?.claim ? `${nameOf(call.claim.by)} executes it` : 'running'}${progressOf(note)}`;
    case 'failed':
      return FAILURES[note?.end ?? ''] ?? note?.end ?? '';
    case 'done':
      return note?.by ? `executed by ${nameOf(note.by)}` : 'done';
  }
}

function progressOf(note: CallNote | null): string {
  const progress = note?.progress;
  if (progress === undefined || progress === null) return '';
  return ` (${(typeof progress === 'string' ? progress : JSON.stringify(progress)).slice(0, PROGRESS_CHARS)})`;
}

function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2).slice(0, SHOWN_CHARS);
  } catch {
    return text.slice(0, SHOWN_CHARS);
  }
}

interface ToolCallProps {
  readonly row: Row;
  readonly call: Call | null;
  readonly note: CallNote | null;
}

export function ToolCall({ row, call, note }: ToolCallProps) {
  const { message, result } = row;
  const state = toolState(row, call, note);
  const isOpen = state === 'running' || state === 'writing';
  return (
    <details className="fold tool" data-tool-call={message.id} data-state={state} data-status={message.status}>
      <summary>
        <Icon name="tool" size={16} />
        <span className="tool-name">{message.name ?? 'tool'}</span>
        <span className={`tool-state${isOpen ? ' shimmer' : ''}`}>{line(state, call, note)}</span>
        <Icon name="chevron" size={16} />
      </summary>
      <div className="folded">
        <h3>Arguments</h3>
        <pre tabIndex={0}>{pretty(message.text) || '–'}</pre>
        {result && (
          <>
            <h3>Result</h3>
            <pre tabIndex={0}>{pretty(result.text) || '–'}</pre>
          </>
        )}
      </div>
    </details>
  );
}
