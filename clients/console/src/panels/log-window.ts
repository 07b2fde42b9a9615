/**
 * The newest entries of a log, up to a bound; what came before them, folded; and where tokens have aged out. Pure.
 */
import { type Entry, Fold, type JsonObject, type LogEvent, type Message } from '@antiphon/client';

export interface Bounds {
  /** Entries that are kept. */
  readonly entries: number;
  /** Characters in them, roughly. */
  readonly chars: number;
  /** How many go at once when there are too many. */
  readonly dropped: number;
}

export const BOUNDS: Bounds = { entries: 50_000, chars: 48_000_000, dropped: 5000 };

/** What an entry takes beside its texts, and a value in it that is no text. */
const FRAME_CHARS = 200;
const VALUE_CHARS = 8;

export class LogWindow {
  /** Oldest first. It grows at its end, and what is dropped goes from its beginning. */
  readonly entries: Entry[] = [];
  /** The sequences of entries that bring text whose tokens are not in the log any more. */
  readonly aged = new Set<number>();
  /** How many came before `entries`. */
  dropped = 0;
  readonly #bounds: Bounds;
  #chars = 0;
  #base = new Fold();
  /** Code points of each open text, as far as they have come. */
  readonly #lengths = new Map<string, number>();

  constructor(bounds: Bounds = BOUNDS) {
    this.#bounds = bounds;
  }

  take(entry: Entry): void {
    for (const event of entry.events) if (this.#isAged(entry, event)) this.aged.add(entry.seq);
    this.entries.push(entry);
    this.#chars += sizeOf(entry);
    if (this.entries.length > this.#bounds.entries || this.#chars > this.#bounds.chars) this.#drop();
  }

  /** A fold of what was dropped, from which folding goes on; and the messages that were settled in it. */
  begin(): { fold: Fold; before: readonly Message[] } {
    if (!this.dropped) return { fold: new Fold(), before: [] };
    const { state, messages } = this.#base;
    const fold = new Fold({ state: JSON.parse(JSON.stringify(state)) as JsonObject });
    for (const [lane, { fence }] of Object.entries(state.lanes)) {
      const open = messages.filter((message) => message.status === 'streaming' && message.lane === lane);
      if (open.length) fold.apply(reopened(open, lane, fence));
    }
    return { fold, before: messages.filter(({ status }) => status !== 'streaming') };
  }

  #drop(): void {
    const gone = this.entries.splice(0, Math.min(this.#bounds.dropped, this.entries.length >> 1));
    for (const entry of gone) {
      this.#base.apply(entry);
      this.#chars -= sizeOf(entry);
      this.aged.delete(entry.seq);
    }
    this.dropped += gone.length;
  }

  /** Whether an event is a segment that reaches beyond what tokens have brought. */
  #isAged({ off }: Entry, event: LogEvent): boolean {
    const id = String(event['messageId'] ?? event['toolCallId'] ?? '');
    const known = this.#lengths.get(id) ?? 0;
    if (off !== null) {
      this.#lengths.set(id, Math.max(known, off + [...String(event['delta'] ?? '')].length));
      return false;
    }
    if (event.type !== 'message.segment') return false;
    const end = Number(event['offset']) + Number(event['length'] ?? 0);
    if (event['final'] === true) this.#lengths.delete(id);
    else this.#lengths.set(id, Math.max(known, end));
    return end > known;
  }
}

/** What begins the open texts of a lane in a fold that has not read how they began: a state has no texts. */
function reopened(open: readonly Message[], lane: string, fence: number): Entry {
  const { by = null, run = null } = open[0] ?? {};
  // a write before all others under the lane's fence
  const place = { cursor: '', seq: 0, prev: 0, id: `${fence}-0`, ts: 0, off: null, merged: null };
  return { type: 'entry', ...place, lane, run, by, events: open.flatMap(beginning) };
}

function beginning({ id, role, name, text }: Message): LogEvent[] {
  const begin: Readonly<Record<string, LogEvent>> = {
    reasoning: { type: 'REASONING_MESSAGE_START', messageId: id, role: 'reasoning' },
    tool_call: { type: 'TOOL_CALL_START', toolCallId: id, toolCallName: name },
  };
  const start = begin[role] ?? { type: 'TEXT_MESSAGE_START', messageId: id, role };
  const piece = { type: 'message.segment', messageId: id, offset: 0, text, length: [...text].length };
  return [start, piece];
}

function sizeOf({ events }: Entry): number {
  const values = events.flatMap((event) => Object.values(event));
  return values.reduce<number>(
    (sum, value) => sum + (typeof value === 'string' ? value.length : VALUE_CHARS),
    FRAME_CHARS,
  );
}
