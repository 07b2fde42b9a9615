/** Where this tab is: a session, the token for it, and the client that this token opened. */
import { AntiphonClient } from '@antiphon/client';
import { Store } from '../base/store.js';
import { type Claims, readClaims } from './claims.js';
import { addressOf, deviceName, forgetToken, keepToken, type Link, readLink } from './link.js';

export interface Place extends Link {
  /** Null while there is no token. */
  readonly client: AntiphonClient | null;
  readonly claims: Claims | null;
}

/** The address of the gateway that served this page, which may be below a path. */
export const gateway = (): string => new URL('v1/connect', document.baseURI.split('#')[0]).href;

function settled(link: Link, before: Place | null): Place {
  const isGood = before?.client && before.client.status.phase !== 'stopped'; // a stopped one is made anew
  if (isGood && before.token === link.token) return { ...link, client: before.client, claims: before.claims };
  void before?.client?.close();
  const { token } = link;
  const client = token ? new AntiphonClient({ url: gateway(), token, name: 'console', device: deviceName() }) : null;
  return { ...link, client, claims: readClaims(token) };
}

const begin = readLink(location.hash);
export const place = new Store<Place>(settled(begin, null));
if (begin.session && begin.token) arrive(begin, 'replace');

function arrive(link: Link, how: 'replace' | 'push'): void {
  keepToken(link);
  const address = addressOf(link);
  if (how === 'push' && address !== location.hash) history.pushState(null, '', address);
  else history.replaceState(null, '', address);
  place.set(settled(link, place.value));
}

/** Goes to a session, with the token at hand unless another one is given. */
export function goTo(session: string, token?: string): void {
  const known = token || readLink(`#session=${encodeURIComponent(session)}`).token || place.value.token;
  arrive({ session, token: known, hasTools: place.value.hasTools }, token ? 'replace' : 'push');
}

/** Asks for another token for the session that is shown. */
export function askForToken(): void {
  forgetToken(place.value.session);
  place.set(settled({ ...place.value, token: '' }, place.value));
}

/** Leaves the session, and forgets its token. */
export function leave(): void {
  forgetToken(place.value.session);
  history.pushState(null, '', location.pathname + location.search);
  place.set(settled({ session: '', token: '', hasTools: false }, place.value));
}

// back, forward, and links that are put into the address bar of a page that is open
window.addEventListener('popstate', () => {
  const link = readLink(location.hash);
  const token = link.token || (link.session ? place.value.token : '');
  if (link.session && token) arrive({ ...link, token }, 'replace');
  else place.set(settled({ ...link, token }, place.value));
});

/** Makes a client anew with the same token. */
export function renew(): void {
  const { client, ...link } = place.value;
  void client?.close();
  place.set(settled(link, null));
}
