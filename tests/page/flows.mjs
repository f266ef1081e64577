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

const SIZES = { desktop: { width: 1440, height: 900 }, phone: { width: 390, height: 844 }, '4k': { width: 3840, height: 2160 } };

async function open(size = SIZES.desktop) {
  // axe is no part of the page. Days begin when the tests think they do.
  const context = await browser.newContext({ viewport: size, bypassCSP: true, reducedMotion: 'reduce', timezoneId: 'UTC' });
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

/** The same at each size. */
async function lookAll(page, name) {
  for (const [size, pixels] of Object.entries(SIZES)) {
    await page.setViewportSize(pixels);
    await page.waitForTimeout(300);
    await look(page, `${name}-${size}`);
  }
  await page.setViewportSize(SIZES.desktop);
}

const button = (page, name) => page.getByRole('button', { name, exact: true });
const inDialog = (page, name) => page.getByRole('dialog').getByRole('button', { name, exact: true });
const tiles = (page) => page.$$eval('.tile', (all) => all.map((tile) => tile.dataset.id));
const plays = (page, id) => page.waitForSelector(`.tile[data-id="${id}"][data-playing="true"]`, LIMIT);
const downloaded = async (page) => {
  const link = page.getByRole('link', { name: 'Download' });
  await link.waitFor(LIMIT);
  const [download] = await Promise.all([page.waitForEvent('download', LIMIT), link.click()]);
  return download.path();
};
const signIn = async (page, name, password) => {
  await page.fill('input[name=username]', name);
  await page.fill('input[name=password]', password);
  await page.click('form button');
};

const flows = {
  async wall() {
    for (const [name, pixels] of Object.entries(SIZES)) {
      const page = await open(pixels);
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
    // And in full screen: on to the next tile, which is opened.
    await page.keyboard.press('f');
    await page.waitForFunction(() => document.fullscreenElement?.matches('.grid'), null, LIMIT);
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    const focused = () => page.evaluate(() => document.activeElement?.closest('.tile')?.dataset.id);
    const right = await focused();
    await page.keyboard.press('ArrowLeft');
    const left = await focused();
    await look(page, 'wall-full');
    await page.keyboard.press('f');
    await page.waitForFunction(() => !document.fullscreenElement, null, LIMIT);
    await page.keyboard.press('Enter');
    await page.waitForURL('**/#/stream/dead', LIMIT);
    await page.goBack();
    await plays(page, 'ball');
    tell({ left, right });
    await page.fill('input[type=search]', 'dea');
    tell({ searched: await tiles(page) });
    await page.fill('input[type=search]', '');
    await page.selectOption('.bar label select', '1');
    tell({ one: await tiles(page), pager: await page.textContent('.pager') });
    await page.click('button[aria-label="Next page"]');
    tell({ next: await tiles(page) });
    await page.keyboard.press('PageUp');
    tell({ before: await tiles(page) });
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
    tell({ tiles: await tiles(page), who: await page.textContent('.who'), pages: await page.$$eval('header nav a', (all) => all.map((a) => a.textContent)) });
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

  // A camera dies while it is watched, and comes back.
  async camera() {
    const page = await open();
    await page.goto(base);
    await plays(page, 'eye');
    await wait('the camera dies');
    await page.waitForSelector('.tile[data-id="eye"]:not([data-state="running"])', LIMIT);
    await page.waitForFunction(() => document.querySelector('.tile .why')?.textContent, null, LIMIT);
    tell({ state: await page.textContent('.tile .state'), why: await page.textContent('.tile .why') });
    await look(page, 'wall-dead');
    await page.goto(`${base}#/stream/eye`);
    await page.locator('.why, .player .words').filter({ hasText: /./ }).first().waitFor(LIMIT);
    await look(page, 'stream-dead');
    await page.goto(base);
    await wait('the camera is back');
    await plays(page, 'eye');
    const at = await page.$eval('.tile video', (video) => video.currentTime);
    await page.waitForFunction((before) => (document.querySelector('.tile video')?.currentTime ?? 0) > before, at, LIMIT);
  },

  // Yesterday's event is found, watched, stepped through, exported, protected, deleted.
  async recordings() {
    const page = await open();
    await page.goto(base);
    await page.getByRole('link', { name: 'Recordings' }).click();
    const videos = () => page.$$eval('.replay video', (all) => all.map((video) => ({ at: video.currentTime, ready: video.readyState, rate: video.playbackRate, paused: video.paused })));
    const shown = () => page.waitForFunction(() => [...document.querySelectorAll('.replay video')].every((video) => video.readyState >= 2 && !video.seeking), null, LIMIT);
    const cursor = () => page.$eval('canvas.timeline', (canvas) => Number(canvas.getAttribute('aria-valuenow')));
    // One has perhaps begun a little later than the other.
    await page.waitForFunction(() => [...document.querySelectorAll('.replay video')].some((video) => video.readyState >= 2 && !video.seeking), null, LIMIT);
    await page.click('button[aria-label="Before"]');
    await page.fill('input[aria-label="Search what happened"]', 'LEFT AT');
    await page.getByRole('button', { name: /parcel.*left/ }).click();
    await page.waitForFunction(() => document.querySelectorAll('.happened li').length === 1, null, LIMIT);
    await shown();
    tell({ found: await page.textContent('.happened li'), at: await cursor(), players: await page.$$eval('.replay', (all) => all.map((one) => one.dataset.id)) });
    await lookAll(page, 'recordings');
    // One picture on and back.
    const before = (await videos())[0].at;
    await page.keyboard.press('.');
    await page.waitForFunction((at) => document.querySelector('.replay video').currentTime > at, before, LIMIT);
    const on = (await videos())[0].at;
    await page.keyboard.press('.');
    await page.waitForFunction((at) => document.querySelector('.replay video').currentTime > at, on, LIMIT);
    const further = (await videos())[0].at;
    await page.keyboard.press(',');
    await page.waitForFunction((at) => document.querySelector('.replay video').currentTime < at, further, LIMIT);
    tell({ step: further - on, back: further - (await videos())[0].at });
    // Together, at several speeds. What is recorded is short, so each begins where the mark is.
    for (const rate of ['0.25', '1', '4']) {
      await page.getByRole('button', { name: /parcel.*left/ }).click();
      await shown();
      const from = (await videos()).map(({ at }) => at);
      await page.selectOption('select[aria-label="Speed"]', rate);
      await button(page, 'Play').click();
      await page.waitForFunction((at) => document.querySelector('.replay video').currentTime > at + 0.4, from[0], LIMIT);
      const [one, other] = await videos();
      tell({ rate: Number(rate), rates: [one.rate, other.rate].map((r) => Math.abs(r / Number(rate) - 1) <= 0.2), apart: Math.abs(one.at - from[0] - (other.at - from[1])) });
      await button(page, 'Pause').click();
    }
    // Over the hours in which nothing was recorded, on to what comes next.
    const last = await cursor();
    await button(page, 'Play').click();
    await page.waitForFunction((at) => Number(document.querySelector('canvas.timeline').getAttribute('aria-valuenow')) > at + 3600 * 6, last, LIMIT);
    const over = await cursor();
    await page.waitForFunction(() => [...document.querySelectorAll('.replay video')].every((video) => !video.paused && video.currentTime > 0.2), null, LIMIT);
    tell({ over });
    await button(page, 'Pause').click();
    await button(page, 'Day').click();
    await page.click('button[aria-label="Before"]');
    // Over what is marked.
    await page.getByRole('button', { name: /parcel.*left/ }).click();
    for (let at = 0; at < 6; at++) await page.keyboard.press('+');
    await page.waitForTimeout(1000);
    const box = await page.locator('canvas.timeline').boundingBox();
    const share = await page.$eval('canvas.timeline', (canvas) => {
      const [from, to, now] = ['min', 'max', 'now'].map((name) => Number(canvas.getAttribute(`aria-value${name}`)));
      return (now - from) / (to - from);
    });
    await page.mouse.move(box.x + box.width * share, box.y + 50);
    await page.waitForSelector('.hover img:not([hidden])', LIMIT);
    tell({ hover: await page.textContent('.hover figcaption') });
    await look(page, 'recordings-hover');
    await page.mouse.move(5, 5);
    // Marked by hand.
    await page.keyboard.press('m');
    await page.getByRole('dialog').getByLabel('Text').fill('<b onclick=alert(1)>here</b>');
    await look(page, 'recordings-mark');
    await inDialog(page, 'Mark').click();
    await page.getByRole('dialog').waitFor({ state: 'detached', ...LIMIT });
    await page.fill('input[aria-label="Search what happened"]', '');
    await page.getByText('<b onclick=alert(1)>here</b>').waitFor(LIMIT);
    // A span, by dragging on the ruler.
    await page.mouse.move(box.x + box.width * share - 8, box.y + 10);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * share + 8, box.y + 10, { steps: 4 });
    await page.mouse.up();
    await button(page, 'Export …').click();
    await look(page, 'recordings-export');
    await inDialog(page, 'Export').click();
    tell({ exported: await downloaded(page) });
    await button(page, 'Protect').click();
    await page.getByText(/protected\.$/).waitFor(LIMIT);
    await wait('protected');
    await button(page, 'Protect no longer').click();
    await page.getByText(/protected no longer/).waitFor(LIMIT);
    await button(page, 'Delete …').click();
    await inDialog(page, 'Cancel').click();
    await wait('nothing is deleted');
    await button(page, 'Clear').click();
    for (let at = 0; at < 8; at++) await page.keyboard.press('-');
    await page.mouse.move(box.x + 3, box.y + 10);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width - 3, box.y + 10, { steps: 4 });
    await page.mouse.up();
    await button(page, 'Delete …').click();
    await inDialog(page, 'Delete').click();
    await page.getByText(/are deleted\.$/).waitFor(LIMIT);
    await wait('deleted');
    // Whose clock is wrong sees the server's days all the same.
    const wrong = await open();
    await wrong.addInitScript(() => {
      const real = Date.now;
      Date.now = () => real() + 3 * 86400000;
    });
    await wrong.goto(`${base}#/recordings`);
    await wrong.waitForFunction(() => [...document.querySelectorAll('.replay video')].some((video) => video.readyState >= 2), null, LIMIT);
    tell({ wrongClock: await wrong.$eval('canvas.timeline', (canvas) => Number(canvas.getAttribute('aria-valuenow'))) });
    // Days of 23 and 25 hours, and a midnight that does not exist.
    tell(await wrong.evaluate(async () => {
      const { dayOf, instant, ticks, full } = await import('./page/zone.js');
      const zone = 'Europe/Berlin';
      const hours = (year, month, day) => (instant(zone, year, month, day + 1) - instant(zone, year, month, day)) / 3600000;
      const lines = (month, day) => ticks(instant(zone, 2026, month, day), instant(zone, 2026, month, day + 1) - 1, zone, 3600000).map(({ text }) => text);
      const twice = instant(zone, 2026, 10, 25, 2, 30);
      return {
        hours: [hours(2026, 3, 29), hours(2026, 10, 25), hours(2026, 7, 1)],
        spring: lines(3, 29).slice(0, 4),
        autumn: lines(10, 25).slice(0, 5),
        twice: [full(twice, zone), full(twice + 3600000, zone)],
        beirut: new Date(dayOf(Date.UTC(2026, 2, 29, 12), 'Asia/Beirut')).toISOString(),
      };
    }));
  },

  // A week with 50,000 marks.
  async week() {
    const page = await open();
    await page.goto(`${base}#/recordings`);
    const counted = page.waitForResponse((response) => /timeline\?/.test(response.url()), LIMIT);
    await button(page, 'Week').click();
    await counted;
    // Each of them, as none is left out.
    tell(await page.evaluate(async () => {
      const { Timeline } = await import('./page/timeline.js');
      const week = 7 * 86400000;
      const marks = Array.from({ length: 50000 }, (_, at) => ({ time: (at * week) / 50000, kind: ['person', 'car', 'note'][at % 3], text: '' }));
      const spans = Array.from({ length: 2000 }, (_, at) => ({ start: (at * week) / 2000, end: ((at + 0.9) * week) / 2000 }));
      const timeline = new Timeline({ zone: () => 'Europe/Berlin', now: () => week, onseek() {}, onmove() {}, onselect() {}, onhover() {} });
      document.body.append(timeline.element);
      timeline.rows = [{ id: 'x', data: { spans, gaps: [], marks, protected: [] } }];
      timeline.show(0, week);
      const begun = performance.now();
      timeline.paint();
      const drawn = performance.now() - begun;
      timeline.stop();
      timeline.element.remove();
      return { drawnMs: drawn };
    }));
    await page.waitForTimeout(500);
    await look(page, 'week-desktop');
  },

  // A camera is looked at, added, recorded; others are found, or come by a list.
  async add() {
    const page = await open();
    await page.goto(base);
    await page.getByRole('link', { name: 'Add a camera' }).waitFor(LIMIT);
    await look(page, 'empty-desktop');
    await page.getByRole('link', { name: 'Add a camera' }).click();
    const [camera, device, nobody] = (await lines.next()).value.split(' ');
    await page.getByLabel('Address', { exact: true }).fill(nobody);
    await button(page, 'Look at it').click();
    await page.locator('.probe .problem').waitFor(LIMIT);
    tell({ problem: await page.textContent('.probe .problem') });
    await page.getByLabel('Address', { exact: true }).fill(camera);
    await button(page, 'Look at it').click();
    await page.locator('.probe img').waitFor(LIMIT);
    tell({ seen: await page.textContent('.probe'), picture: await page.$eval('.probe img', (image) => image.decode().then(() => image.naturalWidth)) });
    await page.getByLabel('Name', { exact: true }).fill('yard/new');
    await page.getByLabel('Kept for days').first().fill('7');
    await lookAll(page, 'add');
    await button(page, 'Add the camera').click();
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    tell({ added: await page.textContent('h1') });
    await page.getByRole('link', { name: 'Add' }).click();
    // The same name again is refused in words, where one is.
    await page.getByLabel('Address', { exact: true }).fill(camera);
    await page.getByLabel('Name', { exact: true }).fill('yard/new');
    await button(page, 'Add the camera').click();
    await page.locator('form .problem:not(:empty)').waitFor(LIMIT);
    tell({ refused: await page.textContent('form .problem') });
    await page.getByLabel('Hosts').fill(device);
    await button(page, 'Discover').click();
    await page.locator('.devices button').first().waitFor(LIMIT);
    tell({ found: await page.$$eval('.devices button', (all) => all.map((one) => one.textContent)) });
    await page.locator('.devices button').first().click();
    await page.locator('.probe img').waitFor(LIMIT);
    tell({ chosen: await page.inputValue('input[inputmode=url]') });
    // By a list, of which one line is wrong.
    await page.getByLabel(/A line each/).fill(`many/1 ${camera}\n# a remark\nwhat is this\nmany/2 ${camera}`);
    await button(page, 'Check').click();
    await page.getByText(/Line 3/).waitFor(LIMIT);
    await page.getByLabel(/A line each/).fill(`many/1 ${camera}\nyard/new ${camera}\n${camera}`);
    await button(page, 'Check').click();
    await page.getByText('2 can be added, 1 cannot.').waitFor(LIMIT);
    await look(page, 'add-many');
    await button(page, 'Add all').click();
    await page.getByText('2 are added, 1 are not.').waitFor(LIMIT);
    tell({ results: await page.$$eval('.results li', (all) => all.map((one) => one.textContent)) });
    // It goes again.
    await page.goto(`${base}#/stream/${encodeURIComponent('yard/new')}`);
    await button(page, 'Remove …').click();
    await inDialog(page, 'Remove').click();
    await plays(page, 'many/1');
    await wait('removed');
  },

  async settings() {
    const page = await open();
    await page.goto(`${base}#/settings`);
    await page.waitForSelector('form', LIMIT);
    await signIn(page, 'root', 'of root');
    await page.locator('.room').first().waitFor(LIMIT);
    const tabs = await page.$$eval('.tabs a', (all) => all.map((a) => a.textContent));
    tell({ tabs });
    for (const name of tabs) {
      await page.locator('.tabs').getByRole('link', { name }).click();
      await page.locator('.settings > :not(.loading)').first().waitFor(LIMIT);
      await page.waitForTimeout(500);
      await lookAll(page, `settings-${name.toLowerCase()}`);
    }
    // On a phone not all links have room: those to what is shown are in view.
    await page.setViewportSize(SIZES.phone);
    await page.reload();
    await page.locator('.settings > :not(.loading)').first().waitFor(LIMIT);
    tell({
      inView: await page.$$eval('nav a[aria-current]', (all) =>
        all.map((link) => {
          const [own, room] = [link.getBoundingClientRect(), link.parentElement.getBoundingClientRect()];
          return own.left >= room.left - 1 && own.right <= room.right + 1;
        }),
      ),
    });
    await page.setViewportSize(SIZES.desktop);
    // Checked before it is applied.
    await page.locator('.tabs').getByRole('link', { name: 'Configuration' }).click();
    const text = page.getByLabel('Configuration as JSON');
    await page.waitForFunction(() => document.querySelector('textarea')?.value.includes('min_free'), null, LIMIT);
    const before = await text.inputValue();
    const free = before.match(/"min_free": "[^"]*"/)[0];
    tell({ applyAtFirst: await button(page, 'Apply').isDisabled() });
    await text.fill(before.replace(free, '"min_free": "much"'));
    await button(page, 'Check').click();
    await page.locator('.settings .problem').filter({ hasText: 'min_free' }).waitFor(LIMIT);
    tell({ applyWrong: await button(page, 'Apply').isDisabled() });
    await text.fill('{');
    await button(page, 'Check').click();
    await page.getByText(/This is not JSON/).waitFor(LIMIT);
    await text.fill(before.replace(free, '"min_free": "1%"'));
    await button(page, 'Check').click();
    await page.getByText('This can be applied.').waitFor(LIMIT);
    await text.press('End');
    await text.press('Space');
    tell({ applyAfterAnotherKey: await button(page, 'Apply').isDisabled() });
    await button(page, 'Check').click();
    await page.waitForFunction(() => ![...document.querySelectorAll('button')].find((one) => one.textContent === 'Apply').disabled, null, LIMIT);
    await button(page, 'Apply').click();
    await page.getByText('This is applied.').waitFor(LIMIT);
    await wait('applied');
    // Users and tokens.
    await page.locator('.tabs').getByRole('link', { name: 'Users' }).click();
    await button(page, 'New user …').click();
    await page.getByRole('dialog').getByLabel('Name').fill('vic');
    await page.getByRole('dialog').getByLabel('Password').fill('a good password');
    await page.getByRole('dialog').getByLabel(/Only these/).fill('yard/*');
    await look(page, 'settings-new-user');
    await inDialog(page, 'Add').click();
    await page.getByRole('cell', { name: 'vic' }).waitFor(LIMIT);
    tell({ user: await page.textContent('tbody tr:last-child') });
    await button(page, 'New token …').click();
    await page.getByRole('dialog').getByLabel('Name').fill('script');
    await page.getByRole('dialog').getByLabel('Days').fill('30');
    await inDialog(page, 'Make').click();
    await page.locator('.secret code').waitFor(LIMIT);
    tell({ token: await page.textContent('.secret code') });
    await page.getByRole('row', { name: /vic/ }).getByRole('button', { name: 'Disable' }).click();
    await page.getByRole('row', { name: /vic/ }).getByText('disabled').waitFor(LIMIT);
    await page.getByRole('row', { name: /vic/ }).getByRole('button', { name: 'Remove …' }).click();
    await inDialog(page, 'Remove').click();
    await page.getByRole('row', { name: /vic/ }).waitFor({ state: 'detached', ...LIMIT });
    await page.locator('.tabs').getByRole('link', { name: 'Backups' }).click();
    await button(page, 'Make one now').click();
    tell({ backup: await downloaded(page) });
    await button(page, 'Delete …').click();
    await inDialog(page, 'Delete').click();
    await page.getByText('There is none yet.').waitFor(LIMIT);
    await page.locator('.tabs').getByRole('link', { name: 'Log' }).click();
    await page.locator('.log li').filter({ hasText: '/api/backups' }).first().waitFor(LIMIT);
  },

  // What is seen, drawn over the picture.
  async seen() {
    const page = await open();
    const drawn = (where) => page.waitForFunction((selector) => Number(document.querySelector(`${selector} .overlay`)?.dataset.count ?? 0) > 0, where, LIMIT);
    await page.goto(base);
    await plays(page, 'persons');
    await drawn('.tile');
    await look(page, 'seen-wall');
    await page.click('.tile[data-id="persons"]');
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await drawn('.player');
    await page.waitForFunction(() => document.querySelector('.player .unseen')?.textContent.includes('person'), null, LIMIT);
    // Something is painted there, not only counted.
    tell({
      painted: await page.$eval('.player .overlay', (canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0)),
      words: await page.textContent('.player .unseen'),
      // Over the picture that it was seen in: what is drawn is not older than it is from one analysed picture to the next.
      by: await page.$eval('.player .overlay', (canvas) => canvas.dataset.by),
      age: Number(await page.$eval('.player .overlay', (canvas) => canvas.dataset.age)),
    });
    await look(page, 'seen-stream');
    await button(page, 'The address for RTSP as a QR code').click();
    await look(page, 'seen-qr');
    const { modules, address } = await page.evaluate(async () => {
      const { qr } = await import('./page/qr.js');
      const address = document.querySelector('dialog code').textContent;
      return { address, modules: qr(address).map((row) => row.map((dark) => (dark ? '1' : '0')).join('')) };
    });
    tell({ modules, address });
    // The same by other ways than WebRTC.
    await page.goto(`${base}#/stream/others`);
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await drawn('.player');
    tell({ by: await page.$eval('.player .overlay', (canvas) => canvas.dataset.by), way: await page.$eval('.player .picture', (box) => box.dataset.way) });
    // Drawn in by the server, for as long as somebody watches.
    await page.goto(`${base}#/stream/${encodeURIComponent('persons/annotated')}`);
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await look(page, 'seen-annotated');
    // Each is an event, with its picture, where one looks for what happened.
    await page.goto(`${base}#/recordings`);
    await page.reload();
    await page.waitForFunction(() => [...document.querySelectorAll('.happened img')].some((image) => image.naturalWidth > 20), null, LIMIT);
    await look(page, 'seen-recordings');
    tell({ happened: await page.$eval('.happened li:has(img)', (item) => item.textContent) });
    // Looked for by what it is; its clip is there.
    await page.locator('nav').getByRole('link', { name: 'Seen' }).click();
    await page.waitForFunction(() => document.querySelector('.seen img')?.naturalWidth > 20, null, LIMIT);
    await look(page, 'objects');
    await page.getByLabel('What', { exact: true }).fill('dog');
    await page.getByText('Nothing was seen that is like this.').waitFor(LIMIT);
    await page.getByLabel('What', { exact: true }).fill('person');
    await page.getByLabel('Sure, % at least').fill('50');
    await page.locator('.filters select').first().selectOption('persons');
    await button(page, 'Today').click();
    await page.waitForFunction(() => {
      const cards = [...document.querySelectorAll('.seen li')].map((card) => card.textContent);
      return cards.length && cards.every((text) => text.includes('persons'));
    }, null, LIMIT);
    await page.locator('.seen button').last().click();
    await page.waitForFunction(() => document.querySelector('dialog video')?.readyState >= 2, null, LIMIT);
    await look(page, 'object');
    tell({ clip: await page.$eval('dialog video', (video) => video.duration), facts: await page.textContent('dialog .facts') });
    await inDialog(page, 'Show in recordings').click();
    await page.waitForFunction(() => location.hash.startsWith('#/recordings/persons@'), null, LIMIT);
    await page.waitForSelector('.replays .replay', LIMIT);
  },

  // Zones, lines and masks, drawn over the picture by mouse and keyboard.
  async zones() {
    const page = await open();
    await page.goto(`${base}#/stream/yard`);
    await page.getByRole('link', { name: 'Zones …' }).click();
    await page.waitForFunction(() => document.querySelector('.board img')?.naturalWidth > 20, null, LIMIT);
    await button(page, 'Zone').click();
    await page.getByLabel('Name').fill('door');
    await page.getByLabel('Only these count').fill('person, dog');
    await page.getByLabel('Told of who is in it for longer than').fill('soon');
    const { x, y, width, height } = await page.locator('.board').boundingBox();
    const corner = await page.locator('.corner').first().boundingBox();
    await page.mouse.move(corner.x + corner.width / 2, corner.y + corner.height / 2);
    await page.mouse.down();
    await page.mouse.move(x + width * 0.1, y + height * 0.2, { steps: 5 });
    await page.mouse.up();
    // Another corner, by the keyboard; and moved out of the picture, which it does not leave.
    await page.getByLabel('Another corner behind corner 2').focus();
    await page.keyboard.press('Enter');
    for (let step = 0; step < 50; step += 1) await page.keyboard.press('ArrowRight');
    await button(page, 'Line').click();
    await page.getByLabel('What counts').selectOption('forward');
    await button(page, 'Mask').click();
    await look(page, 'zones');
    await button(page, 'Save').click();
    await page.waitForFunction(() => document.querySelector('.problem').textContent, null, LIMIT);
    tell({ refused: await page.textContent('.problem') });
    await page.locator('.shapes button').first().click();
    await page.getByLabel('Told of who is in it for longer than').fill('30s');
    await button(page, 'Save').click();
    await page.getByText('It holds from now on.').waitFor(LIMIT);
    tell({ saved: true });
    await page.reload();
    await page.waitForFunction(() => document.querySelectorAll('.shapes button').length === 3, null, LIMIT);
    await page.locator('.shapes button').last().click();
    await button(page, 'Take it away').click();
    await button(page, 'Save').click();
    await page.getByText('It holds from now on.').waitFor(LIMIT);
    // What only the configuration file can change is made for it.
    await page.goto(`${base}#/zones/gate`);
    await page.getByRole('heading', { name: 'Zones of gate' }).waitFor(LIMIT);
    await page.waitForFunction(() => document.querySelectorAll('.shapes button').length === 1, null, LIMIT);
    await button(page, 'Line').click();
    await page.getByLabel('Name').fill('way in');
    await page.getByLabel('Only these count').fill('person, dog');
    await button(page, 'Save').click();
    await page.waitForSelector('.card pre', LIMIT);
    await look(page, 'zones-of-the-file');
    tell({ lines: await page.textContent('.card pre') });
  },

  // A slow network: pictures come, and what is asked for says that it is being done.
  async slow() {
    const page = await open();
    const session = await page.context().newCDPSession(page);
    await session.send('Network.enable');
    await session.send('Network.emulateNetworkConditions', { offline: false, latency: 400, downloadThroughput: 50_000, uploadThroughput: 50_000 });
    await page.goto(base);
    await page.getByText('Loading …').first().waitFor(LIMIT);
    await plays(page, 'ball');
    await page.click('.tile[data-id="ball"]');
    await page.waitForSelector('.player[data-playing="true"]', LIMIT);
    await button(page, 'Pause recording').click();
    // Whoever has pressed it sees at once that something is being done.
    const busy = await page.$eval('.actions [aria-busy=true]', (one) => one.textContent).catch(() => '');
    await button(page, 'Resume recording').waitFor(LIMIT);
    tell({ busy });
    await page.goto(`${base}#/recordings`);
    await page.waitForFunction(() => [...document.querySelectorAll('.replay video')].some((video) => video.readyState >= 2), null, LIMIT);
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
  const pages = pictures ? browser.contexts().flatMap((context) => context.pages()) : [];
  for (const [at, page] of pages.entries()) await page.screenshot({ path: path.join(pictures, `${flow}-failed-${at}.png`) });
}
await browser.close();
tell({ done: true, errors });
process.exit(0);
