/** How the connection is doing: a sign in the header, and a banner when somebody should know more. */
import type { AntiphonError, ConnectionStatus } from '@antiphon/client';
import { useEffect, useState } from 'react';
import { Icon } from '../base/icons.js';

export type Health = 'online' | 'catching-up' | 'connecting' | 'offline' | 'log-away' | 'refused' | 'stopped';

export function healthOf({ phase, isLogAway }: ConnectionStatus, isLive: boolean, isRefused: boolean): Health {
  if (phase === 'stopped') return 'stopped';
  if (phase === 'waiting') return 'offline';
  if (phase !== 'open') return 'connecting';
  if (isRefused) return 'refused';
  if (isLogAway) return 'log-away';
  return isLive ? 'online' : 'catching-up';
}

const WORDS: Readonly<Record<Health, string>> = {
  online: 'Live',
  'catching-up': 'Catching up',
  connecting: 'Connecting',
  offline: 'Offline',
  'log-away': 'Server trouble',
  refused: 'Not readable',
  stopped: 'Disconnected',
};

export function ConnectionSign({ health }: { health: Health }) {
  return (
    <span className="connection" role="status" data-connection={health}>
      <span className="dot" aria-hidden="true" />
      <span className="connection-word">{WORDS[health]}</span>
    </span>
  );
}

const TICK_MS = 500;

/** The seconds until a time, counted down; 0 when it has come. */
function useSecondsTo(at: number | null): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (at === null) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, [at]);
  return at === null ? 0 : Math.max(0, Math.ceil((at - now) / 1000));
}

interface ConnectionBannerProps {
  readonly health: Health;
  readonly status: ConnectionStatus;
  readonly error: AntiphonError | null;
  readonly reconnect: () => void;
}

export function ConnectionBanner({ health, status, error, reconnect }: ConnectionBannerProps) {
  const seconds = useSecondsTo(status.retryAt);
  if (health === 'offline') {
    return (
      <div className="strip warn" data-banner="offline">
        <Icon name="warn" size={18} />
        <p>
          No connection. {seconds > 0 ? `The next attempt is in ${seconds} s` : 'Trying again'}; what you send is kept.
        </p>
      </div>
    );
  }
  if (health === 'log-away') {
    return (
      <div className="strip warn" data-banner="log-away">
        <Icon name="warn" size={18} />
        <p>The server cannot reach its log just now. Nothing new comes, and what you send waits.</p>
      </div>
    );
  }
  if (health === 'stopped' && error) {
    return (
      <div className="strip bad" data-banner="stopped">
        <Icon name="warn" size={18} />
        <p>The server ended the connection ({error.code}).</p>
        <button type="button" className="plain" onClick={reconnect}>
          Reconnect
        </button>
      </div>
    );
  }
  return null;
}
