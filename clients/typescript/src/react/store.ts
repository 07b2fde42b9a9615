/**
 * What a component shows of a session: its view and the connection, as one immutable snapshot that changes at most once
 * per animation frame, however many deltas come.
 */

import type { AntiphonClient } from '../client.js';
import { EMPTY_VIEW, type SessionView } from '../following.js';
import { type ConnectionStatus, IDLE } from '../options.js';
import type { Session } from '../session.js';
import { concerns, NO_NOTES, noted, type SessionNotes } from './notes.js';

export interface Shown {
  readonly view: SessionView;
  readonly notes: SessionNotes;
  readonly connection: ConnectionStatus;
}

/** What there is before anything has arrived, and on a server. */
export const NOTHING_YET: Shown = { view: EMPTY_VIEW, notes: NO_NOTES, connection: IDLE };

/** A hidden tab draws no frames; it is kept up to date all the same, less often. */
const HIDDEN_MS = 250;

/** Calls `draw` with the next frame; returns what ends that. */
function nextFrame(draw: () => void): () => void {
  if (typeof requestAnimationFrame === 'function' && globalThis.document?.visibilityState !== 'hidden') {
    const frame = requestAnimationFrame(draw);
    return () => cancelAnimationFrame(frame);
  }
  const timer = setTimeout(draw, HIDDEN_MS);
  return () => clearTimeout(timer);
}

/** A store for `useSyncExternalStore`. While somebody subscribes to it, the session is read. */
export class SessionStore {
  #shown = NOTHING_YET;
  readonly #listeners = new Set<() => void>();
  #notes = NO_NOTES;
  #session: Session | null = null;
  #end: (() => void) | null = null;

  constructor(
    readonly client: AntiphonClient,
    readonly name: string,
    readonly watching: boolean,
  ) {
    if (client.has(name)) this.#shown = { view: client.session(name).view, notes: NO_NOTES, connection: client.status };
  }

  /** The session; a new one if the one before was closed meanwhile. */
  get session(): Session {
    if (!this.#session?.isOpen) {
      const { client, name, watching } = this;
      this.#session = client.has(name) ? client.session(name) : client.session(name, { watching });
    }
    return this.#session;
  }

  readonly snapshot = (): Shown => this.#shown;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (!this.#end) this.#attach();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size) return;
      this.#end?.();
      this.#end = null;
      storesOf(this.client).delete(this.name); // it would keep what it has shown
    };
  };

  #attach(): void {
    const { session, client } = this;
    storesOf(client).set(this.name, this);
    let endFrame: (() => void) | null = null;
    const draw = () => {
      endFrame = null;
      this.#draw(session);
    };
    const changed = () => {
      endFrame ??= nextFrame(draw);
    };
    // a frame that was asked for before the tab was hidden never comes
    const hidden = () => {
      if (!endFrame) return;
      endFrame();
      draw();
    };
    const ends = [this.#note(session), session.subscribe(changed), client.subscribe(changed), session.hold()];
    globalThis.document?.addEventListener('visibilitychange', hidden);
    this.#end = () => {
      for (const end of ends) end();
      endFrame?.();
      globalThis.document?.removeEventListener('visibilitychange', hidden);
    };
    this.#draw(session);
  }

  /** Keeps notes of runs and calls, from now on; returns what ends that. */
  #note(session: Session): () => void {
    let before = session.state;
    this.#notes = NO_NOTES;
    return session.onFolded((entry, changes) => {
      if (entry && !concerns(entry)) return;
      this.#notes = entry ? noted(this.#notes, entry, changes, before, session.state) : NO_NOTES;
      before = session.state;
    });
  }

  #draw({ view }: Session): void {
    const connection = this.client.status;
    const notes = this.#notes;
    const last = this.#shown;
    if (view === last.view && notes === last.notes && connection === last.connection) return;
    this.#shown = { view, notes, connection };
    for (const listener of [...this.#listeners]) listener();
  }
}

const stores = new WeakMap<AntiphonClient, Map<string, SessionStore>>();

function storesOf(client: AntiphonClient): Map<string, SessionStore> {
  const known = stores.get(client) ?? new Map<string, SessionStore>();
  stores.set(client, known);
  return known;
}

/** The store of a session: the same one for all components that show it at once. */
export function storeOf(client: AntiphonClient, name: string, watching: boolean): SessionStore {
  const known = storesOf(client);
  const store = known.get(name) ?? new SessionStore(client, name, watching);
  known.set(name, store);
  return store;
}
