/** The list of a user's sessions, kept up to date. */
import { useCallback, useEffect, useState } from 'react';
import type { AntiphonClient } from '../client.js';
import { AntiphonError } from '../errors.js';
import type { SessionInfo } from '../options.js';

export interface UseSessionsOptions {
  /** How many are shown, the newest activity first; `loadMore` adds as many again. */
  readonly pageSize?: number;
  /** How often the gateway is asked again while the page is visible. */
  readonly refreshMs?: number;
}

/** The sessions that the user created or wrote to. The functions are the same in every render. */
export interface UsedSessions {
  /** The newest activity first; null before the first answer. */
  readonly sessions: readonly SessionInfo[] | null;
  readonly hasMore: boolean;
  /** Why they could not be listed the last time. */
  readonly error: AntiphonError | null;
  readonly refresh: () => void;
  readonly loadMore: () => void;
}

type Listed = Pick<UsedSessions, 'sessions' | 'hasMore' | 'error'>;

const NOTHING_YET: Listed = { sessions: null, hasMore: false, error: null };

/** Asks for the first `count` sessions, and whether there are more. */
async function list(client: AntiphonClient, count: number, pageSize: number, signal: AbortSignal): Promise<Listed> {
  const sessions: SessionInfo[] = [];
  for await (const session of client.sessions({ pageSize: Math.min(pageSize + 1, 200), signal })) {
    if (sessions.length === count) return { sessions, hasMore: true, error: null };
    sessions.push(session);
  }
  return { sessions, hasMore: false, error: null };
}

export function useSessionList(
  client: AntiphonClient,
  { pageSize = 50, refreshMs = 30_000 }: UseSessionsOptions = {},
): UsedSessions {
  const [shown, setShown] = useState({ client, ...NOTHING_YET });
  const [asked, setAsked] = useState({ pages: 1, times: 0 });
  const refresh = useCallback(() => setAsked((last) => ({ ...last, times: last.times + 1 })), []);
  const loadMore = useCallback(() => setAsked((last) => ({ ...last, pages: last.pages + 1 })), []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: `times` is there to be asked again
  useEffect(() => {
    const ending = new AbortController();
    list(client, asked.pages * pageSize, pageSize, ending.signal).then(
      (listed) => setShown({ client, ...listed }),
      (error: unknown) => {
        if (!(error instanceof AntiphonError)) return; // it was aborted
        setShown((last) => ({ ...(last.client === client ? last : { client, ...NOTHING_YET }), error }));
      },
    );
    return () => ending.abort();
  }, [client, asked.pages, asked.times, pageSize]);
  useEffect(() => {
    const look = () => globalThis.document?.visibilityState !== 'hidden' && refresh();
    const timer = setInterval(look, refreshMs);
    globalThis.document?.addEventListener('visibilitychange', look);
    return () => {
      clearInterval(timer);
      globalThis.document?.removeEventListener('visibilitychange', look);
    };
  }, [refresh, refreshMs]);
  const { sessions, hasMore, error } = shown.client === client ? shown : NOTHING_YET;
  return { sessions, hasMore, error, refresh, loadMore };
}
