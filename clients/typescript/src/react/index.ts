/** Sessions in React 18 and 19. */
import {
  createContext,
  createElement,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
} from 'react';
import type { AntiphonClient } from '../client.js';
import type { AntiphonError } from '../errors.js';
import type { Sending } from '../following.js';
import type { Approval, Handoff, Input, Message, Scheduled, State, Status } from '../model.js';
import type { ConnectionStatus } from '../options.js';
import type { Participant } from '../protocol.js';
import type { Session } from '../session.js';
import type { Tool } from '../tools.js';
import type { SessionNotes } from './notes.js';
import { type UsedSessions, type UseSessionsOptions, useSessionList } from './sessions.js';
import { NOTHING_YET, storeOf } from './store.js';

export { type CallNote, NO_NOTES, type RunNote, type SessionNotes } from './notes.js';
export type { UsedSessions, UseSessionsOptions } from './sessions.js';

const Context = createContext<AntiphonClient | null>(null);

/** Gives the components below a client. Whoever made the client closes it. */
export function AntiphonProvider({ client, children }: { client: AntiphonClient; children?: ReactNode }) {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the `AntiphonProvider` above. */
export function useAntiphon(): AntiphonClient {
  const client = useContext(Context);
  if (!client) throw new Error('there is no <AntiphonProvider> above');
  return client;
}

export interface UseSessionOptions {
  /** Executed in this page while a component that names them is mounted. Their code may change with every render. */
  readonly tools?: readonly Tool[];
  /** False: showing the session does not count as presence. Only the first component that shows it is asked. */
  readonly watching?: boolean;
}

/** What a person sees of a session, and what they can do there. The functions are the same in every render. */
export interface UsedSession {
  /** The transcript, without what waits. */
  readonly messages: readonly Message[];
  readonly status: Status;
  /** Inputs that wait their turn, next first, apart from the transcript. */
  readonly queue: readonly Input[];
  /** Inputs that are sent later, next first. */
  readonly scheduled: readonly Scheduled[];
  /** Inputs of this page that are not known to be stored yet. */
  readonly sending: readonly Sending[];
  readonly approvals: readonly Approval[];
  readonly handoffs: readonly Handoff[];
  /** Who is there. */
  readonly people: readonly Participant[];
  /** The rest: lanes, runs, calls, config. */
  readonly state: State;
  /** How runs and calls ended, as far as it was seen here. */
  readonly notes: SessionNotes;
  readonly connection: ConnectionStatus;
  /** All that the log holds is shown: what comes now is live. */
  readonly isLive: boolean;
  readonly hasOlder: boolean;
  /** Why the session cannot be read. */
  readonly error: AntiphonError | null;

  readonly send: Session['send'];
  /** Stops the run of a lane (`main`), if there is one. */
  readonly stop: (options?: { lane?: string; mode?: 'immediate' | 'after_step' }) => Promise<void>;
  readonly cancelInput: Session['cancelInput'];
  readonly respond: Session['respond'];
  readonly takeOver: Session['claimHandoff'];
  readonly giveBack: Session['returnHandoff'];
  readonly setPresence: Session['setPresence'];
  readonly loadOlder: Session['loadOlder'];
  /** For all else; closed some time after the last component that shows it is gone. */
  readonly session: () => Session;
}

/**
 * A session, read for as long as a component shows it. Unmounting detaches and cancels nothing: the run goes on. Deltas
 * are drawn once per animation frame.
 */
export function useSession(name: string, { tools, watching = true }: UseSessionOptions = {}): UsedSession {
  const client = useAntiphon();
  const store = useMemo(() => storeOf(client, name, watching), [client, name, watching]);
  const { view, notes, connection } = useSyncExternalStore(store.subscribe, store.snapshot, () => NOTHING_YET);
  useTools(store, tools);
  const actions = useMemo(() => actionsOf(() => store.session), [store]);
  return useMemo(() => {
    const { messages, sending, hasOlder, error, state, isCaughtUp: isLive, presence } = view;
    const { status, inputs: queue, scheduled, approvals, handoffs } = state;
    const people = presence?.participants ?? [];
    const shown = { messages, status, queue, scheduled, sending, approvals, handoffs, people, state, isLive };
    return { ...shown, hasOlder, error, notes, connection, ...actions };
  }, [view, notes, connection, actions]);
}

/** The tools are declared while the component is mounted; their latest code is what is executed. */
function useTools(store: ReturnType<typeof storeOf>, tools: readonly Tool[] | undefined): void {
  const latest = useRef(tools);
  useEffect(() => {
    latest.current = tools;
  });
  // what is declared, without the code
  const declaration = JSON.stringify(tools ?? []);
  useEffect(() => {
    const named: Tool[] = JSON.parse(declaration);
    if (!named.length) return;
    const { session } = store;
    return session.addTools(
      named.map((tool) => ({
        ...tool,
        execute: (args, execution) => latest.current?.find(({ name }) => name === tool.name)?.execute(args, execution),
      })),
    );
  }, [store, declaration]);
}

function actionsOf(session: () => Session) {
  return {
    session,
    send: (...args: Parameters<Session['send']>) => session().send(...args),
    cancelInput: (...args: Parameters<Session['cancelInput']>) => session().cancelInput(...args),
    respond: (...args: Parameters<Session['respond']>) => session().respond(...args),
    takeOver: (...args: Parameters<Session['claimHandoff']>) => session().claimHandoff(...args),
    giveBack: (...args: Parameters<Session['returnHandoff']>) => session().returnHandoff(...args),
    setPresence: (...args: Parameters<Session['setPresence']>) => session().setPresence(...args),
    loadOlder: (...args: Parameters<Session['loadOlder']>) => session().loadOlder(...args),
    stop: async ({ lane = 'main', mode }: { lane?: string; mode?: 'immediate' | 'after_step' } = {}) => {
      const runId = session().state.lanes[lane]?.run;
      if (runId != null) await session().cancelRun(runId, mode && { mode });
    },
  };
}

/** The sessions that the user created or wrote to, asked for again now and then, and whenever `refresh` is called. */
export function useSessions(options?: UseSessionsOptions): UsedSessions {
  return useSessionList(useAntiphon(), options);
}

/** How the client's connection is doing. */
export function useConnection(): ConnectionStatus {
  const client = useAntiphon();
  return useSyncExternalStore(
    useMemo(() => client.subscribe.bind(client), [client]),
    () => client.status,
    () => NOTHING_YET.connection,
  );
}
