/** What a reader must know beside a message: how it ended, who went on, what became of a call. */
import type { Message } from '@antiphon/client';
import type { RunNote, SessionNotes } from '@antiphon/client/react';

export interface Mark {
  readonly text: string;
  readonly isBad: boolean;
}

const ENDS: Readonly<Record<string, string>> = {
  cancelled: 'stopped',
  handed_over: 'a human took over',
  error: 'cut short by an error',
};

const POLICIES: Readonly<Record<string, string>> = {
  continue: ', another one goes on',
  restart: ', another one began again',
};

/** The marks of a message; `note` is that of its run, if it is the run's last message. */
export function marksOf({ reason, rolledBack }: Message, note: RunNote | null): readonly Mark[] {
  const marks: Mark[] = [];
  const say = (text: string, isBad = false) => marks.push({ text, isBad });
  if (reason !== null && ENDS[reason]) say(ENDS[reason]);
  if (reason === 'worker_lost') say(`its worker was lost${POLICIES[note?.takenOver ?? ''] ?? ''}`);
  if (rolledBack) say('taken out of the conversation');
  const outcome = note?.outcome;
  if (outcome?.kind === 'error') {
    say(`The run failed (${outcome.code ?? 'error'})${outcome.message ? `: ${outcome.message}` : ''}`, true);
  }
  return marks;
}

/** The last row of each run: what is to be said of the run as a whole stands there. */
export function lastOfRuns(messages: readonly Message[], { runs }: SessionNotes): ReadonlyMap<string, RunNote> {
  const found = new Map<string, RunNote>();
  const looked = new Set<string>();
  for (let at = messages.length - 1; at >= 0 && looked.size < runs.size; at -= 1) {
    const message = messages[at];
    const run = message?.run ?? null;
    if (!message || run === null || looked.has(run) || message.role === 'tool') continue;
    const note = runs.get(run);
    if (!note) continue;
    looked.add(run);
    found.set(message.id, note);
  }
  return found;
}
