// Tells the answers of logs as the TypeScript client does, for `test_readers_agree.py`: a line of JSON in, `{input, viewer,
// entries}`, one out, the chunks of each entry. Imports what `npm run build` in clients/typescript makes.
import { createInterface } from 'node:readline';
import { Answer } from '../../clients/typescript/dist/ai-sdk/answer.js';
import { readEntry } from '../../clients/typescript/dist/index.js';

for await (const line of createInterface({ input: process.stdin })) {
  const { input, viewer, entries } = JSON.parse(line);
  const answer = new Answer(input, ({ participant }) => (participant ?? viewer) === viewer);
  console.log(JSON.stringify(entries.map((frame) => answer.take(readEntry(frame, 'e')))));
}
