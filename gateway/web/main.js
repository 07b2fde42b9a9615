// @ts-check
/** Joins the session that the link names. */
import { byId } from './dom.js';
import { askToJoin, forget, readLink, remember } from './link.js';
import { Room } from './room.js';

const link = readLink();

/** @param {string} session @param {string} token */
function start(session, token) {
  Object.assign(link, { session, token });
  remember(link);
  return new Room(link);
}

byId('leave').onclick = () => forget(link.session);
window.addEventListener('hashchange', () => location.reload());
if (link.session && link.token) start(link.session, link.token);
else askToJoin(link.session, '', start);
