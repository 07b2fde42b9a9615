/**
 * One entry as JSON, as the gateway sends it: with what the client has no use for, such as its trace and the gateway
 * that stored it. Asked for by HTTP when it is opened; until then, and if it has aged out, it is what the client read.
 */
import type { Entry, JsonObject } from '@antiphon/client';
import { useEffect, useState } from 'react';
import { gateway } from '../link/place.js';
import { CopyButton } from '../markdown/code.js';

/** Characters that are shown; all of them are copied. */
const SHOWN_CHARS = 50_000;

interface RawEntryProps {
  readonly entry: Entry;
  readonly session: string;
  readonly token: string;
}

export function RawEntry({ entry, session, token }: RawEntryProps) {
  const [found, setFound] = useState<JsonObject | null>(null);
  useEffect(() => {
    const ending = new AbortController();
    fetchEntry(entry, session, token, ending.signal).then(setFound, () => {}); // what the client read stays
    return () => ending.abort();
  }, [entry, session, token]);
  const json = JSON.stringify(found ?? readOf(entry), null, 2);
  return (
    <div className="entry-json" data-raw={found !== null || undefined}>
      <CopyButton text={() => json} />
      <pre tabIndex={0}>{json.slice(0, SHOWN_CHARS)}</pre>
    </div>
  );
}

/** An entry as the client read it: without what it adds, and what is not there. */
export function readOf(entry: Entry): JsonObject {
  const { cursor: _cursor, type: _type, ...fields } = entry;
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

/** Where an entry is to be had alone: everything after the place before it, and one of that. */
export function addressOf({ cursor, seq }: Entry, session: string): string {
  const query = new URLSearchParams({
    after: `${cursor.slice(0, cursor.lastIndexOf(':'))}:${seq - 1}`,
    replay: 'every',
    format: 'json',
    limit: '1',
  });
  return new URL(`sessions/${encodeURIComponent(session)}/events?${query}`, gateway()).href;
}

async function fetchEntry(
  entry: Entry,
  session: string,
  token: string,
  signal: AbortSignal,
): Promise<JsonObject | null> {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(addressOf(entry, session), { headers, signal });
  if (!response.ok) return null;
  const [found] = (await response.json()).entries as readonly JsonObject[];
  if (found?.['seq'] !== entry.seq) return null;
  const { op: _op, session: _session, ...fields } = found;
  return fields;
}
