/** What is not in the transcript yet: messages that wait their turn, and those on their way here. */
import type { Input, Scheduled } from '@antiphon/client';
import { advice } from '../advice.js';
import { useStore } from '../base/store.js';
import { nameOf, preciseTime, timeOf } from '../base/words.js';
import { TAGS } from './modes.js';
import type { Item, Outbox } from './outbox.js';

interface QueueProps {
  readonly queue: readonly Input[];
  readonly outbox: Outbox;
  readonly user: string | null;
  readonly isOnline: boolean;
  /** An admin may take back what others have sent. */
  readonly isAdmin: boolean;
  readonly takeBack: (inputId: string) => void;
  readonly errors: ReadonlyMap<string, string>;
}

export function Queue({ queue, outbox, user, isOnline, isAdmin, takeBack, errors }: QueueProps) {
  const items = useStore(outbox.items);
  const known = new Set(queue.map(({ inputId }) => inputId));
  const onTheirWay = items.filter(({ inputId }) => !known.has(inputId));
  if (!queue.length && !onTheirWay.length) return null;
  return (
    <ul className="queue" role="list" aria-label="Queue">
      {queue.map((input) => {
        const isMine = input.by?.kind === 'user' && input.by.id === user;
        return (
          <li key={input.inputId} data-input={input.inputId} data-mode={input.mode}>
            <span className="tag" data-tone={input.mode}>
              {TAGS[input.mode] ?? input.mode}
            </span>
            <What of={input} />
            <span className="who">
              {isMine ? '' : nameOf(input.by)}
              {input.lane === 'main' ? '' : ` → ${input.lane}`}
            </span>
            {(isMine || isAdmin) && isOnline && (
              <button type="button" className="quiet" onClick={() => takeBack(input.inputId)}>
                Take back
              </button>
            )}
            {errors.get(input.inputId) && <p className="problem">{errors.get(input.inputId)}</p>}
          </li>
        );
      })}
      {onTheirWay.map((item) => (
        <OnItsWay key={item.inputId} item={item} outbox={outbox} isOnline={isOnline} />
      ))}
    </ul>
  );
}

interface LaterProps extends Pick<QueueProps, 'user' | 'isOnline' | 'isAdmin' | 'takeBack' | 'errors'> {
  readonly scheduled: readonly Scheduled[];
  /** Whether this user may send, and so take back what an agent has scheduled. */
  readonly maySend: boolean;
}

/** What is sent later: apart from the queue, each with its time. */
export function Later({ scheduled, user, isOnline, isAdmin, maySend, takeBack, errors }: LaterProps) {
  if (!scheduled.length) return null;
  return (
    <ul className="queue later" role="list" aria-label="Scheduled">
      {scheduled.map((planned) => {
        const { inputId, at, by } = planned;
        const isUsers = by?.kind === 'user';
        const isMine = isUsers && by.id === user;
        return (
          <li key={inputId} data-input={inputId} data-state="scheduled">
            <time className="tag" dateTime={new Date(at).toISOString()} title={preciseTime(at)}>
              {timeOf(at)}
            </time>
            <What of={planned} />
            <span className="who">{isMine ? '' : nameOf(by)}</span>
            {(isMine || isAdmin || (maySend && !isUsers)) && isOnline && (
              <button type="button" className="quiet" onClick={() => takeBack(inputId)}>
                Take back
              </button>
            )}
            {errors.get(inputId) && <p className="problem">{errors.get(inputId)}</p>}
          </li>
        );
      })}
    </ul>
  );
}

/** Its text, and the names of its files. */
function What({ of: { content, attachments } }: { of: Pick<Item, 'content' | 'attachments'> }) {
  const names = attachments?.map(({ name }) => name).join(', ');
  return (
    <span className="what">
      {content}
      {content && names && ' · '}
      {names}
    </span>
  );
}

function OnItsWay({ item, outbox, isOnline }: { item: Item; outbox: Outbox; isOnline: boolean }) {
  const { inputId, mode, refusal } = item;
  const state = refusal ? 'refused' : isOnline ? 'sending' : 'waiting';
  const words = { refused: 'not sent', sending: 'sending', waiting: 'waits for the connection' };
  return (
    <li data-input={inputId} data-state={state}>
      <span className="tag" data-tone={refusal ? 'bad' : undefined}>
        {words[state]}
      </span>
      <What of={item} />
      {refusal && (
        <>
          <button type="button" className="quiet" onClick={() => outbox.retry(inputId, mode)}>
            Try again
          </button>
          {mode !== null && mode !== 'enqueue' && (
            <button type="button" className="quiet" onClick={() => outbox.retry(inputId, 'enqueue')}>
              Send after this
            </button>
          )}
          <button type="button" className="quiet" onClick={() => outbox.discard(inputId)}>
            Discard
          </button>
          <p className="problem">{advice(refusal.code, refusal.message)}</p>
        </>
      )}
    </li>
  );
}
