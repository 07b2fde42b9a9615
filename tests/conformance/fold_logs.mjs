// Folds as the page does, for test_readers_agree.py: a line in is {"state": …|null, "entries": […]}, a line out what they come to.
import { createInterface } from 'node:readline';

import { Fold } from '../../gateway/web/fold.js';

const FIELDS = ['id', 'role', 'seq', 'by', 'lane', 'run', 'text', 'status', 'reason', 'name', 'toolCallId', 'rolledBack'];

for await (const line of createInterface({ input: process.stdin })) {
  const { state, entries } = JSON.parse(line);
  const fold = new Fold(state ?? undefined);
  for (const entry of entries) fold.apply(entry);
  const messages = fold.messages.map((message) =>
    Object.fromEntries(FIELDS.filter((field) => message[field] !== undefined).map((field) => [field, message[field]])));
  process.stdout.write(`${JSON.stringify({ state: fold.state(), messages })}\n`);
}
