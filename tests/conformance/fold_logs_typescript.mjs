// Folds as the TypeScript client does, for test_readers_agree.py: a line in is {"state": …|null, "entries": […]}, a line out what they come to.
import { createInterface } from 'node:readline';

import { Fold, readEntry } from '../../clients/typescript/dist/index.js';

for await (const line of createInterface({ input: process.stdin })) {
  const { state, entries } = JSON.parse(line);
  const fold = new Fold({ state: state ?? undefined });
  for (const entry of entries) {
    fold.apply(readEntry(entry));
    void [fold.state, fold.messages]; // what is looked at in between must not change what comes of it
  }
  process.stdout.write(`${JSON.stringify({ state: fold.state, messages: fold.messages })}\n`);
}
