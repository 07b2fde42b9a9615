/** What stands below the transcript: what waits for people, what waits its turn, and the field one writes in. */
import { useStore } from '../base/store.js';
import { isStopping } from '../chrome/status.js';
import { Composer } from '../composer/composer.js';
import { Later, Queue } from '../composer/queue.js';
import { Typing } from '../people/people.js';
import { asks } from '../waits/asks.js';
import type { Now } from './now.js';
import { Waits } from './waits.js';

interface DockProps {
  readonly now: Now;
  /** Is told while this user writes. */
  readonly wrote: (isWriting: boolean) => void;
}

export function Dock({ now, wrote }: DockProps) {
  const { used, user, rights, outbox, errors, notice, dismiss, run } = now;
  return (
    <div className="dock">
      <div className="column">
        <Waits used={used} rights={rights} asks={useStore(asks)} user={user} errors={errors} run={run} />
        <Typing people={used.people} user={user} />
        <Later
          scheduled={used.scheduled}
          user={user}
          isOnline={used.connection.phase === 'open'}
          isAdmin={rights.isAdmin}
          maySend={rights.send}
          takeBack={(inputId) => run(used.cancelInput(inputId), inputId)}
          errors={errors}
        />
        {outbox && (
          <Queue
            queue={used.queue}
            outbox={outbox}
            user={user}
            isOnline={used.connection.phase === 'open'}
            isAdmin={rights.isAdmin}
            takeBack={(inputId) => run(used.cancelInput(inputId), inputId)}
            errors={errors}
          />
        )}
        {notice && (
          <p className="notice" role="alert">
            <span>{notice}</span>
            <button type="button" className="quiet" onClick={dismiss}>
              Dismiss
            </button>
          </p>
        )}
        <Writing now={now} wrote={wrote} />
      </div>
    </div>
  );
}

function Writing({ now: { used, client, name, user, rights, outbox, stop }, wrote }: DockProps) {
  const { state } = used;
  const main = state.lanes['main'];
  const isHuman = main?.owner?.kind === 'user';
  if (used.error) return <WhyNot why="Nothing can be written here now." stop={null} />;
  if (!outbox) return <WhyNot why="Connecting" stop={stop} />;
  if (!rights.send) {
    return <WhyNot why="You can read this session. Your token does not give the right to write in it." stop={stop} />;
  }
  if (state.status === 'closed') return <WhyNot why="This session is closed. It takes no messages." stop={stop} />;
  return (
    <Composer
      key={name}
      session={name}
      keeper={used.session}
      outbox={outbox}
      welcome={client.welcome}
      isBusy={main?.run != null && !isHuman}
      canInject={main?.can.includes('inject') ?? false}
      maySteer={rights.steer}
      onBusy={state.config.onBusy}
      isOwn={isHuman && main.owner?.id === user}
      stop={stop}
      isStopping={isStopping(state)}
      wrote={wrote}
    />
  );
}

/** Where nothing can be written it says why; what runs can still be stopped. */
function WhyNot({ why, stop }: { why: string; stop: (() => void) | null }) {
  return (
    <div className="read-only">
      <p>{why}</p>
      {stop && (
        <button type="button" className="stop" onClick={stop}>
          Stop
        </button>
      )}
    </div>
  );
}
