/** The messages of a session. Only the rows near the window exist; those that are settled are never drawn again. */
import type { Call, Message } from '@antiphon/client';
import type { SessionNotes } from '@antiphon/client/react';
import { type ReactNode, useEffect, useMemo, useRef, useState } from 'react';
import { Virtualizer } from 'virtua';
import { announce } from '../base/announce.js';
import { Icon } from '../base/icons.js';
import { speaker } from '../base/words.js';
import { lastOfRuns } from './marks.js';
import { MessageRow } from './message.js';
import { type Row, Rows } from './rows.js';
import { useScrolling } from './scrolling.js';

/** How far beyond the window rows exist. */
const MARGIN_PX = 1200;
/** What stands above the rows has always the same height, so that nothing moves when it goes. */
const HEAD_PX = 56;
/** Characters of a finished message that a screen reader says by itself. */
const SAID_CHARS = 500;

interface TranscriptProps {
  readonly messages: readonly Message[];
  readonly calls: readonly Call[];
  readonly notes: SessionNotes;
  readonly user: string | null;
  readonly hasOlder: boolean;
  /** False while what was before is still being read: nothing of it is announced. */
  readonly isLive: boolean;
  readonly loadOlder: () => Promise<unknown>;
  /** Whenever this changes, the reader is taken to the end: they have sent something. */
  readonly sent: number;
  /** What stands where there are no messages. */
  readonly empty: ReactNode;
  /** What stands below the last message. */
  readonly tail?: ReactNode;
}

export function Transcript(props: TranscriptProps) {
  const { messages, calls, notes, user, hasOlder, isLive, loadOlder, sent, empty, tail } = props;
  const maker = useRef<Rows>(null);
  maker.current ??= new Rows();
  const made = maker.current;
  const rows = useMemo(() => made.of(messages), [made, messages]);
  const open = useMemo(() => new Map(calls.map((call) => [call.toolCallId, call])), [calls]);
  const ends = useMemo(() => lastOfRuns(messages, notes), [messages, notes]);
  const [isLoading, setLoading] = useState(false);
  const [loaded, setLoaded] = useState(0);
  const older = () => {
    if (!hasOlder || isLoading || !isLive) return;
    setLoading(true);
    loadOlder().then(
      () => {
        setLoading(false);
        setLoaded(loaded + 1);
      },
      () => setLoading(false), // the next scroll asks again
    );
  };
  const isEmpty = rows.length === 0;
  const { scroller, content, isAtEnd, toEnd, look } = useScrolling(older);
  // nobody scrolls what is empty, or shorter than the window
  // biome-ignore lint/correctness/useExhaustiveDependencies: whenever one of these changes
  useEffect(look, [hasOlder, isLive, loaded]);
  const isShifted = useShift(rows);
  // biome-ignore lint/correctness/useExhaustiveDependencies: that it changes is what is asked for
  useEffect(toEnd, [sent, toEnd]);
  const unseen = useUnseen(messages, isAtEnd);
  useFinished(messages, isLive, user);

  return (
    <div className="transcript">
      {/* it scrolls: reachable by keyboard */}
      <div ref={scroller} className="scroller" role="log" aria-label="Transcript" aria-live="off" tabIndex={0}>
        <div ref={content} className="column">
          {isEmpty && isLive && !hasOlder && <div className="empty">{empty}</div>}
          <div className="beginning" style={{ height: HEAD_PX }}>
            {(hasOlder || isLoading) && (
              <button type="button" className="quiet" onClick={older} disabled={isLoading}>
                {isLoading ? 'Loading earlier messages' : 'Load earlier messages'}
              </button>
            )}
          </div>
          <Virtualizer scrollRef={scroller} startMargin={HEAD_PX} shift={isShifted} bufferSize={MARGIN_PX} data={rows}>
            {(row: Row) => (
              <MessageRow
                key={row.key}
                row={row}
                call={open.get(row.key) ?? null}
                callNote={notes.calls.get(row.key) ?? null}
                runNote={ends.get(row.key) ?? null}
                isMine={user !== null && row.message.by?.kind === 'user' && row.message.by.id === user}
              />
            )}
          </Virtualizer>
          {tail}
        </div>
      </div>
      {!isAtEnd && (
        <button type="button" className="latest" onClick={toEnd}>
          <Icon name="down" size={16} />
          {unseen ? 'New messages' : 'To the end'}
        </button>
      )}
    </div>
  );
}

/** Whether rows have come before those that were there: the place of what is shown is then kept from the end. */
function useShift(rows: readonly Row[]): boolean {
  const before = useRef(rows);
  const [first, now] = [before.current[0]?.key, rows[0]?.key];
  const isShifted = first !== now && first !== undefined && rows.some(({ key }) => key === first);
  useEffect(() => {
    before.current = rows;
  });
  return isShifted;
}

/** Whether something has come while the reader was elsewhere. */
function useUnseen(messages: readonly Message[], isAtEnd: boolean): boolean {
  const last = messages.at(-1);
  const seen = useRef({ id: last?.id, length: last?.text.length });
  if (isAtEnd) seen.current = { id: last?.id, length: last?.text.length };
  return seen.current.id !== last?.id || seen.current.length !== last?.text.length;
}

/** Has finished messages of others announced, each once. */
function useFinished(messages: readonly Message[], isLive: boolean, user: string | null): void {
  const seen = useRef<{ isLive: boolean; id: string | undefined }>({ isLive: false, id: undefined });
  const done = messages.findLast(({ role, status }) => status === 'done' && (role === 'assistant' || role === 'user'));
  useEffect(() => {
    const { isLive: was, id } = seen.current;
    seen.current = { isLive, id: done?.id };
    if (!was || !done || done.id === id || done.by?.id === user) return;
    const text = done.text.length > SAID_CHARS ? `${done.text.slice(0, SAID_CHARS)} …` : done.text;
    announce(`${speaker(done.by, done.lane, done.role)}: ${text}`);
  }, [done, isLive, user]);
}
