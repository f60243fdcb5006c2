// Opens the console in headless Chromium while a flight is on, and asserts what a person would see: the link is
// live, tiles appear (by count and by pixels), a marker moves, latency is a number, simulated data says so,
// nothing is logged as an error, and nothing is asked of another origin. Keeps screenshots.
import { access, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const HELP = `usage: node run.mjs URL OUTPUT_DIR [--timeout SECS] [--simulated] [--json]

  URL           where the console is, such as https://localhost:8443/
  OUTPUT_DIR    folder for console-desktop.png and console-phone.png, made when missing
  --timeout     limit of each wait in seconds (default 90)
  --simulated   the data is simulated: assert that the page says so
  --json        the last line is one JSON object

The browser is the one that CHROMIUM names, else Chromium or Chrome of this machine, else the driver's own.`;

const FLAGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--ignore-certificate-errors',
];
const BROWSERS = ['/usr/bin/chromium', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable', '/snap/bin/chromium'];
/** Hides all but the map's canvas. */
const ONLY_THE_MAP = '.card, .simulated, .corner, .credits, .sensor, .maplibregl-control-container { visibility: hidden !important; }';
/** A pixel that differs by more than this in a channel from the most common colour holds something. */
const CHANNEL_DIFFERENCE = 24;
/** Imagery must add at least this share of the map's pixels. */
const IMAGERY_SHARE = 0.02;
/** A marker has moved when it is this far from where it was, in degrees (about a metre) and pixels. */
const MOVED_DEG = 1e-5;
const MOVED_PX = 1;
/** Tiles have settled when their number has not changed for so long. */
const SETTLED_MS = 3_000;

class Failed extends Error {}

function check(condition, sentence) {
  if (!condition) throw new Failed(sentence);
}

async function eventually(limitMs, sentence, probe) {
  const end = Date.now() + limitMs;
  let last;
  do {
    last = await probe();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 200));
  } while (Date.now() < end);
  throw new Failed(`${sentence} within ${limitMs / 1000} s`);
}

async function findBrowser() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const candidate of [...BROWSERS, chromium.executablePath()]) {
    try {
      await access(candidate);
      return candidate;
    } catch {
      // The next one, then.
    }
  }
  throw new Failed('no Chromium was found: install chromium, or name one with CHROMIUM=/path/to/chromium');
}

/** A node that is busy says so with these, and the page asks again: that is no error of the page. */
const BUSY = /Failed to load resource.*status of (503|504)/;

/** Notes what must not happen on a page: errors, and requests to other origins. */
function watch(page, origin) {
  const seen = { errors: [], foreign: [] };
  page.on('console', (message) => {
    if (message.type() === 'error' && !BUSY.test(message.text())) {
      seen.errors.push(`${message.text()} (${message.location().url})`);
    }
  });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('request', (request) => {
    const { protocol, origin: to } = new URL(request.url());
    if (protocol !== 'blob:' && protocol !== 'data:' && to !== origin) seen.foreign.push(request.url());
  });
  page.on('websocket', (socket) => seen.foreign.push(socket.url()));
  return seen;
}

const dataset = (page) => page.evaluate(() => ({ ...document.documentElement.dataset }));

/** Share of the map's pixels that are not of the most common colour; decoded by the browser on a blank page. */
async function shareWithContent(page, decoder) {
  const png = await page.screenshot({ style: ONLY_THE_MAP, animations: 'disabled' });
  return decoder.evaluate(
    async ([base64, difference]) => {
      const blob = new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type: 'image/png' });
      const bitmap = await createImageBitmap(blob);
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
      context.drawImage(bitmap, 0, 0);
      const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
      const counts = new Map();
      for (let i = 0; i < data.length; i += 4) {
        const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
        counts.set(colour, (counts.get(colour) ?? 0) + 1);
      }
      const [ground] = [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
      const channels = [ground >> 16, (ground >> 8) & 255, ground & 255];
      let different = 0;
      for (let i = 0; i < data.length; i += 4) {
        if (channels.some((value, c) => Math.abs(data[i + c] - value) > difference)) different += 1;
      }
      return different / (data.length / 4);
    },
    [png.toString('base64'), CHANNEL_DIFFERENCE],
  );
}

/** Waits until no further tile has been loaded for a while. */
async function settled(page, limitMs) {
  let [count, since] = [0, Date.now()];
  await eventually(limitMs, 'the tiles did not settle', async () => {
    const now = Number((await dataset(page)).tiles);
    if (now !== count) [count, since] = [now, Date.now()];
    return count > 0 && Date.now() - since > SETTLED_MS;
  });
  return count;
}

const positions = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll('[data-sensor-id]')].map((marker) => {
        const { x, y } = marker.getBoundingClientRect();
        return [marker.dataset.sensorId, { lng: Number(marker.dataset.lng), lat: Number(marker.dataset.lat), x, y }];
      }),
    ),
  );

/** The name of a marker that is elsewhere than before, on the Earth and on the screen. */
function moved(before, after) {
  return Object.keys(after).find((id) => {
    const [a, b] = [before[id], after[id]];
    if (!a) return false;
    const onEarth = Math.max(Math.abs(a.lng - b.lng), Math.abs(a.lat - b.lat)) > MOVED_DEG;
    return onEarth && Math.hypot(a.x - b.x, a.y - b.y) > MOVED_PX;
  });
}

async function desktop(browser, url, options) {
  const { limitMs, simulated, output } = options;
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: 'dark', ignoreHTTPSErrors: true });
  context.setDefaultTimeout(limitMs);
  const decoder = await context.newPage();
  const page = await context.newPage();
  const seen = watch(page, new URL(url).origin);
  await page.goto(url);
  await eventually(limitMs, 'the link did not become live', async () => (await dataset(page)).link === 'live');
  await eventually(limitMs, 'no marker appeared', async () => Number((await dataset(page)).markers) > 0);
  const before = await positions(page);
  const mover = await eventually(limitMs, 'no marker moved', async () => moved(before, await positions(page)));
  await eventually(limitMs, 'no tile with content was loaded', async () => Number((await dataset(page)).tiles) > 0);
  await eventually(limitMs, 'the latency showed no number', async () => {
    const [p50, p99] = await Promise.all(['#p50', '#p99'].map((id) => page.textContent(id)));
    return /^\d.* m?s$/.test(p50) && /^\d.* m?s$/.test(p99);
  });
  if (simulated) check(await page.isVisible('#simulated'), 'the data is simulated and the page does not say so');

  // The same page with all tiles withheld shows what is on the map without imagery.
  const bare = await context.newPage();
  await bare.route(/\/tiles\/imagery\/\d+\//, (route) => route.fulfill({ status: 204 }));
  await bare.goto(url);
  await eventually(limitMs, 'no marker appeared without tiles', async () => Number((await dataset(bare)).markers) > 0);
  check(Number((await dataset(bare)).tiles) === 0, 'the page counts tiles that it was not given');
  let share = 0;
  let bareShare = 0;
  await eventually(limitMs, 'the tiles did not change what the map shows', async () => {
    await page.bringToFront();
    share = await shareWithContent(page, decoder);
    await bare.bringToFront();
    bareShare = await shareWithContent(bare, decoder);
    return share - bareShare >= IMAGERY_SHARE;
  });
  await bare.close();
  await page.bringToFront();
  const tiles = await settled(page, limitMs);
  await page.locator('#fleet button', { hasText: mover }).click();
  await eventually(limitMs, 'the details of a chosen vehicle did not open', async () => page.isVisible('#selection'));
  await page.screenshot({ path: path.join(output, 'console-desktop.png') });
  await context.close();
  return { seen, mover, tiles, share, bareShare };
}

async function phone(browser, url, { limitMs, output }) {
  const context = await browser.newContext({
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
    colorScheme: 'light',
    ignoreHTTPSErrors: true,
  });
  context.setDefaultTimeout(limitMs);
  const page = await context.newPage();
  const seen = watch(page, new URL(url).origin);
  await page.goto(url);
  await eventually(limitMs, 'no tile was loaded on a phone', async () => Number((await dataset(page)).tiles) > 0);
  check(!(await page.isVisible('#fleet')), 'the sheet is open before anyone opened it');
  await settled(page, limitMs);
  await page.screenshot({ path: path.join(output, 'console-phone.png') });
  await page.tap('#sheet');
  await eventually(limitMs, 'the sheet did not open', () => page.isVisible('#fleet'));
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  check(!wide, 'the page is wider than a phone');
  await context.close();
  return seen;
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      timeout: { type: 'string', default: '90' },
      simulated: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const [url, output] = positionals;
  const limitMs = Number(values.timeout) * 1000;
  if (!url || !output || !(limitMs > 0)) {
    console.error(HELP);
    process.exitCode = 2;
    return;
  }
  await mkdir(output, { recursive: true });
  const browser = await chromium.launch({ executablePath: await findBrowser(), args: FLAGS });
  try {
    const options = { limitMs, output, simulated: values.simulated };
    const large = await desktop(browser, url, options);
    const small = await phone(browser, url, options);
    const errors = [...large.seen.errors, ...small.errors];
    const foreign = [...large.seen.foreign, ...small.foreign];
    check(errors.length === 0, `the console logged errors: ${errors.join('; ')}`);
    check(foreign.length === 0, `the page asked other origins: ${foreign.join(', ')}`);
    const { tiles, mover, share, bareShare } = large;
    const percent = (value) => `${(100 * value).toFixed(1)} %`;
    console.log(
      values.json
        ? JSON.stringify({ tiles, moved: mover, map_share: share, map_share_without_tiles: bareShare, output })
        : `passed: ${tiles} tiles, ${mover} moved, imagery on ${percent(share - bareShare)} of the window; screenshots in ${output}`,
    );
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error instanceof Failed ? `failed: ${error.message}` : error);
  process.exitCode = 1;
});
