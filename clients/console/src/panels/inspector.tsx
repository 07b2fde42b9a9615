/** The raw entries of a session's log: each with its place, its writer and its JSON, and what comes. */
import type { Entry } from '@antiphon/client';
import { useEffect, useId, useRef, useState } from 'react';
import { VList, type VListHandle } from 'virtua';
import { advice } from '../advice.js';
import { Icon } from '../base/icons.js';
import { nameOf, plural, preciseTime } from '../base/words.js';
import { kindsOf } from './player.js';
import { RawEntry } from './raw-entry.js';
import { Sieve, type Wanted } from './sieve.js';
import { useLog } from './use-log.js';

const MARGIN_PX = 400;
/** So near to the end counts as following. */
const END_PX = 40;

interface InspectorProps {
  readonly session: string;
  readonly token: string;
  readonly close: () => void;
}

export default function Inspector({ session, token, close }: InspectorProps) {
  const { entries, dropped, isCaughtUp, error } = useLog(session, token);
  const [wanted, setWanted] = useState<Wanted>({ text: '', hasDeltas: true });
  const sieve = useRef<Sieve>(null);
  sieve.current ??= new Sieve();
  const shown = sieve.current.sift(entries, dropped, wanted);
  const { list, isFollowing, setFollowing, scrolled } = useFollowing(shown.length);
  const { isOpen, toggle } = useOpened();
  const count = entries.length;
  return (
    <aside className="panel inspector" aria-label="Inspector">
      <header className="panel-head">
        <h2>Entries</h2>
        <span className="hint" data-entries={count}>
          {shown.length === count ? plural(count, 'entry', 'entries') : `${shown.length} of ${count}`}
        </span>
        <button type="button" className="icon-button" aria-label="Close the inspector" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <Choices wanted={wanted} change={setWanted} isFollowing={isFollowing} follow={setFollowing} />
      {error && <p className="problem pad">The log cannot be read: {advice(error.code, error.message)}</p>}
      {!isCaughtUp && !error && <p className="hint pad">Reading the log</p>}
      {dropped > 0 && (
        <p className="hint pad">{plural(dropped, 'earlier entry is', 'earlier entries are')} not kept on this page.</p>
      )}
      <VList ref={list} className="entries" bufferSize={MARGIN_PX} data={shown} onScroll={scrolled} tabIndex={0}>
        {(entry: Entry) => (
          <EntryRow
            key={entry.seq}
            entry={entry}
            session={session}
            token={token}
            isOpen={isOpen(entry.seq)}
            toggle={() => {
              setFollowing(false);
              toggle(entry.seq);
            }}
          />
        )}
      </VList>
    </aside>
  );
}

/** A list that stays at its end while it grows, until somebody scrolls up or says so. */
function useFollowing(length: number) {
  const [isFollowing, setFollowing] = useState(true);
  const list = useRef<VListHandle>(null);
  useEffect(() => {
    if (isFollowing && length) list.current?.scrollToIndex(length - 1, { align: 'end' });
  }, [isFollowing, length]);
  const scrolled = (offset: number) => {
    const handle = list.current;
    if (handle) setFollowing(handle.scrollSize - offset - handle.viewportSize < END_PX);
  };
  return { list, isFollowing, setFollowing, scrolled };
}

function useOpened() {
  const [opened, setOpened] = useState<ReadonlySet<number>>(new Set());
  const toggle = (seq: number) => {
    const next = new Set(opened);
    if (!next.delete(seq)) next.add(seq);
    setOpened(next);
  };
  return { isOpen: (seq: number) => opened.has(seq), toggle };
}

interface ChoicesProps {
  readonly wanted: Wanted;
  readonly change: (wanted: Wanted) => void;
  readonly isFollowing: boolean;
  readonly follow: (isFollowing: boolean) => void;
}

function Choices({ wanted, change, isFollowing, follow }: ChoicesProps) {
  const id = useId();
  return (
    <div className="panel-tools">
      <label htmlFor={id} className="unseen">
        Filter
      </label>
      <input
        id={id}
        value={wanted.text}
        placeholder="Filter: a kind, a lane, a name, a word"
        spellCheck={false}
        onChange={(event) => change({ ...wanted, text: event.target.value })}
      />
      <label className="check">
        <input
          type="checkbox"
          checked={wanted.hasDeltas}
          onChange={(event) => change({ ...wanted, hasDeltas: event.target.checked })}
        />
        Tokens
      </label>
      <label className="check">
        <input type="checkbox" checked={isFollowing} onChange={(event) => follow(event.target.checked)} />
        Follow
      </label>
    </div>
  );
}

interface EntryRowProps {
  readonly entry: Entry;
  readonly session: string;
  readonly token: string;
  readonly isOpen: boolean;
  readonly toggle: () => void;
}

function EntryRow({ entry, session, token, isOpen, toggle }: EntryRowProps) {
  const { seq, ts, lane, by, off } = entry;
  return (
    <div className={off === null ? 'entry' : 'entry delta'} data-seq={seq}>
      <button type="button" className="entry-line" aria-expanded={isOpen} onClick={toggle}>
        <span className="entry-seq">{seq}</span>
        <span className="entry-kind">
          {off === null ? kindsOf(entry) : JSON.stringify(entry.events[0]?.['delta'] ?? '')}
        </span>
        <span className="entry-about">
          {preciseTime(ts)}
          {lane !== null && ` · ${lane}`}
          {by && ` · ${nameOf(by)}`}
        </span>
      </button>
      {isOpen && <RawEntry entry={entry} session={session} token={token} />}
    </div>
  );
}
