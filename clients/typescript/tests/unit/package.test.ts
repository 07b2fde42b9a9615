/** The package as it is published. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const manifest = JSON.parse(read('package.json'));

test('it is ESM, needs nothing, and what is not used is left out', () => {
  expect(manifest).toMatchObject({
    type: 'module',
    sideEffects: false,
    peerDependenciesMeta: Object.fromEntries(
      Object.keys(manifest.peerDependencies).map((name) => [name, { optional: true }]),
    ),
  });
  expect(manifest.dependencies).toBe(undefined);
});

test('every entry is built, with its types', () => {
  for (const [name, entry] of Object.entries(manifest.exports as Record<string, string | Record<string, string>>)) {
    for (const path of typeof entry === 'string' ? [entry] : Object.values(entry)) {
      expect(existsSync(new URL(`../../${path}`, import.meta.url)), `${name}: ${path}; npm run build`).toBe(true);
    }
  }
});

test('only bindings need something, and nothing needs Node or the AI SDK', () => {
  const needs: Record<string, string[]> = {
    'react/index.js': ['react'],
    'react/sessions.js': ['react'],
    'ai-sdk/react.js': ['react'],
    'ag-ui/index.js': ['@ag-ui/client', 'rxjs'],
  };
  const files = readdirSync(new URL('../../dist/', import.meta.url), { recursive: true, encoding: 'utf8' });
  for (const name of files.filter((file) => file.endsWith('.js'))) {
    const outside = [...read(`dist/${name}`).matchAll(/from '([^.'][^']*)'/g)].map(([, from]) => from);
    expect(outside, name).toEqual(needs[name] ?? []);
  }
});

test('the lock file names no registry', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, { resolved?: string }> };
  expect(Object.keys(packages).length).toBeGreaterThan(50);
  for (const [path, { resolved }] of Object.entries(packages)) {
    // a link within the repository
    if (resolved !== undefined) expect(existsSync(new URL(`../../${resolved}`, import.meta.url)), path).toBe(true);
  }
});
