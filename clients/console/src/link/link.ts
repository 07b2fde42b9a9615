/** The link to a session, `#session=…&token=…&tools=1`: the token leaves the address bar at once. */
import { newId } from '../base/ids.js';
import { tab } from '../base/storage.js';

export interface Link {
  readonly session: string;
  readonly token: string;
  /** This page executes its tool (`ask_browser`) for agents. */
  readonly hasTools: boolean;
}

const tokenKey = (session: string): string => `antiphon.token.${session}`;

export const isSessionName = (text: string): boolean => /^[\w-]{1,128}$/.test(text);

/** Reads what stands after `#`; of a session that was here before, with its token. */
export function readLink(hash: string): Link {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  const session = fields.get('session') ?? '';
  const token = fields.get('token') || (tab.get(tokenKey(session)) ?? '');
  return { session, token, hasTools: fields.get('tools') === '1' };
}

/** Reads a session's name, or a whole link that somebody pasted in its place. */
export function readPasted(text: string): { session: string; token: string | null } {
  const at = text.indexOf('#');
  if (at < 0) return { session: text.trim(), token: null };
  const fields = new URLSearchParams(text.slice(at + 1).trim());
  return { session: fields.get('session') ?? '', token: fields.get('token') };
}

export const addressOf = ({ session, hasTools }: Link): string =>
  `#session=${encodeURIComponent(session)}${hasTools ? '&tools=1' : ''}`;

export function keepToken({ session, token }: Link): void {
  tab.set(tokenKey(session), token);
}

export function forgetToken(session: string): void {
  tab.remove(tokenKey(session));
}

/** The name of this tab, the same after a reload. */
export function deviceName(): string {
  const name = tab.get('antiphon.device') ?? `tab-${newId()}`;
  tab.set('antiphon.device', name);
  return name;
}
