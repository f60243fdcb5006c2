import { defineConfig } from 'vite';

// The edge serves `assets/` as immutable, so every name there carries a hash; everything is a file of our own
// origin (no inlined data: URLs), which keeps the content security policy short.
export default defineConfig({
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // MapLibre GL alone is 1.1 MB of script.
    chunkSizeWarningLimit: 1600,
  },
  server: {
    // `npm run dev` beside a running node: SOVEREIGN_NODE=https://localhost:8443 npm run dev
    proxy: Object.fromEntries(
      ['/api', '/tiles'].map((path) => [
        path,
        { target: process.env['SOVEREIGN_NODE'] ?? 'https://localhost:8443', secure: false, changeOrigin: true },
      ]),
    ),
  },
});
