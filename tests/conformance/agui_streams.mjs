/**
 * AG-UI streams as their clients take them, for test_agui.py. A line in is a log, who reads it from where, and the events
 * that the gateway makes of it; a line out what the TypeScript client makes of it, and what the real client of that
 * version (with its own verifier and reducer) says to the stream and has in the end.
 */
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import * as modern from '../../clients/typescript/node_modules/@ag-ui/client/dist/index.mjs';
import * as legacy from '../../clients/typescript/tests/agui0/node_modules/@ag-ui/client/dist/index.mjs';
import { Projection } from '../../clients/typescript/dist/ag-ui/projection.js';
import { readEntry } from '../../clients/typescript/dist/index.js';

const { from } = createRequire(new URL('../../clients/typescript/package.json', import.meta.url))('rxjs');

let warnings = [];
console.warn = (text) => warnings.push(String(text));
console.error = () => {};

function project({ threadId, runId, page, isModern, client, fresh, entries, begin, gap, aim, end }) {
  const projection = new Projection(threadId, runId, { ...page, tools: new Set(page.tools) }, isModern);
  projection.load(undefined, 0);
  const events = [];
  entries.forEach((frame, n) => {
    if (n === begin) events.push(...projection.begin(client, fresh), ...projection.aim(aim.runId, aim.seq));
    if (n === gap && !projection.isOver) {
      projection.load(undefined, 0);
      for (const before of entries.slice(0, n)) projection.take(readEntry(before));
      events.push(...projection.again());
    }
    if (!projection.isOver) events.push(...projection.take(readEntry(frame)));
  });
  if (entries.length === begin) events.push(...projection.begin(client, fresh), ...projection.aim(aim.runId, aim.seq));
  if (!projection.isOver) events.push(...finish(projection, end));
  return { events, shown: projection.shown };
}

function finish(projection, end) {
  const waiting = projection.waiting(end.now);
  if (end.how === 'waits' && waiting.approvals.length) return projection.interrupt(waiting);
  if (end.how === 'waits' && waiting.calls.length) return projection.handOver(waiting.calls);
  return projection.fail('cut', 'cut');
}

/** What a reader over HTTP says to events that are not as its version has them; that of 1.0 checks them by itself. */
function malformed(events) {
  const found = events.map((event) => legacy.EventSchemas.safeParse(event)).find(({ success }) => !success);
  return found ? String(found.error) : null;
}

async function read({ AbstractAgent }, events, client) {
  class Replayed extends AbstractAgent {
    run() {
      return from(events);
    }
  }
  const agent = new Replayed({ threadId: 's', initialMessages: client });
  const seen = [];
  warnings = [];
  try {
    await agent.runAgent({ runId: 'r' }, { onEvent: ({ event }) => void seen.push(event.type) });
  } catch (error) {
    return { problem: String(error), seen };
  }
  // a patch of an agent's own may fit nothing
  const told = warnings.filter((text) => !text.startsWith('Failed to apply') && !text.startsWith('ACTIVITY'));
  return { problem: told[0] ?? null, seen, messages: agent.messages };
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const { events, shown } = project(asked);
  const has = [...asked.client, ...asked.fresh];
  const said = structuredClone(asked.events ?? events);
  const problem = asked.isModern ? null : malformed(said);
  const result = problem ? { problem } : await read(asked.isModern ? modern : legacy, said, has);
  process.stdout.write(`${JSON.stringify({ events, shown, ...result })}\n`);
}
