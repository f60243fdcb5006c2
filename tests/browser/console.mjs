// Opens the console in headless Chromium while a flight is on, and asserts what a person would see: the link is
// live, tiles appear (by count and by pixels), a marker moves, latency is a number, simulated data says so,
// nothing is logged as an error, and nothing is asked of another origin. Keeps screenshots.
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { check, checkClean, dataset, eventually, markers, moved, run, watch } from './page.mjs';

const USAGE = `usage: node console.mjs URL OUTPUT_DIR [--timeout SECS] [--simulated] [--json]

  URL           where the console is, such as https://localhost:8443/
  OUTPUT_DIR    folder for console-desktop.png and console-phone.png, made when missing
  --simulated   the data is simulated: assert that the page says so`;

/** Hides all but the map's canvas. */
const ONLY_THE_MAP = '.card, .simulated, .corner, .credits, .sensor, .maplibregl-control-container { visibility: hidden !important; }';
/** A pixel that differs by more than this in a channel from the most common colour holds something. */
const CHANNEL_DIFFERENCE = 24;
/** Imagery must add at least this share of the map's pixels. */
const IMAGERY_SHARE = 0.02;
/** Tiles have settled when their number has not changed for so long. */
const SETTLED_MS = 3_000;

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

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

/** Fails on what keeps a person with a screen reader, a keyboard or weak eyes from using the page (WCAG 2.2 A and AA). */
async function checkAccess(page, where) {
  // The page lets no script in but its own, so the checker comes through the debugger.
  await page.evaluate(await readFile(AXE, 'utf8'));
  const violations = await page.evaluate(async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
    const { violations } = await globalThis.axe.run(document, { runOnly: tags, resultTypes: ['violations'] });
    return violations.map(({ id, help, nodes }) => `${id} (${help}): ${nodes.map(({ html }) => html).join(' ')}`);
  });
  check(violations.length === 0, `${where} is not accessible: ${violations.join('; ')}`);
}

/** Chooses a vehicle and follows it without a mouse: from the skip link into the list. */
async function byKeyboard(page, limitMs, id) {
  await page.evaluate(() => document.activeElement.blur());
  const focused = () => page.evaluate(() => document.activeElement?.textContent ?? '');
  await page.keyboard.press('Tab');
  check((await focused()).startsWith('Skip'), 'the first stop of the Tab key is not the link to the panel');
  await page.keyboard.press('Enter');
  for (let stop = 0; !(await page.evaluate((wanted) => {
    const { activeElement } = document;
    return activeElement?.closest('#fleet') !== null && activeElement.textContent.includes(wanted);
  }, id)); stop += 1) {
    check(stop < 60, `the Tab key does not come to ${id} in the list of vehicles`);
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  await eventually(limitMs, 'Enter on a vehicle did not show its details', () => page.isVisible('#selection'));
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
  const before = await markers(page);
  const mover = await eventually(limitMs, 'no marker moved', async () => moved(before, await markers(page)));
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
  await byKeyboard(page, limitMs, mover);
  await checkAccess(page, 'the desktop page');
  await eventually(limitMs, 'the address does not carry the view', async () =>
    /view=\d/.test(await page.evaluate(() => location.hash)),
  );
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
  await checkAccess(page, 'the phone page');
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  check(!wide, 'the page is wider than a phone');
  await context.close();
  return seen;
}

await run({
  usage: USAGE,
  least: 2,
  flags: { simulated: { type: 'boolean', default: false } },
  look: async (browser, [url, output], options) => {
    await mkdir(output, { recursive: true });
    const large = await desktop(browser, url, { ...options, output });
    const small = await phone(browser, url, { ...options, output });
    checkClean(large.seen, small);
    const { tiles, mover, share, bareShare } = large;
    const percent = (value) => `${(100 * value).toFixed(1)} %`;
    return {
      sentence: `${tiles} tiles, ${mover} moved, imagery on ${percent(share - bareShare)} of the window; screenshots in ${output}`,
      figures: { tiles, moved: mover, map_share: share, map_share_without_tiles: bareShare, output },
    };
  },
});
