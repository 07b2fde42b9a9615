/** What becomes of a message that is sent while a run is active. */
import type { Mode } from '@antiphon/client';

/** What a session does by itself. */
export const USUAL: Readonly<Record<Mode, string>> = {
  auto: 'as the agent can',
  inject: 'steers now',
  enqueue: 'after this',
  interrupt: 'interrupts',
  rollback: 'in its place',
  reject: 'not now',
};

export const CHOICES: readonly { readonly mode: Mode; readonly label: string; readonly needsSteer: boolean }[] = [
  { mode: 'inject', label: 'Steer now', needsSteer: true },
  { mode: 'enqueue', label: 'After this', needsSteer: false },
  { mode: 'interrupt', label: 'Interrupt', needsSteer: true },
];

/** What a message that waits is marked with. */
export const TAGS: Readonly<Record<string, string>> = {
  enqueue: 'queued',
  inject: 'steers',
  interrupt: 'interrupts',
  rollback: 'in its place',
};
