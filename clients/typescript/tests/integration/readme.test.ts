/** The README: its quick start is executed, and all its examples are type-checked, against what is built. */
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const run = promisify(execFile);
const HERE = new URL('../../', import.meta.url).pathname;
/** In the package, so that its name leads to what is built. */
const PLACE = `${HERE}tests/.readme/`;

const readme = readFileSync(`${HERE}README.md`, 'utf8');
const examples = [...readme.matchAll(/```(tsx?)\n(.*?)```/gs)].map(([, kind = '', code = '']) => ({ kind, code }));

beforeAll(() => mkdirSync(PLACE, { recursive: true }));
afterAll(() => rmSync(PLACE, { recursive: true }));

test('the quick start does what it says', async () => {
  const start = (examples[0]?.code ?? '')
    .replace('http://localhost:8080', inject('url'))
    .replace('eyJ…', inject('token'));
  const socket = "import { WebSocket } from 'ws';\nglobalThis.WebSocket ??= WebSocket;\n"; // for Node 20
  writeFileSync(`${PLACE}start.mjs`, socket + start);
  const { stdout } = await run(process.execPath, [`${PLACE}start.mjs`]);
  expect(stdout).toBe('success What is a cursor?\n');
});

test('the examples type-check', async () => {
  expect(examples.length).toBe(7);
  for (const [n, { kind, code }] of examples.entries()) writeFileSync(`${PLACE}example-${n}.${kind}`, code);
  const extended = { extends: '../../tsconfig.json', include: ['*'], compilerOptions: { noEmit: true } };
  writeFileSync(`${PLACE}tsconfig.json`, JSON.stringify(extended));
  const { stdout } = await run(`${HERE}node_modules/.bin/tsc`, ['-p', PLACE]).catch(
    (error: { stdout: string }) => error,
  );
  expect(stdout).toBe('');
});
