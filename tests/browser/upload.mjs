// Gives pictures to the console as a person does: drops them onto the page, says the access token once, and reads the
// verdict on each. Then opens the page again and drops the same pictures: none is sent twice.
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { check, checkClean, dataset, eventually, run, watch } from './page.mjs';

const USAGE = `usage: node upload.mjs URL TOKEN_FILE OUTPUT_DIR PICTURE... [--timeout SECS] [--json]

  URL           where the console is, such as https://localhost:8443/
  TOKEN_FILE    the file that holds the access token
  OUTPUT_DIR    folder for console-upload.png, made when missing
  PICTURE       files to drop`;

/** Drops files onto the page, as a folder that is dragged onto it arrives. */
async function drop(page, files) {
  const pictures = await Promise.all(
    files.map(async (file) => ({ name: path.basename(file), base64: (await readFile(file)).toString('base64') })),
  );
  await page.evaluate((pictures) => {
    const transfer = new DataTransfer();
    for (const { name, base64 } of pictures) {
      const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      transfer.items.add(new File([bytes], name, { type: name.endsWith('.jpg') ? 'image/jpeg' : '' }));
    }
    const at = document.querySelector('#map');
    for (const type of ['dragover', 'drop']) {
      at.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
    }
  }, pictures);
}

const verdicts = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll('#upload-list li')].map((item) => [
        item.querySelector('b').textContent,
        { outcome: item.dataset.outcome ?? null, note: item.querySelector('.note').textContent },
      ]),
    ),
  );

/** The verdicts, once every picture has one. */
function settled(page, files, limitMs) {
  return eventually(limitMs, 'not every picture got its verdict', async () => {
    const seen = await verdicts(page);
    const outcomes = Object.values(seen).map(({ outcome }) => outcome);
    return outcomes.length === files.length && outcomes.every(Boolean) && seen;
  });
}

await run({
  usage: USAGE,
  least: 4,
  look: async (browser, [url, tokenFile, output, ...files], { limitMs }) => {
    await mkdir(output, { recursive: true });
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ignoreHTTPSErrors: true });
    context.setDefaultTimeout(limitMs);
    const page = await context.newPage();
    const seen = watch(page, new URL(url).origin);
    const sent = [];
    page.on('request', (request) => {
      if (request.method() === 'POST' && request.url().endsWith('/captures')) sent.push(request.url());
    });
    const opened = async () => {
      await page.goto(url);
      await eventually(limitMs, 'the link did not become live', () =>
        page.evaluate(() => document.documentElement.dataset.link === 'live'),
      );
    };
    await opened();
    await drop(page, files);
    await eventually(limitMs, 'the page did not ask for the access token', () => page.isVisible('#token'));
    await page.fill('#token', 'not the token of this node');
    await page.keyboard.press('Enter');
    await eventually(limitMs, 'the page did not say that the token is wrong', async () =>
      /does not know/.test((await page.textContent('#login-error')) ?? ''),
    );
    await page.fill('#token', (await readFile(tokenFile, 'utf8')).trim());
    await page.keyboard.press('Enter');
    const first = await settled(page, files, limitMs);
    await eventually(limitMs, 'no tile of the pictures was shown', async () => Number((await dataset(page)).tiles) > 0);
    await page.screenshot({ path: path.join(output, 'console-upload.png') });

    sent.length = 0;
    await opened();
    await drop(page, files);
    const refused = Object.values(first).filter(({ outcome }) => outcome === 'refused').length;
    const known = Object.keys(first).length - refused;
    await eventually(limitMs, 'what was sent before was not recognised', async () => {
      const again = Object.values(await verdicts(page));
      return again.filter(({ outcome }) => outcome === 'placed' || outcome === 'waiting').length === known;
    });
    check(sent.length === 0, `${sent.length} pictures were sent again`);
    // What the node refused is an answer of it, which the browser logs as an error.
    seen.errors = seen.errors.filter((error) => !/status of 4\d\d/.test(error));
    checkClean(seen);
    return {
      sentence: Object.entries(first).map(([name, { outcome, note }]) => `${name} ${outcome} (${note})`).join('; '),
      figures: first,
    };
  },
});
