// What people do with the page, in a headless Chromium: node flows.mjs FLOW URL MODULES [PICTURES]
//
// MODULES is the folder with node_modules. What was seen is written as JSON, a line each; the last one is {"done": true, "errors": […]}, with
// what the console said and what axe-core found. A flow that has to wait for the test says {"wait": "what"} and goes on with the next line of
// its input. With PICTURES, a folder, each view is kept as a picture.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import path from 'node:path';

const [flow, base, modules, pictures] = process.argv.slice(2);
const require = createRequire(path.join(modules, 'x.js'));
const { chromium } = require('playwright-core');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--autoplay-policy=no-user-gesture-required'] });
const tell = (what) => console.log(JSON.stringify(what));
const errors = [];
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const wait = async (what) => {
  tell({ wait: what });
  await lines.next();
};
const LIMIT = { timeout: 30000 };

async function open(size = { width: 1440, height: 900 }) {
  // axe is no part of the page.
  const context = await browser.newContext({ viewport: size, bypassCSP: true, reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.on('console', (message) => {
    // What is refused on purpose, or while nobody answers, browsers say by themselves.
    if (message.type() === 'error' && !/Failed to load resource|ERR_CONNECTION_REFUSED/.test(message.text())) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.message));
  return page;
}

/** Whether what is shown can be used by everybody, and looks as it should to those who look. */
async function look(page, name) {
  await page.addScriptTag({ path: require.resolve('axe-core/axe.min.js') });
  const found = await page.evaluate(() => globalThis.axe.run());
  for (const { id, nodes } of found.violations) errors.push(`${name}: axe ${id}: ${nodes[0].html.slice(0, 200)}`);
  // Nothing is wider than the window.
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  if (wide > room) errors.push(`${name}: ${wide} pixels wide in ${room}`);
  if (pictures) await page.screenshot({ path: path.join(pictures, `${name}.png`) });
}

const tiles = (page) => page.$$eval('.tile', (all) => all.map((tile) => tile.dataset.id));
const plays = (page, id) => page.waitForSelector(`.tile[data-id="${id}"][data-playing="true"]`, LIMIT);
const signIn = async (page, name, password) => {
  await page.fill('input[name=username]', name);
  await page.fill('input[name=password]', password);
  await page.click('form button');
};

const flows = {
  async wall() {
    for (const [name, width, height] of [['desktop', 1440, 900], ['phone', 390, 844], ['4k', 3840, 2160]]) {
      const page = await open({ width, height });
      let bytes = 0;
      page.on('response', async (response) => {
        if (/\/(page\/.*)?$/.test(response.url())) bytes += Number((await response.allHeaders())['content-length'] ?? 0);
      });
      const begun = Date.now();
      await page.goto(base);
      await plays(page, 'ball');
      tell({ size: name, firstPictureMs: Date.now() - begun, tiles: await tiles(page), bytes });
      await page.waitForSelector('.tile[data-id="dead"][data-state="backoff"]', LIMIT);
      tell({ dead: await page.textContent('.tile[data-id="dead"] .why'), light: await page.getAttribute('.tile[data-id="ball"] .light', 'aria-label') });
      await look(page, `wall-${name}`);
      await page.context().close();
    }
    // By the keyboard: one tile goes before another, and it is remembered.
    const page = await open();
    await page.goto(base);
    await plays(page, 'ball');
    await page.focus('.tile[data-id="ball"] a');
    await page.keyboard.press('Alt+ArrowRight');
    const moved = await tiles(page);
    await page.reload();
    await plays(page, 'ball');
    tell({ moved, kept: await tiles(page) });
    await page.fill('input[type=search]', 'dea');
    tell({ searched: await tiles(page) });
    await page.fill('input[type=search]', '');
    await page.selectOption('.bar label select', '1');
    tell({ one: await tiles(page), pager: await page.textContent('.pager') });
    await page.click('button[aria-label="Next page"]');
    tell({ next: await tiles(page) });
  },

  async stream() {
    const page = await open();
    await page.goto(base);
    await plays(page, 'ball');
    await page.click('.tile[data-id="ball"]');
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await page.getByRole('button', { name: 'Pause recording' }).click();
    await page.getByRole('button', { name: 'Resume recording' }).waitFor(LIMIT);
    await wait('paused');
    await page.getByRole('button', { name: 'Resume recording' }).click();
    await page.getByRole('button', { name: 'Pause recording' }).waitFor(LIMIT);
    await wait('resumed');
    await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1, null, LIMIT);
    await page.waitForFunction(() => document.querySelector('.chart polyline')?.getAttribute('points')?.includes(' '), null, LIMIT);
    tell({
      facts: await page.textContent('.facts'),
      addresses: await page.$$eval('.addresses code', (all) => all.map((code) => code.textContent)),
      events: await page.$$eval('.events b', (all) => all.map((b) => b.textContent)),
    });
    await look(page, 'stream-desktop');
    await page.setViewportSize({ width: 390, height: 844 });
    await look(page, 'stream-phone');
    await page.setViewportSize({ width: 3840, height: 2160 });
    await look(page, 'stream-4k');
    // The session is ended by hand, and the player comes back by itself.
    await page.setViewportSize({ width: 1440, height: 900 });
    await page.getByRole('button', { name: /End the session/ }).click();
    await wait('ended');
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await page.goto(`${base}#/stream/none`);
    await page.getByText('There is no stream "none"').waitFor(LIMIT);
    await page.goto(`${base}#/stream/${encodeURIComponent('<img src=x onerror=alert(1)>')}`);
    await page.getByText('There is no stream "<img').waitFor(LIMIT);
  },

  async signin() {
    const page = await open();
    await page.goto(base);
    await page.waitForSelector('form', LIMIT);
    await look(page, 'signin-desktop');
    await signIn(page, 'vic', 'wrong');
    await page.getByText('Name or password is wrong.').waitFor(LIMIT);
    await signIn(page, 'vic', 'of vic');
    await plays(page, 'yard/a');
    tell({ tiles: await tiles(page), who: await page.textContent('.who') });
    await page.click('.tile[data-id="yard/a"]');
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    tell({ buttons: await page.$$eval('.actions > *', (all) => all.map((b) => b.textContent)) });
    // Somebody else's stream is none of theirs.
    await page.goto(`${base}#/stream/house`);
    await page.waitForTimeout(1000);
    tell({ foreign: await page.$$eval('.player[data-playing="true"]', (all) => all.length) });
    await wait('take the user away');
    await page.goto(`${base}#/`);
    await page.waitForSelector('form', LIMIT);
    await signIn(page, 'root', 'of root');
    await plays(page, 'house');
    tell({ all: await tiles(page) });
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.waitForSelector('form', LIMIT);
  },

  async setup() {
    const page = await open();
    await page.goto(base);
    await page.getByRole('button', { name: 'Make the first user' }).click();
    await look(page, 'setup-desktop');
    await signIn(page, 'ann', 'a good password');
    await page.getByRole('button', { name: 'Sign out' }).waitFor(LIMIT);
    tell({ who: await page.textContent('.who') });
  },

  async restart() {
    const page = await open();
    await page.goto(base);
    await plays(page, 'ball');
    await wait('kill the server');
    await page.getByText('The server does not answer.').waitFor(LIMIT);
    await look(page, 'offline-desktop');
    await wait('start it again');
    await page.getByText('The server does not answer.').waitFor({ state: 'hidden', ...LIMIT });
    await plays(page, 'ball');
    await page.waitForFunction(() => (document.querySelector('video')?.currentTime ?? 0) > 0, null, LIMIT);
  },

  // 500 streams and names as long as they may be.
  async many() {
    const page = await open();
    await page.goto(base);
    await page.waitForFunction(() => document.querySelectorAll('.tile').length === 500, null, LIMIT);
    const before = await page.evaluate(() => performance.now());
    const long = await page.evaluate(async () => {
      let blocked = 0;
      new PerformanceObserver((list) => list.getEntries().forEach((entry) => (blocked += entry.duration))).observe({ type: 'longtask' });
      for (let y = 0; y < document.body.scrollHeight; y += 600) {
        scrollTo(0, y);
        await new Promise((done) => requestAnimationFrame(done));
      }
      return blocked;
    });
    tell({ scrolledMs: (await page.evaluate(() => performance.now())) - before, longTasksMs: long });
    await page.evaluate(() => scrollTo(0, 0));
    await look(page, 'many-desktop');
  },
};

try {
  await flows[flow]();
} catch (error) {
  errors.push(String(error?.stack ?? error));
}
await browser.close();
tell({ done: true, errors });
process.exit(0);
