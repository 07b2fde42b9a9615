/** What the first paint loads: the page, and every script and style that it names, gzipped. Fails beyond the budget. */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET = 150 * 1024;
const web = new URL('../../../gateway/web/', import.meta.url);

const page = readFileSync(new URL('index.html', web), 'utf8');
const names = [...page.matchAll(/(?:src|href)="web\/([^"]+)"/g)].map(([, name]) => name);
let total = 0;
for (const name of ['index.html', ...names]) {
  const size = gzipSync(readFileSync(new URL(name, web)), { level: 9 }).length;
  console.log(`${name.padEnd(32)} ${String(size).padStart(6)} bytes`);
  total += size;
}
console.log(
  `${'first load'.padEnd(32)} ${String(total).padStart(6)} of ${BUDGET} bytes  ${total > BUDGET ? 'TOO LARGE' : 'ok'}`,
);
process.exitCode = total > BUDGET ? 1 : 0;
