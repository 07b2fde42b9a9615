/** Who has the conversation: a banner for each hand-over that waits, and one to give back what this user has taken. */
import type { Handoff } from '@antiphon/client';
import { useEffect, useId, useState } from 'react';
import { announce } from '../base/announce.js';
import { Icon } from '../base/icons.js';
import { timeOf } from '../base/words.js';

interface WaitingHandoverProps {
  readonly handoff: Handoff;
  readonly barred: string | null;
  readonly error: string;
  readonly take: () => void;
}

export function WaitingHandover({ handoff, barred, error, take }: WaitingHandoverProps) {
  const { to, reason, summary, expiresAt, handoffId } = handoff;
  const title = `The agent asks for a human${to ? ` (${to})` : ''}`;
  const heading = useId();
  useEffect(() => announce(`${title}${reason ? `: ${reason}` : ''}`), [title, reason]);
  return (
    <section className="card banner" aria-labelledby={heading} data-handoff={handoffId}>
      <h2 id={heading} className="card-head">
        <Icon name="hand" size={18} /> {title}
      </h2>
      {reason && <p className="card-message">{reason}</p>}
      {summary && <p>{summary}</p>}
      {expiresAt !== null && <p className="hint">It waits until {timeOf(expiresAt)}.</p>}
      {barred ? (
        <p className="hint">{barred}</p>
      ) : (
        <div className="actions">
          <button type="button" className="primary" onClick={take}>
            Take over
          </button>
        </div>
      )}
      {error && (
        <p className="problem" role="alert">
          {error}
        </p>
      )}
    </section>
  );
}

interface OwnLaneProps {
  readonly lane: string;
  readonly error: string;
  readonly giveBack: (note: string) => void;
}

export function OwnLane({ lane, error, giveBack }: OwnLaneProps) {
  const [note, setNote] = useState('');
  const heading = useId();
  return (
    <section className="card banner own" aria-labelledby={heading} data-lane={lane}>
      <h2 id={heading} className="card-head">
        <Icon name="hand" size={18} /> You have the conversation{lane === 'main' ? '' : ` in ${lane}`}
      </h2>
      <p className="hint">What you write stands for the agent, until you give it back.</p>
      <form
        className="actions"
        onSubmit={(event) => {
          event.preventDefault();
          giveBack(note.trim());
        }}
      >
        <input
          value={note}
          placeholder="A note for the agent"
          aria-label="A note for the agent"
          onChange={(event) => setNote(event.target.value)}
        />
        <button type="submit" className="primary">
          Give back
        </button>
      </form>
      {error && (
        <p className="problem" role="alert">
          {error}
        </p>
      )}
    </section>
  );
}
