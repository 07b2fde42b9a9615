/** Where somebody comes in who has no link, or whose token is no good any more. */
import { useId, useState } from 'react';
import { advice } from '../advice.js';
import { Mark } from '../base/icons.js';
import { isSessionName, readPasted } from './link.js';
import { goTo } from './place.js';

interface JoinProps {
  readonly session: string;
  /** Why somebody who was in is asked. */
  readonly why: string;
}

export function Join({ session, why }: JoinProps) {
  const [name, setName] = useState(session);
  const [token, setToken] = useState('');
  const [problem, setProblem] = useState('');
  const hintId = useId();
  const join = () => {
    const pasted = readPasted(name);
    const given = pasted.token || token.trim();
    if (!isSessionName(pasted.session)) return setProblem(advice('bad_name'));
    if (!given) return setProblem('A token is needed to join.');
    goTo(pasted.session, given);
  };
  return (
    <main className="join">
      <form
        className="card join-card"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          join();
        }}
      >
        <p className="brand">
          <Mark />
          <span>Antiphon</span>
        </p>
        <h1>Join a session</h1>
        <p className="hint" id={hintId}>
          With a link you need not fill this in: open it, or paste it here. Without one, ask whoever runs this server
          for a token.
        </p>
        {why && (
          <p className="problem" role="alert">
            {why}
          </p>
        )}
        <JoinField label="Session" value={name} change={setName} placeholder="demo" describedBy={hintId} />
        <JoinField label="Token" value={token} change={setToken} placeholder="eyJ…" describedBy={hintId} isSecret />
        {problem && (
          <p className="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" className="primary">
          Join
        </button>
      </form>
    </main>
  );
}

/** A whole link has its token in it. */
const MAX_CHARS = 20_000;

interface JoinFieldProps {
  readonly label: string;
  readonly value: string;
  readonly change: (value: string) => void;
  readonly placeholder: string;
  readonly describedBy: string;
  readonly isSecret?: boolean;
}

function JoinField({ label, value, change, placeholder, describedBy, isSecret = false }: JoinFieldProps) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        className={isSecret ? 'secret' : undefined}
        value={value}
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        maxLength={MAX_CHARS}
        aria-describedby={describedBy}
        placeholder={placeholder}
        onChange={(event) => change(event.target.value)}
      />
    </div>
  );
}
