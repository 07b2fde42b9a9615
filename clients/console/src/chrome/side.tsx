/** The side of the page: the user's sessions, and the way out. On a phone it lies above the page while it is open. */
import type { UsedSessions } from '@antiphon/client/react';
import { useEffect, useRef } from 'react';
import { Icon, Mark } from '../base/icons.js';
import { SessionList } from './sessions.js';

interface SideProps {
  readonly sessions: UsedSessions;
  readonly current: string;
  readonly user: string;
  readonly isOpen: boolean;
  readonly go: (session: string) => void;
  readonly leave: () => void;
  readonly close: () => void;
}

export function Side({ sessions, current, user, isOpen, go, leave, close }: SideProps) {
  const closing = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!isOpen) return;
    const before = document.activeElement;
    closing.current?.focus();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, [isOpen]);
  return (
    <>
      <nav aria-label="Sessions" className={isOpen ? 'side open' : 'side'}>
        <header className="side-head">
          <p className="brand">
            <Mark />
            <span>Antiphon</span>
          </p>
          <button
            ref={closing}
            type="button"
            className="icon-button close-side"
            aria-label="Close the list"
            onClick={close}
          >
            <Icon name="close" />
          </button>
        </header>
        <SessionList used={sessions} current={current} go={go} />
        <footer className="side-foot">
          <span className="hint">{user}</span>
          <button type="button" className="quiet" onClick={leave}>
            Leave
          </button>
        </footer>
      </nav>
      {isOpen && <div className="veil" aria-hidden="true" onClick={close} />}
    </>
  );
}
