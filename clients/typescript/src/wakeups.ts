/** When there is reason to doubt a connection: a tab or a laptop that wakes up, a network that comes, goes or changes. */

const EVENTS = ['online', 'offline', 'pageshow', 'visibilitychange', 'resume'];

/** Calls `wake` on them, where there are such events (in browsers); returns what ends that. */
export function onWakeup(wake: () => void): () => void {
  const { document, navigator } = globalThis as { document?: Document; navigator?: { connection?: EventTarget } };
  const isSeen = () => document?.visibilityState !== 'hidden' && wake();
  const places = [globalThis as unknown as EventTarget, document].filter((place) => place?.addEventListener);
  for (const place of places) for (const name of EVENTS) place?.addEventListener(name, isSeen);
  navigator?.connection?.addEventListener?.('change', wake);
  return () => {
    for (const place of places) for (const name of EVENTS) place?.removeEventListener(name, isSeen);
    navigator?.connection?.removeEventListener?.('change', wake);
  };
}
