/** What is loaded when somebody opens it. */
import { lazy, type ReactNode, Suspense } from 'react';
import { Guard } from '../base/guard.js';

export const Replay = lazy(() => import('./replay.js'));
export const Inspector = lazy(() => import('./inspector.js'));

/** A server that was updated meanwhile may not have the files any more that this page would load. */
const NOT_LOADED = 'This could not be loaded. The server may have been updated.';

export function Opened({ children, className }: { children: ReactNode; className: string }) {
  return (
    <Guard className={className} message={NOT_LOADED}>
      <Suspense fallback={<div className={className} aria-busy="true" />}>{children}</Suspense>
    </Guard>
  );
}
