/** The user's sessions, newest activity first, and the way to any other one. */
import type { SessionInfo } from '@antiphon/client';
import type { UsedSessions } from '@antiphon/client/react';
import { type KeyboardEvent, type RefObject, useEffect, useId, useRef, useState } from 'react';
import { advice } from '../advice.js';
import { Icon } from '../base/icons.js';
import { ago } from '../base/words.js';
import { isSessionName } from '../link/link.js';

interface SessionListProps {
  readonly used: UsedSessions;
  readonly current: string;
  readonly go: (session: string) => void;
  /** Has the field focused when it appears. */
  readonly isFocused?: boolean;
}

const MINUTE_MS = 60_000;

function useMinute(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), MINUTE_MS);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** The sessions whose name or title has all the words in it. */
export function found(sessions: readonly SessionInfo[], text: string): readonly SessionInfo[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return sessions.filter(({ session, title }) => {
    const all = `${session} ${title ?? ''}`.toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

export function SessionList({ used, current, go, isFocused = false }: SessionListProps) {
  const [text, setText] = useState('');
  const list = useRef<HTMLUListElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const now = useMinute();
  const { sessions, hasMore, error, loadMore } = used;
  const listed = sessions ?? [];
  // the present one is there from the beginning, also before anything is written to it
  const all = listed.some(({ session }) => session === current) ? listed : [unlisted(current), ...listed];
  const shown = found(all, text);
  const name = text.trim();
  const isNew = isSessionName(name) && !all.some(({ session }) => session === name);
  useEffect(() => {
    if (isFocused) field.current?.focus();
  }, [isFocused]);

  const chosen = (session: string) => {
    setText('');
    go(session);
  };
  const move = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const links = [...(list.current?.querySelectorAll<HTMLElement>('a, button') ?? [])];
    const at = links.indexOf(document.activeElement as HTMLElement) + step;
    (at < 0 ? field.current : links[Math.min(at, links.length - 1)])?.focus();
  };

  return (
    // arrows go from the field through the list
    // biome-ignore lint/a11y/noStaticElementInteractions: what has the focus is a field or a link
    <div className="session-list" onKeyDown={move}>
      <Search
        field={field}
        text={text}
        change={setText}
        submit={() => {
          const [first] = shown;
          if (isNew) chosen(name);
          else if (first) chosen(first.session);
        }}
      />
      <ul ref={list} role="list">
        {isNew && (
          <li>
            <button type="button" className="session begin" onClick={() => chosen(name)}>
              <Icon name="plus" size={18} />
              <span className="session-title">Go to “{name}”</span>
            </button>
          </li>
        )}
        {shown.map((info) => (
          <SessionLink key={info.session} info={info} now={now} isCurrent={info.session === current} go={chosen} />
        ))}
        {hasMore && (
          <li>
            <button type="button" className="quiet" onClick={loadMore}>
              Show more
            </button>
          </li>
        )}
      </ul>
      {sessions === null && !error && <p className="hint pad">Looking for your sessions</p>}
      {error && <p className="hint pad">The list is not to be had: {advice(error.code, error.message)}</p>}
      {shown.length === 0 && !isNew && <p className="hint pad">No session has these words in it.</p>}
    </div>
  );
}

interface SearchProps {
  readonly field: RefObject<HTMLInputElement | null>;
  readonly text: string;
  readonly change: (text: string) => void;
  readonly submit: () => void;
}

function Search({ field, text, change, submit }: SearchProps) {
  const id = useId();
  return (
    <form
      className="search"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <label htmlFor={id} className="unseen">
        Find or begin a session
      </label>
      <Icon name="search" size={18} />
      <input
        id={id}
        ref={field}
        value={text}
        placeholder="Find or begin a session"
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        maxLength={128}
        onChange={(event) => change(event.target.value)}
      />
    </form>
  );
}

const unlisted = (session: string): SessionInfo => ({
  session,
  title: null,
  metadata: {},
  createdBy: null,
  updatedAt: null,
  status: 'idle',
});

const STATUS: Readonly<Record<string, string>> = {
  running: 'working',
  requires_action: 'waits for somebody',
  paused: 'paused',
  human: 'with a human',
  closed: 'closed',
};

interface SessionLinkProps {
  readonly info: SessionInfo;
  readonly now: number;
  readonly isCurrent: boolean;
  readonly go: (session: string) => void;
}

function SessionLink({ info: { session, title, status, updatedAt }, now, isCurrent, go }: SessionLinkProps) {
  return (
    <li>
      <a
        href={`#session=${encodeURIComponent(session)}`}
        className="session"
        data-session={session}
        data-status={status}
        aria-current={isCurrent ? 'page' : undefined}
        onClick={(event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
          event.preventDefault();
          go(session);
        }}
      >
        <span className="session-title">{title ?? session}</span>
        <span className="session-about">
          {STATUS[status] && <span className={`session-status ${status}`}>{STATUS[status]}</span>}
          {updatedAt !== null && <span>{ago(updatedAt, now)}</span>}
        </span>
      </a>
    </li>
  );
}
