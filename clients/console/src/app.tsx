/** The page: the sessions at the side, one of them in the middle, and what is opened beside it. */
import type { AntiphonClient } from '@antiphon/client';
import { AntiphonProvider, useConnection, useSessions } from '@antiphon/client/react';
import { useCallback, useState } from 'react';
import { advice } from './advice.js';
import { Announcer } from './base/announce.js';
import { useStore } from './base/store.js';
import { Dialog } from './chrome/dialog.js';
import { SessionList } from './chrome/sessions.js';
import { ShortcutsDialog, useShortcuts } from './chrome/shortcuts.js';
import { Side } from './chrome/side.js';
import { Join } from './link/join.js';
import { goTo, leave, type Place, place, renew } from './link/place.js';
import { Inspector, Opened } from './panels/lazy.js';
import { Room } from './room/room.js';

/** A client that stopped for one of these needs another token. */
const NEEDS_TOKEN = ['unauthorized', 'token_expired', 'not_allowed', 'bad_name'];

export function App() {
  const here = useStore(place);
  return (
    <>
      {here.client && here.session ? (
        <AntiphonProvider client={here.client}>
          <Joined here={here} client={here.client} />
        </AntiphonProvider>
      ) : (
        <Join session={here.session} why="" />
      )}
      <Announcer />
    </>
  );
}

type Shown = 'switcher' | 'help' | 'sessions' | null;

function Joined({ here, client }: { here: Place; client: AntiphonClient }) {
  const { session, claims, hasTools } = here;
  const { error } = useConnection();
  const sessions = useSessions();
  const [opened, setOpened] = useState<Shown>(null);
  const [isReplaying, setReplaying] = useState(false);
  const [isInspecting, setInspecting] = useState(false);
  const toggleReplay = () => setReplaying(!isReplaying);
  const toggleInspector = () => setInspecting(!isInspecting);
  const close = useCallback(() => setOpened(null), []);
  const go = (to: string) => {
    close();
    setReplaying(false);
    if (to !== session) goTo(to);
  };
  useShortcuts({
    switcher: () => setOpened('switcher'),
    help: () => setOpened('help'),
    replay: toggleReplay,
    inspector: toggleInspector,
    close: () => {
      if (opened) close();
      else if (isReplaying) setReplaying(false);
      else setInspecting(false);
    },
    write: () => document.querySelector<HTMLTextAreaElement>('.composer textarea')?.focus(),
  });
  if (error && NEEDS_TOKEN.includes(error.code)) {
    return <Join key={session} session={session} why={advice(error.code, error.message)} />;
  }
  return (
    <div className="app">
      <Side
        sessions={sessions}
        current={session}
        user={client.welcome?.user.name || (claims?.user ?? '')}
        isOpen={opened === 'sessions'}
        go={go}
        leave={leave}
        close={close}
      />
      <Room
        client={client}
        session={session}
        claims={claims}
        hasTools={hasTools}
        openSessions={() => setOpened('sessions')}
        token={here.token}
        isReplaying={isReplaying}
        isInspecting={isInspecting}
        toggleReplay={toggleReplay}
        toggleInspector={toggleInspector}
        openHelp={() => setOpened('help')}
        reconnect={renew}
        active={sessions.refresh}
      />
      {isInspecting && (
        <Opened className="panel">
          <Inspector key={session} session={session} token={here.token} close={toggleInspector} />
        </Opened>
      )}
      {opened === 'help' && <ShortcutsDialog close={close} />}
      {opened === 'switcher' && (
        <Dialog title="Go to a session" close={close} className="switcher">
          <SessionList used={sessions} current={session} go={go} isFocused />
        </Dialog>
      )}
    </div>
  );
}
