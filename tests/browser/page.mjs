// What every script of this folder shares: how it is called, the browser that it opens, and how it waits and checks.
import { access } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // The other site of a test may ask this machine without a person who allows it.
  '--disable-features=LocalNetworkAccessChecks',
  '--ignore-certificate-errors',
];
const BROWSERS = ['/usr/bin/chromium', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable', '/snap/bin/chromium'];
const HELP = `  --timeout     limit of each wait in seconds (default 90)
  --json        the last line is one JSON object

The browser is the one that CHROMIUM names, else Chromium or Chrome of this machine, else the driver's own.`;

/** A marker has moved when it is this far from where it was, in degrees (about a metre) and pixels. */
const MOVED_DEG = 1e-5;
const MOVED_PX = 1;

class Failed extends Error {}

export function check(condition, sentence) {
  if (!condition) throw new Failed(sentence);
}

export async function eventually(limitMs, sentence, probe) {
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
export function watch(page, origin) {
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

/** Fails when one of these pages saw what must not happen. */
export function checkClean(...pages) {
  const errors = pages.flatMap((seen) => seen.errors);
  const foreign = pages.flatMap((seen) => seen.foreign);
  check(errors.length === 0, `the console logged errors: ${errors.join('; ')}`);
  check(foreign.length === 0, `the page asked other origins: ${foreign.join(', ')}`);
}

export const dataset = (page) => page.evaluate(() => ({ ...document.documentElement.dataset }));

/** Where each marker is, on the Earth and on the screen. */
export const markers = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll('[data-sensor-id]')].map((marker) => {
        const { x, y } = marker.getBoundingClientRect();
        return [marker.dataset.sensorId, { lng: Number(marker.dataset.lng), lat: Number(marker.dataset.lat), x, y }];
      }),
    ),
  );

/** The name of a marker that is elsewhere than before, on the Earth and on the screen. */
export function moved(before, after) {
  return Object.keys(after).find((id) => {
    const [a, b] = [before[id], after[id]];
    if (!a) return false;
    const onEarth = Math.max(Math.abs(a.lng - b.lng), Math.abs(a.lat - b.lat)) > MOVED_DEG;
    return onEarth && Math.hypot(a.x - b.x, a.y - b.y) > MOVED_PX;
  });
}

/**
 * Runs a script: `look(browser, positionals, options)` gives a sentence for people and an object for machines. A
 * call without `least` positionals prints the usage.
 */
export async function run({ usage, least, flags = {}, look }) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      timeout: { type: 'string', default: '90' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      ...flags,
    },
  });
  const limitMs = Number(values.timeout) * 1000;
  if (values.help || positionals.length < least || !(limitMs > 0)) {
    console.log(`${usage}\n${HELP}`);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  try {
    const browser = await chromium.launch({ executablePath: await findBrowser(), args: FLAGS });
    try {
      const { sentence, figures } = await look(browser, positionals, { ...values, limitMs });
      console.log(values.json ? JSON.stringify(figures) : `passed: ${sentence}`);
    } finally {
      await browser.close();
    }
  } catch (error) {
    console.error(error instanceof Failed ? `failed: ${error.message}` : error);
    process.exitCode = 1;
  }
}
