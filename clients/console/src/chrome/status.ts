/** What the session is doing, in words. */
import type { Participant, State } from '@antiphon/client';
import { nameOf } from '../base/words.js';

export function statusLine(state: State, user: string | null, people: readonly Participant[]): string {
  switch (state.status) {
    case 'closed':
      return 'Closed: it takes no messages';
    case 'paused':
      return pausedLine(state);
    case 'requires_action':
      return `Waiting for ${wantedOf(state)}`;
    case 'running':
      return isStopping(state) ? 'Stopping' : state.runs.length ? 'Working' : 'Waiting for an agent';
    case 'human':
      return humanLine(state, user, people);
    default:
      return '';
  }
}

/** All that runs is being stopped. */
export const isStopping = ({ runs }: State): boolean => runs.length > 0 && runs.every(({ cancel }) => cancel !== null);

function pausedLine({ lanes }: State): string {
  const reasons = Object.values(lanes).flatMap(({ paused }) => paused || []);
  return reasons.length ? `Paused: ${reasons.join(', ')}` : 'Paused';
}

function wantedOf({ approvals, calls, handoffs }: State): string {
  const kinds: string[] = approvals.map(({ kind }) => (kind === 'question' ? 'an answer' : 'a decision'));
  if (calls.some(({ executor }) => executor === 'client')) kinds.push('a tool of somebody’s browser');
  if (handoffs.length) kinds.push('a human to take over');
  return [...new Set(kinds)].join(', ');
}

function humanLine({ lanes }: State, user: string | null, people: readonly Participant[]): string {
  const id = lanes['main']?.owner?.id ?? null;
  if (id === user) return 'You have the conversation';
  return `${nameOf(people.find((person) => person.id === id) ?? { kind: 'user', id })} has the conversation`;
}
