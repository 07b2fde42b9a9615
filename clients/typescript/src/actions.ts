/** What the machine is told when it is made, and what it says to do. */
import type { Answer } from './commands.js';
import type { Settings } from './settings.js';
import type { Output } from './subscription.js';

export type Phase = 'idle' | 'token' | 'connecting' | 'open' | 'waiting' | 'stopped';

export type Action =
  /** Ask the provider; the answer goes to `tokenGiven` or `tokenFailed`. */
  | { readonly do: 'token' }
  /** Open a socket; there may be no address to open it to. */
  | { readonly do: 'open'; readonly url: string | undefined }
  | { readonly do: 'send'; readonly text: string }
  /** End the present socket; nothing that still comes of it counts. */
  | { readonly do: 'drop' }
  /** A command is answered. */
  | ({ readonly do: 'answer' } & Answer)
  /** Something has come for a session; `size` is the length of its frame. */
  | { readonly do: 'session'; readonly session: string; readonly output: Output; readonly size: number }
  /** `phase` and what is told about it are other than before. */
  | { readonly do: 'changed' };

export interface MachineOptions {
  readonly urls: readonly string[];
  readonly token: string | null;
  /** Whether there is a provider to ask. */
  readonly isRenewable: boolean;
  readonly client: string;
  readonly device: string;
  readonly settings: Settings;
  readonly rand: () => number;
  /** What to add to the clock for ms since 1970, as far as it is known. */
  readonly skewMs: number;
}
