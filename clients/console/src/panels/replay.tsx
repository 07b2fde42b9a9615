/** A session as it was, token by token: a time line over its log, to play, to step, and to drag. */
import type { Entry } from '@antiphon/client';
import { NO_NOTES } from '@antiphon/client/react';
import { useEffect, useId, useMemo, useRef, useState } from 'react';
import { advice } from '../advice.js';
import { Icon } from '../base/icons.js';
import { plural, preciseTime } from '../base/words.js';
import { statusLine } from '../chrome/status.js';
import { Transcript } from '../transcript/transcript.js';
import { advance, type Frame, kindsOf, LONGEST_PAUSE_MS, Player, type Playing } from './player.js';
import type { Logged } from './token-log.js';
import { useLog } from './use-log.js';

const SPEEDS = [0.25, 0.5, 1, 2, 4, 16, 64] as const;
/** Pieces in which the time line says where tokens have aged out. */
const BANDS = 200;

interface ReplayProps {
  readonly session: string;
  readonly token: string;
  readonly user: string | null;
  readonly close: () => void;
}

export default function Replay({ session, token, user, close }: ReplayProps) {
  const logged = useLog(session, token);
  const playback = usePlayback(logged);
  const { frame, entry } = playback;
  const notesId = useId();
  const status = statusLine(frame.state, user, []);
  return (
    <div className="replay" data-replay data-replay-seq={entry?.seq ?? 0}>
      <Transcript
        messages={frame.messages}
        calls={frame.state.calls}
        notes={NO_NOTES}
        user={user}
        hasOlder={false}
        isLive={false}
        loadOlder={async () => {}}
        sent={0}
        empty={null}
      />
      <section className="scrubber" aria-label="Replay">
        <div className="column">
          <TimeLine
            entries={logged.entries}
            aged={logged.window.aged}
            at={playback.at}
            move={playback.jump}
            describedBy={notesId}
          />
          <Controls playback={playback} count={logged.entries.length} close={close} />
          <div id={notesId} className="scrubber-notes hint">
            <LogNotes logged={logged} />
            {status && <p>Then: {status}.</p>}
          </div>
        </div>
      </section>
    </div>
  );
}

interface Playback {
  /** How many of the entries are shown, and the last of them. */
  readonly at: number;
  readonly entry: Entry | undefined;
  readonly frame: Frame;
  readonly isPlaying: boolean;
  readonly speed: number;
  readonly setSpeed: (speed: number) => void;
  readonly toggle: () => void;
  /** Stops, and shows so many. */
  readonly jump: (at: number) => void;
}

function usePlayback({ window: log, entries, dropped }: Logged): Playback {
  const [place, setPlace] = useState<Playing | null>(null); // null: at the end
  const [isPlaying, setPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const player = useMemo(() => new Player(() => log.begin(), dropped), [log, dropped]);
  const end = entries.length;
  const at = Math.min(place?.at ?? end, end);
  const jump = (next: number) => {
    setPlaying(false);
    setPlace({ at: Math.min(Math.max(next, 0), end), sinceMs: 0 });
  };
  const toggle = () => {
    if (at === end) jump(0);
    setPlaying(!isPlaying);
  };
  usePlaying(isPlaying, entries, speed, setPlace, () => setPlaying(false));
  const frame = player.seek(entries, dropped, dropped + at);
  return { at, entry: entries[at - 1], frame, isPlaying, speed, setSpeed, toggle, jump };
}

interface ControlsProps {
  readonly playback: Playback;
  readonly count: number;
  readonly close: () => void;
}

function Controls({ playback, count, close }: ControlsProps) {
  const { at, entry, isPlaying, speed, setSpeed, toggle, jump } = playback;
  const speedId = useId();
  return (
    <div className="scrubber-row">
      <button type="button" className="icon-button" aria-label="Step back" onClick={() => jump(at - 1)}>
        <Icon name="back" />
      </button>
      <button
        type="button"
        className="icon-button play"
        aria-label={isPlaying ? 'Pause' : 'Play'}
        disabled={!count}
        onClick={toggle}
      >
        <Icon name={isPlaying ? 'pause' : 'play'} />
      </button>
      <button type="button" className="icon-button" aria-label="Step forward" onClick={() => jump(at + 1)}>
        <Icon name="next" />
      </button>
      <label htmlFor={speedId} className="unseen">
        Speed
      </label>
      <select id={speedId} value={speed} onChange={(event) => setSpeed(Number(event.target.value))}>
        {SPEEDS.map((each) => (
          <option key={each} value={each}>
            {each}×
          </option>
        ))}
      </select>
      <p className="scrubber-place">
        <strong>{entry ? preciseTime(entry.ts) : 'Before the first entry'}</strong>
        <span>
          {at} of {plural(count, 'entry', 'entries')}
          {entry && ` · seq ${entry.seq} · ${kindsOf(entry)}`}
        </span>
      </p>
      <button type="button" className="plain" onClick={close}>
        Back to live
      </button>
    </div>
  );
}

/** What a reader must know of what they see. */
function LogNotes({ logged: { window: log, dropped, isCaughtUp, error } }: { logged: Logged }) {
  return (
    <>
      {!isCaughtUp && !error && <p>Reading the log</p>}
      {error && <p>The log cannot be read: {advice(error.code, error.message)}</p>}
      {dropped > 0 && <p>{plural(dropped, 'earlier entry is', 'earlier entries are')} not kept on this page.</p>}
      {log.aged.size > 0 && (
        <p data-aged>
          Where the line is marked, tokens have aged out of the log: their text appears at once, as it was stored.
        </p>
      )}
      <p>
        Pauses of more than {LONGEST_PAUSE_MS / 1000} s are played as {LONGEST_PAUSE_MS / 1000} s.
      </p>
    </>
  );
}

/** Moves on with every frame, as fast as the log was written times `speed`; stops at the end. */
function usePlaying(
  isPlaying: boolean,
  entries: readonly Entry[],
  speed: number,
  move: (next: (last: Playing | null) => Playing | null) => void,
  ended: () => void,
): void {
  const latest = useRef({ entries, ended });
  useEffect(() => {
    latest.current = { entries, ended };
  });
  useEffect(() => {
    if (!isPlaying) return;
    let before = performance.now();
    let frame = requestAnimationFrame(function draw(now) {
      const { entries: all, ended: stop } = latest.current;
      const passed = now - before;
      before = now;
      move((last) => {
        const next = advance(all, last ?? { at: 0, sinceMs: 0 }, passed, speed);
        if (next.at >= all.length) queueMicrotask(stop);
        return next;
      });
      frame = requestAnimationFrame(draw);
    });
    return () => cancelAnimationFrame(frame);
  }, [isPlaying, speed, move]);
}

interface TimeLineProps {
  readonly entries: readonly Entry[];
  readonly aged: ReadonlySet<number>;
  readonly at: number;
  readonly move: (at: number) => void;
  readonly describedBy: string;
}

function TimeLine({ entries, aged, at, move, describedBy }: TimeLineProps) {
  const entry = entries[at - 1];
  const bands = aged.size ? bandsOf(entries, aged) : [];
  return (
    <div className="time-line">
      <div className="bands" aria-hidden="true">
        {bands.map(([from, to]) => (
          <span key={from} className="band" style={{ left: `${from * 100}%`, width: `${(to - from) * 100}%` }} />
        ))}
      </div>
      <input
        type="range"
        aria-label="Position in the log"
        aria-valuetext={entry ? `${preciseTime(entry.ts)}, ${kindsOf(entry)}` : 'before the first entry'}
        aria-describedby={describedBy}
        min={0}
        max={entries.length}
        value={at}
        onChange={(event) => move(Number(event.target.value))}
      />
    </div>
  );
}

/** Where tokens have aged out, as parts of the line. */
export function bandsOf(entries: readonly Entry[], aged: ReadonlySet<number>): readonly (readonly [number, number])[] {
  const bands: [number, number][] = [];
  const size = 1 / BANDS;
  entries.forEach(({ seq }, at) => {
    if (!aged.has(seq)) return;
    const from = Math.floor((at / entries.length) * BANDS) * size;
    const last = bands.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], from + size);
    else bands.push([from, from + size]);
  });
  return bands;
}
