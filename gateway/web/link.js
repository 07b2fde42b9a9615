// @ts-check
/** The link to a session, `#session=…&token=…&tools=1`: the token leaves the address bar at once. */
import { advice } from './advice.js';
import { byId } from './dom.js';
import { newId } from './outbox.js';

/** @typedef {{session: string, token: string, hasTools: boolean}} Link */

export const storage = openStorage();
const tokenKey = (/** @type {string} */ session) => `antiphon.token.${session}`;

/** @returns {Storage | null} null where the browser forbids it */
function openStorage() {
  try {
    return window.sessionStorage;
  } catch {
    return null;
  }
}

/** @param {string} key @param {string} value */
function keep(key, value) {
  try {
    storage?.setItem(key, value);
  } catch {
    // Storage full: the next reload asks, or starts afresh.
  }
}

/** @returns {string} the name of this tab, the same after a reload */
export function deviceName() {
  const name = storage?.getItem('antiphon.device') ?? `tab-${newId()}`;
  keep('antiphon.device', name);
  return name;
}

/** Takes session and token from the link. @returns {Link} */
export function readLink() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const session = fields.get('session') ?? '';
  const token = fields.get('token') || (storage?.getItem(tokenKey(session)) ?? '');
  return { session, token, hasTools: fields.get('tools') === '1' };
}

/** @param {Link} link */
export function remember({ session, token, hasTools }) {
  keep(tokenKey(session), token);
  history.replaceState(null, '', `#session=${encodeURIComponent(session)}${hasTools ? '&tools=1' : ''}`);
}

/** @param {string} session */
export function forget(session) {
  storage?.removeItem(tokenKey(session));
}

/** @param {string} session @param {string} why @param {(session: string, token: string) => void} joined */
export function askToJoin(session, why, joined) {
  const [name, secret, error] = [byId('join-session'), byId('join-token'), byId('join-error')];
  const inputs = /** @type {HTMLInputElement[]} */ ([name, secret]);
  inputs[0].value ||= session;
  error.textContent = why;
  error.hidden = !why;
  byId('room').hidden = true;
  byId('join').hidden = false;
  inputs[session ? 1 : 0].focus();
  byId('join-form').onsubmit = (event) => {
    event.preventDefault();
    const pasted = new URLSearchParams(inputs[0].value.split('#')[1] ?? '');
    const wanted = pasted.get('session') ?? inputs[0].value.trim();
    const token = pasted.get('token') ?? inputs[1].value.trim();
    if (!/^[\w-]{1,128}$/.test(wanted)) return askToJoin('', advice('bad_name'), joined);
    if (!token) return askToJoin(wanted, 'A token is needed to join.', joined);
    inputs[1].value = '';
    joined(wanted, token);
  };
}
