/** Everything that the parts of a room need to know of it, gathered once. */
import type { AntiphonClient } from '@antiphon/client';
import { type UsedSession, useSession } from '@antiphon/client/react';
import { useEffect, useMemo } from 'react';
import { type Health, healthOf } from '../chrome/connection.js';
import { Outbox } from '../composer/outbox.js';
import { type Claims, may } from '../link/claims.js';
import { NO_TOOLS, TOOLS } from '../waits/asks.js';
import { type Refusals, useRefusals } from './refusals.js';

/** What this user may do in the session, as far as their token says. */
export interface Rights {
  readonly send: boolean;
  readonly steer: boolean;
  readonly cancel: boolean;
  readonly approve: boolean;
  readonly isAdmin: boolean;
  readonly roles: readonly string[];
}

export interface Now extends Refusals {
  readonly used: UsedSession;
  readonly client: AntiphonClient;
  readonly name: string;
  readonly user: string | null;
  readonly rights: Rights;
  readonly health: Health;
  /** What this user has on its way here; null until it is known who they are. */
  readonly outbox: Outbox | null;
  /** Stops all that runs; null if nothing does, or this user may not. */
  readonly stop: (() => void) | null;
}

export interface RoomPlace {
  readonly client: AntiphonClient;
  readonly session: string;
  readonly claims: Claims | null;
  readonly hasTools: boolean;
}

export function useNow({ client, session: name, claims, hasTools }: RoomPlace): Now {
  const used = useSession(name, { tools: hasTools && may(claims, 'tools', name) ? TOOLS : NO_TOOLS });
  const user = client.welcome?.user.id ?? claims?.user ?? null;
  const rights = useMemo(() => rightsIn(claims, name), [claims, name]);
  const outbox = useOutbox(name, user, used.session);
  const refusals = useRefusals();
  const { runs } = used.state;
  const stop = () => {
    for (const { runId, cancel } of runs) {
      if (cancel?.mode !== 'immediate') refusals.run(used.session().cancelRun(runId));
    }
  };
  return {
    ...refusals,
    used,
    client,
    name,
    user,
    rights,
    outbox,
    health: healthOf(used.connection, used.isLive, used.error !== null),
    stop: rights.cancel && runs.length > 0 ? stop : null,
  };
}

function rightsIn(claims: Claims | null, session: string): Rights {
  return {
    send: may(claims, 'send', session),
    steer: may(claims, 'steer', session),
    cancel: may(claims, 'cancel', session),
    approve: may(claims, 'approve', session),
    isAdmin: claims !== null && may(claims, 'admin', session),
    roles: claims?.roles ?? [],
  };
}

function useOutbox(name: string, user: string | null, session: UsedSession['session']): Outbox | null {
  const outbox = useMemo(() => (user === null ? null : new Outbox(name, user)), [name, user]);
  useEffect(() => {
    outbox?.use(session());
    return () => outbox?.use(null);
  }, [outbox, session]);
  return outbox;
}
