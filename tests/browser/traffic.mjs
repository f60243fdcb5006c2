// Counts what the console costs of a link while a flight is on: the first load, then some minutes of watching, then
// the same page in a tab that nobody looks at, and the page again over a thin link.
import { createServer, connect } from 'node:net';
import { check, checkClean, dataset, eventually, markers, moved, run, watch } from './page.mjs';

const USAGE = `usage: node traffic.mjs URL [--seconds SECS] [--timeout SECS] [--json]

  URL           where the console is, such as https://localhost:8443/
  --seconds     how long the page is watched (default 60)`;

const MB = 1_000_000;
/** What the page itself may cost: all but tiles and the state of the node. */
const FIRST_LOAD_BYTES = 0.6 * MB;
/** What five minutes may cost, the first load included. */
const FIVE_MINUTES_BYTES = 25 * MB;
/** A tab that is looked at no more may cost this share of what it costs when it is looked at. */
const HIDDEN_SHARE = 0.05;
/** The page has this long to notice that nobody looks. */
const HIDE_MS = 15_000;
const HIDDEN_MS = 10_000;
/** All has arrived when nothing more does for so long. */
const SETTLED_MS = 3_000;
/** A thin link, as a phone has it in the field: 1.6 Mbit/s down, 0.75 up, 300 ms. */
const THIN = { offline: false, latency: 300, downloadThroughput: 1.6e6 / 8, uploadThroughput: 0.75e6 / 8 };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A way to the node that counts all that comes back, whichever part of the browser asked. */
async function meter(url) {
  const { hostname, port } = new URL(url);
  const counted = { bytes: 0, url: '' };
  const server = createServer((client) => {
    const node = connect(Number(port), hostname);
    node.on('data', (chunk) => {
      counted.bytes += chunk.length;
    });
    client.pipe(node).pipe(client);
    for (const end of [client, node]) {
      end.on('error', () => {
        client.destroy();
        node.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  // It must not keep a script that has failed.
  server.unref();
  counted.url = `https://localhost:${server.address().port}/`;
  return counted;
}

/** What the page costs before the node says anything: script, style, font and base map. */
async function firstLoad(browser, link, limitMs) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  await context.route(/\/(api|tiles)\//, (route) => route.fulfill({ status: 503 }));
  const page = await context.newPage();
  const before = link.bytes;
  await page.goto(link.url);
  let [bytes, since] = [0, Date.now()];
  await eventually(limitMs, 'the page did not come to an end', () => {
    if (link.bytes !== bytes) [bytes, since] = [link.bytes, Date.now()];
    return Date.now() - since > SETTLED_MS;
  });
  await context.close();
  return link.bytes - before;
}

/** What the page sees when its tab is hidden. */
async function hide(page) {
  await page.evaluate(() => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => 'hidden' });
    document.dispatchEvent(new Event('visibilitychange'));
  });
}

async function show(page) {
  await page.evaluate(() => {
    delete document.hidden;
    delete document.visibilityState;
    document.dispatchEvent(new Event('visibilitychange'));
  });
}

const live = (page, limitMs) => eventually(limitMs, 'the link did not become live', async () => (await dataset(page)).link === 'live');
const tilesShown = (page, limitMs) =>
  eventually(limitMs, 'no tile was loaded', async () => Number((await dataset(page)).tiles) > 0);

await run({
  usage: USAGE,
  least: 1,
  flags: { seconds: { type: 'string', default: '60' } },
  look: async (browser, [url], { seconds, limitMs }) => {
    const link = await meter(url);
    const firstBytes = await firstLoad(browser, link, limitMs);
    check(firstBytes > 0, 'the first load was not counted');
    check(firstBytes <= FIRST_LOAD_BYTES, `the first load cost ${mb(firstBytes)}, more than ${mb(FIRST_LOAD_BYTES)}`);

    const watchedMs = Number(seconds) * 1000;
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ignoreHTTPSErrors: true });
    context.setDefaultTimeout(limitMs);
    const page = await context.newPage();
    const seen = watch(page, new URL(link.url).origin);
    const start = link.bytes;
    const opened = Date.now();
    await page.goto(link.url);
    await live(page, limitMs);
    await tilesShown(page, limitMs);
    await pause(watchedMs - (Date.now() - opened));
    const watchedBytes = link.bytes - start;
    const allowed = (FIVE_MINUTES_BYTES * watchedMs) / 300_000;
    check(watchedBytes <= allowed, `${seconds} s cost ${mb(watchedBytes)}, more than ${mb(allowed)}`);

    await hide(page);
    await pause(HIDE_MS);
    const before = link.bytes;
    await pause(HIDDEN_MS);
    const hiddenBytes = link.bytes - before;
    const visibleBytes = ((watchedBytes - firstBytes) * HIDDEN_MS) / watchedMs;
    check(hiddenBytes <= HIDDEN_SHARE * visibleBytes, `a hidden tab cost ${hiddenBytes} bytes where a visible one costs ${mb(visibleBytes)}`);
    await show(page);
    await live(page, limitMs);
    await context.close();

    const thin = await browser.newContext({ viewport: { width: 390, height: 844 }, ignoreHTTPSErrors: true });
    thin.setDefaultTimeout(limitMs);
    const far = await thin.newPage();
    const farSeen = watch(far, new URL(link.url).origin);
    const session = await thin.newCDPSession(far);
    await session.send('Network.emulateNetworkConditions', THIN);
    const asked = Date.now();
    await far.goto(link.url);
    await live(far, limitMs);
    const liveAfter = Date.now() - asked;
    await tilesShown(far, limitMs);
    const tilesAfter = Date.now() - asked;
    const were = await eventually(limitMs, 'no marker appeared on a thin link', async () => {
      const now = await markers(far);
      return Object.keys(now).length > 0 && now;
    });
    await eventually(limitMs, 'no marker moved on a thin link', async () => moved(were, await markers(far)));
    checkClean(seen, farSeen);
    return {
      sentence:
        `first load ${mb(firstBytes)}; ${seconds} s ${mb(watchedBytes)}; hidden ${mb(hiddenBytes)} in 10 s; ` +
        `thin link live after ${liveAfter} ms, tiles after ${tilesAfter} ms`,
      figures: {
        seconds: Number(seconds),
        first_load_bytes: firstBytes,
        watched_bytes: watchedBytes,
        hidden_bytes_10_s: hiddenBytes,
        thin_live_ms: liveAfter,
        thin_tiles_ms: tilesAfter,
      },
    };
  },
});

function mb(bytes) {
  return `${(bytes / MB).toFixed(2)} MB`;
}
