import { defineConfig } from 'vitest/config';

const agui0 = new URL('tests/agui0/node_modules/@ag-ui/client/dist/index.mjs', import.meta.url).pathname;
const react18 = (name: string) => new URL(`tests/react18/node_modules/${name}`, import.meta.url).pathname;

export default defineConfig({
  test: {
    testTimeout: 20_000,
    // they mostly wait, for servers and for browsers
    minWorkers: 1,
    maxWorkers: 4,
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['tests/unit/**/*.test.ts', 'tests/conformance/**/*.test.ts'] },
      },
      {
        extends: true,
        test: {
          name: 'react19',
          environment: 'jsdom',
          include: ['tests/react/**/*.test.tsx'],
          provide: { react: '19' },
        },
      },
      {
        extends: true,
        // the react of this package is replaced by the one beside react-dom 18
        resolve: {
          alias: [
            { find: /^react$/, replacement: react18('react/index.js') },
            { find: /^react\/jsx-(dev-)?runtime$/, replacement: react18('react/jsx-$1runtime.js') },
            { find: /^react-dom\/(client|server)$/, replacement: react18('react-dom/$1.js') },
          ],
        },
        test: {
          name: 'react18',
          environment: 'jsdom',
          include: ['tests/react/**/*.test.tsx'],
          provide: { react: '18' },
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['tests/integration/**/*.test.ts'],
          globalSetup: ['tests/integration/global.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      ...[
        { name: 'ag-ui 1.0', alias: [], include: ['tests/ag-ui/**/*.test.ts*'] },
        // the client of this package's tests is replaced by the last one before 1.0
        {
          name: 'ag-ui 0.0.59',
          alias: [{ find: /^@ag-ui\/client$/, replacement: agui0 }],
          include: ['tests/ag-ui/runs.test.ts'],
        },
      ].map(({ name, alias, include }) => ({
        extends: true as const,
        resolve: { alias },
        test: {
          name,
          include,
          globalSetup: ['tests/ag-ui/global.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
          provide: { agui: name },
        },
      })),
      {
        extends: true,
        test: { name: 'chromium', include: ['tests/chromium/**/*.test.ts'], testTimeout: 90_000, hookTimeout: 60_000 },
      },
    ],
  },
});
