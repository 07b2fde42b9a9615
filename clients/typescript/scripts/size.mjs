/**
 * What a page loads: the minified, gzipped size of each entry, bundled as a page would. Fails beyond a budget. Entries
 * are bundled from `dist`, which `npm run build` makes.
 */
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const KB = 1024;

/** What a program imports, and how many bytes that may be. */
const BUDGETS = [
  { what: 'core client', code: "export { CoreClient } from './dist/core.js'", bytes: 12 * KB },
  { what: 'with fold, receipts and tools', code: "export { AntiphonClient } from './dist/index.js'", bytes: 22 * KB },
  { what: 'the fold alone', code: "export { Fold } from './dist/index.js'", bytes: 8.5 * KB },
  { what: 'webhooks', code: "export { verify } from './dist/webhooks.js'", bytes: 2 * KB },
  { what: 'nothing of it', code: "import './dist/index.js'", bytes: 64 },
  {
    what: 'AG-UI, with the core client',
    code: "export { CoreClient } from './dist/core.js'; export * from './dist/ag-ui/index.js'",
    bytes: 26.5 * KB,
  },
  {
    what: 'React, with all of that',
    code: "export { AntiphonClient } from './dist/index.js'; export * from './dist/react/index.js'",
    bytes: 25 * KB,
  },
  {
    what: 'the AI SDK transport, likewise',
    code: "export { AntiphonClient } from './dist/index.js'; export * from './dist/ai-sdk/index.js'",
    bytes: 29 * KB,
  },
];

let failed = false;
for (const { what, code, bytes } of BUDGETS) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: new URL('..', import.meta.url).pathname },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    external: ['@ag-ui/client', 'react', 'rxjs'],
    write: false,
    logLevel: 'error',
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  failed ||= size > bytes;
  const verdict = size > bytes ? 'TOO LARGE' : 'ok';
  console.log(`${what.padEnd(32)} ${String(size).padStart(6)} of ${String(bytes).padStart(6)} bytes  ${verdict}`);
}
process.exitCode = failed ? 1 : 0;
