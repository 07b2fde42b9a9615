/** What waits for people, as cards: approvals, questions, and what this browser is asked. */
import type { Approval } from '@antiphon/client';
import { type ReactNode, useEffect, useId, useMemo, useState } from 'react';
import { optionName } from '../advice.js';
import { announce } from '../base/announce.js';
import { nameOf, timeOf } from '../base/words.js';
import type { Ask } from './asks.js';
import { Field, formFor, readField, written } from './fields.js';

/** Characters of details that are shown. */
const SHOWN_CHARS = 20_000;

const isYes = (option: string): boolean => option.startsWith('allow') || option === 'answer';

interface ApprovalCardProps {
  readonly approval: Approval;
  /** Of the call that is to be approved. */
  readonly args: unknown;
  /** Which agent asks, if it is not that of the main lane. */
  readonly from: string;
  readonly user: string | null;
  /** Why this user cannot decide; null if they can. */
  readonly barred: string | null;
  readonly error: string;
  readonly respond: (option: string, payload?: unknown) => void;
}

export function ApprovalCard({ approval, args, from, user, barred, error, respond }: ApprovalCardProps) {
  const { approvalId, kind, message, options, votes, responseSchema, details } = approval;
  const isQuestion = kind === 'question';
  const hasField = isQuestion || responseSchema != null;
  const form = useMemo(
    () => formFor(isQuestion || responseSchema ? responseSchema : null),
    [isQuestion, responseSchema],
  );
  const [before] = useState(() => written(form, isQuestion ? undefined : (args ?? undefined)));
  const [text, setText] = useState(before);
  const [problem, setProblem] = useState('');
  const shown = details ?? (responseSchema ? null : args);
  const isVoted = votes.some(({ by }) => by?.id === user);
  const choose = (option: string) => {
    setProblem('');
    if (!hasField || !isYes(option)) return respond(option);
    const read = readField(form, text);
    if ('problem' in read) return setProblem(read.problem);
    respond(option, isQuestion || text !== before ? read.value : undefined);
  };
  return (
    <Card
      id={approvalId}
      kind={isQuestion ? 'Question' : 'Approval'}
      from={from}
      message={message}
      error={problem || error}
    >
      {shown != null && <Details value={shown} />}
      {isQuestion && <Field form={form} label="Your answer" text={text} change={setText} />}
      {!isQuestion && hasField && (
        <details className="more">
          <summary>Edit the arguments</summary>
          <Field form={form} label="Arguments to go on with" text={text} change={setText} />
        </details>
      )}
      <p className="hint">{[termsOf(approval), votesOf(approval)].filter(Boolean).join(' ')}</p>
      {barred && <p className="hint">{barred}</p>}
      {options.length > 0 && (
        <div className="actions">
          {options.map((option) => (
            <button
              key={option}
              type="button"
              className={isYes(option) && !option.endsWith('always') ? 'primary' : 'plain'}
              disabled={isVoted || barred !== null}
              onClick={() => choose(option)}
            >
              {optionName(option)}
            </button>
          ))}
        </div>
      )}
    </Card>
  );
}

export function AskCard({ ask }: { ask: Ask }) {
  const [text, setText] = useState('');
  return (
    <Card id={ask.toolCallId} kind="This browser is asked" from="" message={ask.question} error="">
      <Field form={formFor(null)} label="Your answer" text={text} change={setText} />
      <div className="actions">
        <button type="button" className="primary" onClick={() => ask.answer(text)}>
          {optionName('answer')}
        </button>
        <button type="button" className="plain" onClick={ask.decline}>
          {optionName('decline')}
        </button>
      </div>
    </Card>
  );
}

interface CardProps {
  readonly id: string;
  readonly kind: string;
  readonly from: string;
  readonly message: string;
  readonly error: string;
  readonly children: ReactNode;
}

function Card({ id, kind, from, message, error, children }: CardProps) {
  const heading = useId();
  useEffect(() => announce(`${kind}: ${message}`), [kind, message]);
  return (
    <div className="card ask" role="group" aria-labelledby={heading} data-approval={id}>
      <h2 id={heading} className="card-head">
        {kind}
        {from && <span className="hint"> from {from}</span>}
      </h2>
      <p className="card-message">{message}</p>
      {children}
      {error && (
        <p className="problem" role="alert">
          {error}
        </p>
      )}
    </div>
  );
}

function Details({ value }: { value: unknown }) {
  return (
    <details className="more">
      <summary>Details</summary>
      <pre tabIndex={0}>{JSON.stringify(value, null, 2).slice(0, SHOWN_CHARS)}</pre>
    </details>
  );
}

export function termsOf({ expiresAt, default: fallback, roles }: Approval): string {
  const then = fallback ? `, then “${optionName(fallback)}”` : '';
  const who = roles.length ? [`For: ${roles.join(', ')}.`] : [];
  return [...who, ...(expiresAt === null ? [] : [`Until ${timeOf(expiresAt)}${then}.`])].join(' ');
}

export function votesOf({ quorum, votes }: Approval): string {
  if (quorum < 2 && !votes.length) return '';
  const cast = votes.map(({ by, option }) => `${nameOf(by)}: ${optionName(option)}`).join(', ');
  return `${votes.length} of ${quorum} have decided${cast && ` (${cast})`}.`;
}
