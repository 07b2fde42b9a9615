import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';
import { licenses } from './scripts/licenses.js';

const gateway = process.env['ANTIPHON_URL'] ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [react(), licenses()],
  // relative: a gateway may be reached below a path
  base: './',
  resolve: { dedupe: ['react', 'react-dom'] },
  // `npm run dev`: the page from here, everything else from a gateway that runs
  server: { proxy: { '/v1': { target: gateway, ws: true } } },
  // the page is at `/`, what it loads below `/web/`; what that loads lies beside it
  experimental: { renderBuiltUrl: (name, { hostType }) => (hostType === 'html' ? `web/${name}` : { relative: true }) },
  build: {
    outDir: '../../gateway/web',
    emptyOutDir: true,
    assetsDir: '',
    target: 'es2022',
    // its code would be inline, which the page's policy forbids; and browsers of that target need none
    modulePreload: { polyfill: false },
    // fonts and pictures as files of their own
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: {
      // where a library's comment stands is no concern of ours
      onwarn: (warning, warn) => warning.code === 'INVALID_ANNOTATION' || warn(warning),
    },
  },
  test: { environment: 'jsdom', include: ['tests/**/*.test.{ts,tsx}'], testTimeout: 20_000 },
});
