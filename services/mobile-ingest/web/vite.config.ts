import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { brotliCompressSync } from 'node:zlib';
import { quantize } from 'topojson-client';
import type { GeometryCollection, Topology, Transform } from 'topojson-specification';
import { defineConfig, type Plugin } from 'vite';

/** Cells along each side of the grid that the base map lies on: at most 2 km wide, where a line at 1:50 million is 5. */
const BASE_MAP_CELLS = 2e4;

type Atlas = Topology<{ countries: GeometryCollection<{ name: string }> }> & { transform: Transform; bbox: [number, number, number, number] };

/** Countries of Natural Earth on a coarser grid than the package has, which saves a third of what they weigh. */
function countries(): string {
  const atlas = createRequire(import.meta.url).resolve('world-atlas/countries-50m.json');
  const { transform, arcs, bbox, objects } = JSON.parse(readFileSync(atlas, 'utf8')) as Atlas;
  const [[width, height], [west, south]] = [transform.scale, transform.translate];
  const places = arcs.map((arc) => {
    let [column, row] = [0, 0];
    return arc.map(([right = 0, up = 0]) => [(column += right) * width + west, (row += up) * height + south]);
  });
  const kept = { type: 'Topology' as const, bbox, arcs: places, objects: { countries: objects.countries } };
  return JSON.stringify(quantize(kept, BASE_MAP_CELLS));
}

/** `virtual:base-map` is the address of the base map. */
function baseMap(): Plugin {
  const id = '\0base-map';
  let serving = false;
  return {
    name: 'base-map',
    configResolved: ({ command }) => {
      serving = command === 'serve';
    },
    resolveId: (name) => (name === 'virtual:base-map' ? id : null),
    load(name) {
      if (name !== id) return null;
      const source = countries();
      if (serving) return `export default ${JSON.stringify(`data:application/json,${encodeURIComponent(source)}`)}`;
      return `export default import.meta.ROLLUP_FILE_URL_${this.emitFile({ type: 'asset', name: 'countries.json', source })}`;
    },
  };
}

/** Beside each text that keeps its name, the same packed: once here, and better than there is time for in an answer. */
function packed(): Plugin {
  return {
    name: 'packed',
    apply: 'build',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        for (const [fileName, file] of Object.entries(bundle)) {
          if (!/^assets\/.*\.(js|mjs|css|json)$/.test(fileName)) continue;
          const source = brotliCompressSync(file.type === 'chunk' ? file.code : file.source);
          this.emitFile({ type: 'asset', fileName: `${fileName}.br`, source });
        }
      },
    },
  };
}

// The edge serves `assets/` as immutable, so every name there carries a hash; everything is a file of our own
// origin (no inlined data: URLs), which keeps the content security policy short.
export default defineConfig({
  plugins: [baseMap(), packed()],
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
