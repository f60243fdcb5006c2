// Opens a page of another site that shows the map with MapLibre, then with OpenLayers, from the TileJSON alone, and
// asserts that both draw it. The site exists only inside the browser.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { check, eventually, run } from './page.mjs';

const USAGE = `usage: node maps.mjs TILEJSON SITE OTHER_SITE [--timeout SECS] [--json]

  TILEJSON      address of the layer, such as https://localhost:8443/tiles/imagery
  SITE          origin in the node's cors_origins, such as https://maps.example
  OTHER_SITE    origin that is not, and has to be kept out`;

const require = createRequire(import.meta.url);
const folderOf = (name) => path.dirname(require.resolve(`${name}/package.json`));
const FILES = Object.fromEntries(
  [
    ...['maplibre-gl', 'maplibre-gl-shared', 'maplibre-gl-worker'].map((name) => ['maplibre-gl', `${name}.mjs`]),
    ['ol', 'ol.js'],
  ].map(([name, file]) => [`/${file}`, path.join(folderOf(name), 'dist', file)]),
);

const PAGES = {
  '/maplibre': `<script type="module">
    import * as maplibregl from '/maplibre-gl.mjs';
    fetch(TILEJSON).then((answer) => answer.json()).then(({ center }) => {
      const map = new maplibregl.Map({
        container: 'map',
        center: center.slice(0, 2),
        zoom: center[2],
        canvasContextAttributes: { preserveDrawingBuffer: true },
        style: { version: 8, sources: { imagery: { type: 'raster', url: TILEJSON, tileSize: 256 } }, layers: [{ id: 'imagery', type: 'raster', source: 'imagery' }] },
      });
      map.on('idle', () => { document.title = 'drawn'; });
      map.on('error', ({ error }) => { document.title = 'failed: ' + error.message; });
    }).catch((error) => { document.title = 'failed: ' + error.message; });
  </script>`,
  '/openlayers': `<script src="/ol.js"></script><script>
    fetch(TILEJSON).then((answer) => answer.json()).then(({ center }) => {
      const source = new ol.source.TileJSON({ url: TILEJSON, crossOrigin: 'anonymous' });
      const map = new ol.Map({
        target: 'map',
        layers: [new ol.layer.Tile({ source })],
        view: new ol.View({ center: ol.proj.fromLonLat(center.slice(0, 2)), zoom: center[2] }),
      });
      map.on('rendercomplete', () => { if (source.getState() === 'ready') document.title = 'drawn'; });
    }).catch((error) => { document.title = 'failed: ' + error.message; });
  </script>`,
};

/** Pages of a site that this browser alone knows. */
async function serve(context, site, tileJson) {
  await context.route(`${site}/**`, async (route) => {
    const { pathname } = new URL(route.request().url());
    if (pathname in FILES) return route.fulfill({ contentType: 'text/javascript', body: await readFile(FILES[pathname]) });
    if (!(pathname in PAGES)) return route.fulfill({ status: 204 });
    const body = `<!doctype html><style>#map { width: 512px; height: 512px }</style><div id="map"></div>
      <script>const TILEJSON = ${JSON.stringify(tileJson)};</script>${PAGES[pathname]}`;
    return route.fulfill({ contentType: 'text/html', body });
  });
}

/** Share of what the page drew that is not empty; reading it at all takes leave of the tiles' origin. */
const drawn = (page) =>
  page.evaluate(() => {
    const context = new OffscreenCanvas(512, 512).getContext('2d');
    for (const canvas of document.querySelectorAll('#map canvas')) context.drawImage(canvas, 0, 0, 512, 512);
    const { data } = context.getImageData(0, 0, 512, 512);
    let filled = 0;
    for (let i = 3; i < data.length; i += 4) filled += data[i] > 0 ? 1 : 0;
    return filled / (data.length / 4);
  });

await run({
  usage: USAGE,
  least: 3,
  look: async (browser, [tileJson, site, otherSite], { limitMs }) => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    context.setDefaultTimeout(limitMs);
    await serve(context, site, tileJson);
    await serve(context, otherSite, tileJson);
    const shares = {};
    for (const pathname of Object.keys(PAGES)) {
      const page = await context.newPage();
      await page.goto(site + pathname);
      const title = await eventually(limitMs, `${pathname} drew nothing`, () => page.title());
      check(title === 'drawn', `${pathname} ${title}`);
      shares[pathname.slice(1)] = await eventually(limitMs, `${pathname} shows no tile`, async () => {
        const share = await drawn(page);
        return share > 0.02 && share;
      });
      await page.close();
      const stranger = await context.newPage();
      await stranger.goto(otherSite + pathname);
      const kept = await eventually(limitMs, `${pathname} of another site got no answer`, () => stranger.title());
      check(kept.startsWith('failed'), `${pathname} of a site that is not in cors_origins could read the map`);
      await stranger.close();
    }
    return {
      sentence: Object.entries(shares).map(([name, share]) => `${name} filled ${(100 * share).toFixed(0)} %`).join(', '),
      figures: shares,
    };
  },
});
