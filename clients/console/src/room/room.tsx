/** A session on this page: its transcript, what waits for people, the composer; or its replay. */
import type { Attachment } from '@antiphon/client';
import { useCallback, useEffect } from 'react';
import { Store, useStore } from '../base/store.js';
import { ConnectionBanner } from '../chrome/connection.js';
import { Header, type Tools } from '../chrome/header.js';
import { statusLine } from '../chrome/status.js';
import { Fetching } from '../files/files.js';
import { askForToken } from '../link/place.js';
import { Opened, Replay } from '../panels/lazy.js';
import { useReporting } from '../people/reporter.js';
import { Transcript } from '../transcript/transcript.js';
import { Dock } from './dock.js';
import { type Now, type RoomPlace, useNow } from './now.js';

/** Messages that scrolling up brings at once. */
const OLDER_MESSAGES = 100;
const NOTHING_WRITTEN = new Store(0);

interface RoomProps extends RoomPlace, Tools {
  readonly token: string;
  /** Makes a client anew, after a gateway has said not to come back. */
  readonly reconnect: () => void;
  /** Something was written here: lists of sessions are out of date. */
  readonly active: () => void;
}

export function Room(props: RoomProps) {
  const { session: name, token, isReplaying, toggleReplay, reconnect, active } = props;
  const now = useNow(props);
  const { used, user, health } = now;
  const { status, title } = used.state;
  const wrote = useReporting(used.isLive, used.setPresence);
  const { session } = used;
  const fetchFile = useCallback((attachment: Attachment) => session().download(attachment), [session]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: whatever of these changes, the list is out of date
  useEffect(active, [status, title, active]);
  useEffect(() => {
    document.title = `${title ?? name} – Antiphon`;
  }, [title, name]);

  return (
    <main className="room" data-session={name}>
      <Header {...props} {...about(now)} />
      <ConnectionBanner health={health} status={used.connection} error={used.connection.error} reconnect={reconnect} />
      {used.error && !used.connection.error && <Unreadable code={used.error.code} />}
      <Fetching value={fetchFile}>
        {isReplaying ? (
          <Opened className="replay">
            <Replay key={name} session={name} token={token} user={user} close={toggleReplay} />
          </Opened>
        ) : (
          <>
            <Live now={now} />
            <Dock now={now} wrote={wrote} />
          </>
        )}
      </Fetching>
    </main>
  );
}

/** What the bar above says. */
function about({ used, name, user, rights, health, run }: Now) {
  const { state, people, error } = used;
  const isHuman = state.lanes['main']?.owner?.kind === 'user';
  const mayTake = rights.isAdmin && !isHuman && !state.handoffs.length;
  return {
    title: state.title ?? name,
    status: error ? '' : statusLine(state, user, people),
    statusKind: state.status,
    health,
    people,
    user,
    takeOver: mayTake ? () => run(used.takeOver({ lane: 'main' })) : null,
  };
}

function Live({ now: { used, user, name, rights, outbox } }: { now: Now }) {
  const { messages, state, notes, hasOlder, isLive } = used;
  const sent = useStore(outbox?.written ?? NOTHING_WRITTEN);
  const isStreaming = messages.some(({ status }) => status === 'streaming');
  const isWorking = state.status === 'running' && state.runs.length > 0 && !isStreaming;
  return (
    <Transcript
      key={name}
      messages={messages}
      calls={state.calls}
      notes={notes}
      user={user}
      hasOlder={hasOlder}
      isLive={isLive}
      loadOlder={() => used.loadOlder({ limit: OLDER_MESSAGES })}
      sent={sent}
      empty={<Empty maySend={rights.send} isDeleted={notes.deletedAt !== null} />}
      tail={isWorking && <Working />}
    />
  );
}

function Empty({ maySend, isDeleted }: { maySend: boolean; isDeleted: boolean }) {
  return (
    <>
      <h2>{isDeleted ? 'This session was deleted' : 'Nothing has been said yet'}</h2>
      {isDeleted && <p>What was here is gone, for everybody. The session begins anew.</p>}
      <p>{maySend ? 'What you write here, everybody in the session sees.' : 'What is said here appears at once.'}</p>
    </>
  );
}

function Working() {
  return (
    <p className="working" data-working>
      <span className="dots" aria-hidden="true">
        <i />
        <i />
        <i />
      </span>
      <span className="unseen">The agent is working</span>
    </p>
  );
}

function Unreadable({ code }: { code: string }) {
  const why =
    code === 'not_allowed' ? 'Your token does not allow reading this session.' : `It cannot be read: ${code}.`;
  return (
    <div className="strip bad" data-banner="unreadable">
      <p>{why}</p>
      <button type="button" className="plain" onClick={askForToken}>
        Use another token
      </button>
    </div>
  );
}
