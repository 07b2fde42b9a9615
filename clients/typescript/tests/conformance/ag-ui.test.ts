/** The shared cases of AG-UI streams, which gateways make alike (tests/conformance/agui of the repository). */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Page } from '../../src/ag-ui/interrupts.js';
import type { Shown } from '../../src/ag-ui/messages.js';
import { Projection } from '../../src/ag-ui/projection.js';
import type { Event } from '../../src/ag-ui/stream.js';
import type { JsonObject } from '../../src/json.js';
import type { Entry } from '../../src/model.js';
import { readEntry } from '../../src/protocol.js';

interface Case {
  readonly name: string;
  readonly threadId: string;
  readonly runId: string;
  readonly isModern: boolean;
  readonly page: Omit<Page, 'tools'> & { readonly tools: readonly string[] };
  readonly client: readonly Shown[];
  readonly fresh: readonly Shown[];
  readonly entries: readonly JsonObject[];
  /** So many entries are in the log when the reader comes. */
  readonly begin: number;
  readonly aim: { readonly runId: string | null; readonly seq: number };
  /** `waits`: after the last entry the stream ends if it waits for the page; else it is cut. */
  readonly end: { readonly how: string; readonly now: number };
  readonly events: readonly Event[];
}

const CASES = new URL('../../../../tests/conformance/agui/', import.meta.url);
const cases: Case[] = readdirSync(CASES).map((name) => JSON.parse(readFileSync(new URL(name, CASES), 'utf8')));

test('there are cases', () => {
  expect(cases.length).toBeGreaterThanOrEqual(30);
});

test.each(cases)('$name', ({ threadId, runId, isModern, page, client, fresh, entries, begin, aim, end, events }) => {
  const projection = new Projection(threadId, runId, { ...page, tools: new Set(page.tools) }, isModern);
  const made: Event[] = [];
  const feed = (frames: readonly JsonObject[]) => {
    for (const frame of frames) if (!projection.isOver) made.push(...projection.take(readEntry(frame) as Entry));
  };
  projection.load(undefined, 0);
  feed(entries.slice(0, begin));
  made.push(...projection.begin(client, fresh), ...projection.aim(aim.runId, aim.seq));
  feed(entries.slice(begin));
  if (!projection.isOver) {
    const waiting = projection.waiting(end.now);
    if (end.how === 'waits' && waiting.approvals.length) made.push(...projection.interrupt(waiting));
    else if (end.how === 'waits' && waiting.calls.length) made.push(...projection.handOver(waiting.calls));
    else made.push(...projection.fail('cut', 'cut'));
  }
  expect(made).toEqual(events);
});
