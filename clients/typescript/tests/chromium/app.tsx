/** A small room in React, for the tests in Chromium: `#gateway=…&token=…&session=…`. */
import { StrictMode, useState, version } from 'react';
import { createRoot } from 'react-dom/client';
import { AntiphonClient } from '../../src/index.js';
import { AntiphonProvider, useSession } from '../../src/react/index.js';

const link = new URLSearchParams(location.hash.slice(1));
const client = new AntiphonClient({ url: link.get('gateway') ?? '', token: link.get('token') ?? '' });

/** What the tests look at. */
const counts = { renders: 0, deltas: 0 };
Object.assign(window, { counts, client, reactVersion: version });

function Room({ name }: { name: string }) {
  const session = useSession(name, {
    tools: [{ name: 'pick_file', execute: async () => ({ file: `${document.title}.pdf` }) }],
  });
  const [draft, setDraft] = useState('');
  counts.renders += 1;
  const send = async (mode?: 'interrupt') => {
    setDraft('');
    await session.send(draft, { mode });
  };
  return (
    <main data-status={session.status} data-phase={session.connection.phase} data-live={session.isLive}>
      <ol id="messages">
        {session.messages.map((message) => (
          <li key={message.id} className={message.role} data-reason={message.reason}>
            {message.text}
          </li>
        ))}
      </ol>
      <ol id="queue">
        {[...session.queue, ...session.sending].map(({ inputId, content }) => (
          <li key={inputId}>{content}</li>
        ))}
      </ol>
      <p id="people">{session.people.map(({ id, state }) => `${id} ${state}`).join(', ')}</p>
      {session.approvals.map(({ approvalId, message, options }) => (
        <fieldset key={approvalId}>
          <legend>{message}</legend>
          {options.map((option) => (
            <button key={option} type="button" onClick={() => session.respond(approvalId, option)}>
              {option}
            </button>
          ))}
        </fieldset>
      ))}
      <input aria-label="draft" value={draft} onChange={(event) => setDraft(event.target.value)} />
      <button type="button" onClick={() => send()}>
        send
      </button>
      <button type="button" onClick={() => send('interrupt')}>
        interrupt
      </button>
      <button type="button" onClick={() => session.stop()}>
        stop
      </button>
    </main>
  );
}

/** A place that may be left without leaving the page. */
function Page() {
  const [isShown, show] = useState(true);
  return (
    <>
      <button type="button" onClick={() => show(!isShown)}>
        {isShown ? 'leave' : 'come back'}
      </button>
      {isShown && <Room name={link.get('session') ?? ''} />}
    </>
  );
}

createRoot(document.body.appendChild(document.createElement('div'))).render(
  <StrictMode>
    <AntiphonProvider client={client}>
      <Page />
    </AntiphonProvider>
  </StrictMode>,
);
