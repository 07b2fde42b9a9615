/** One row of the transcript. Each is drawn again only when something of it has changed. */
import type { Call } from '@antiphon/client';
import type { CallNote, RunNote } from '@antiphon/client/react';
import { memo } from 'react';
import { Icon } from '../base/icons.js';
import { speaker } from '../base/words.js';
import { MessageFiles } from '../files/files.js';
import { CopyButton } from '../markdown/code.js';
import { MessageText } from '../markdown/text.js';
import { Avatar } from '../people/avatar.js';
import { marksOf } from './marks.js';
import type { Row } from './rows.js';
import { ToolCall } from './tool.js';

interface MessageRowProps {
  readonly row: Row;
  /** Of a call: its claim and the like, while it is open. */
  readonly call: Call | null;
  readonly callNote: CallNote | null;
  /** Of the run that this row is the last of. */
  readonly runNote: RunNote | null;
  readonly isMine: boolean;
}

export const MessageRow = memo(function MessageRow({ row, call, callNote, runNote, isMine }: MessageRowProps) {
  const { message, kind, isFirst } = row;
  const full = speaker(message.by, message.lane, message.role);
  const name = isMine ? 'You' : full;
  const side = message.role === 'user' ? 'user' : 'agent';
  return (
    <div className={`row ${side}${isFirst ? ' first' : ''}${message.rolledBack ? ' rolled-back' : ''}`}>
      {isFirst && (
        <header className="speaker">
          <Avatar name={full} isAgent={message.by?.kind !== 'user'} />
          <h2>{name}</h2>
          {message.lane && message.lane !== 'main' && <span className="tag">{message.lane}</span>}
        </header>
      )}
      {kind === 'text' && <TextMessage row={row} name={name} />}
      {kind === 'reasoning' && <Reasoning row={row} />}
      {kind === 'tool' && <ToolCall row={row} call={call} note={callNote} />}
      <Marks row={message} note={runNote} />
    </div>
  );
});

const ROLES: Readonly<Record<string, string>> = { user: 'user', assistant: 'assistant' };

function TextMessage({ row: { message }, name }: { row: Row; name: string }) {
  const { id, role, status, text, attachments } = message;
  const isStreaming = status === 'streaming';
  return (
    <article
      className="message"
      data-message={id}
      data-role={ROLES[role] ?? 'system'}
      data-status={status}
      aria-label={`Message of ${name}`}
      aria-busy={isStreaming}
    >
      <MessageText text={text} isMarkdown={role !== 'user'} />
      {attachments && <MessageFiles attachments={attachments} />}
      {!isStreaming && <CopyButton text={() => text} label="Copy the message" isIcon />}
    </article>
  );
}

function Reasoning({ row: { message } }: { row: Row }) {
  const isStreaming = message.status === 'streaming';
  return (
    <details className="fold reasoning" data-part="reasoning" data-id={message.id} data-status={message.status}>
      <summary>
        <Icon name="thought" size={16} />
        <span className={isStreaming ? 'shimmer' : undefined}>{isStreaming ? 'Thinking' : 'Thought about it'}</span>
        <Icon name="chevron" size={16} />
      </summary>
      <div className="folded prose verbatim">{message.text}</div>
    </details>
  );
}

function Marks({ row, note }: { row: Row['message']; note: RunNote | null }) {
  const marks = marksOf(row, note);
  if (!marks.length) return null;
  return (
    <ul className="marks">
      {marks.map(({ text, isBad }) => (
        <li key={text} className={isBad ? 'bad' : undefined}>
          {text}
        </li>
      ))}
    </ul>
  );
}
