/** The token log of a session, read while a component looks at it: one for all of them. */
import { useEffect, useMemo } from 'react';
import { useStore } from '../base/store.js';
import { gateway } from '../link/place.js';
import { type Logged, TokenLog } from './token-log.js';

/** A panel that closes while another one opens keeps what was read. */
const LINGER_MS = 500;

const open = new Map<string, { log: TokenLog; users: number; timer?: ReturnType<typeof setTimeout> }>();

export function useLog(session: string, token: string): Logged {
  const key = `${session} ${token}`;
  const log = useMemo(() => {
    const known = open.get(key) ?? { log: new TokenLog(gateway(), token, session), users: 0 };
    open.set(key, known);
    return known.log;
  }, [key, session, token]);
  useEffect(() => {
    const used = open.get(key);
    if (!used) return;
    used.users += 1;
    clearTimeout(used.timer);
    return () => {
      used.users -= 1;
      used.timer = setTimeout(() => {
        if (used.users) return;
        open.delete(key);
        used.log.close();
      }, LINGER_MS);
    };
  }, [key]);
  return useStore(log.shown);
}
