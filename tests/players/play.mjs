// Plays an address in a headless browser (Chromium, or what BROWSER says: firefox) and writes, as JSON lines, which frame was shown when.
//
//   node play.mjs PLAYER URL SECONDS [MODULES]
//
// PLAYER is hlsjs, shaka, dashjs, websocket, whep, whep-tcp, whep-relay, video, seek, seek-hls or page; or whip (whip-vp8, whip-vp9,
// whip-av1: by that codec alone) or publish, which send pictures with the counter, or the browser's own test pictures. MODULES is the folder with node_modules. Each line is
// {"at": ms since 1970, "counter": burnt-in number, "time": media time, "frames": presented so far}; the last one is
// {"end": true, "errors": […], "codecs": …, "delay": what the player says, "stalls": …}.

import { createServer } from 'node:http';
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [player, url, seconds, modules] = process.argv.slice(2);
const require = createRequire(path.join(modules ?? '.', 'x.js'));
const { chromium } = require('playwright-core');
const file = (name) => path.join(modules ?? '.', 'node_modules', name);
const scripts = {
  '/hls.js': file('hls.js/dist/hls.js'),
  '/shaka.js': file('shaka-player/dist/shaka-player.compiled.debug.js'),
  '/dash.js': file('dashjs/dist/modern/umd/dash.all.debug.js'),
};

// What runs in the page.
const page = `<!doctype html><body style="margin:0"><video id=v muted playsinline></video>
<script src=/hls.js></script><script src=/shaka.js></script><script src=/dash.js></script><script>
const video = document.getElementById('v');
const errors = [];
errors.push = (error) => { report({ error }); errors[errors.length] = error; };
let details = {}, delay = () => null, stalls = 0;
const canvas = document.createElement('canvas');
const context = canvas.getContext('2d', { willReadFrequently: true });
// 24 blocks along the top edge, each a bit.
function counter() {
  const width = video.videoWidth, block = Math.floor(width / 24);
  if (!block) return null;
  canvas.width = width; canvas.height = block;
  context.drawImage(video, 0, 0, width, block, 0, 0, width, block);
  const data = context.getImageData(0, Math.floor(block / 2), width, 1).data;
  let number = 0;
  for (let bit = 0; bit < 24; bit++) {
    if (data[(bit * block + (block >> 1)) * 4] > 128) number |= 1 << bit;
  }
  return number;
}
function look(now, frame) {
  report({ at: Date.now(), counter: counter(), time: frame.mediaTime, frames: frame.presentedFrames,
           width: video.videoWidth });
  video.requestVideoFrameCallback(look);
}
video.requestVideoFrameCallback(look);
video.addEventListener('waiting', () => stalls++);
video.addEventListener('error', () => errors.push('video: ' + video.error.message));
window.finish = async () => ({ end: true, delay: await delay(), errors, details, stalls, current: video.currentTime,
  dropped: video.getVideoPlaybackQuality().droppedVideoFrames, state: video.readyState });
const players = {
  hlsjs(url) {
    const hls = new Hls({ lowLatencyMode: true, enableWorker: false });
    hls.on(Hls.Events.ERROR, (_, data) => {
      // What is kept begins with a keyframe, and the first sound comes a little later: a player that begins at the very
      // beginning steps over that.
      const beginning = data.details === 'bufferSeekOverHole' && video.currentTime < 0.5;
      // On a slow machine it appends while its buffer is still at work, and then does so again: its own affair as long as it is not fatal.
      const busy = !data.fatal && data.details === 'bufferAppendError' && data.error?.message.includes('still processing');
      if (data.details !== 'bufferStalledError' && data.details !== 'bufferNudgeOnStall' && !beginning && !busy) {
        errors.push('hls.js: ' + data.details + ' ' + (data.fatal ? 'fatal ' : '') + (data.error?.message ?? ''));
      }
    });
    hls.on(Hls.Events.MANIFEST_PARSED, (_, data) => { details.levels = data.levels.map(
      (l) => ({ width: l.width, bitrate: l.bitrate, codecs: l.attrs.CODECS, rate: l.attrs['FRAME-RATE'] })); });
    hls.on(Hls.Events.LEVEL_LOADED, (_, data) => { details.partTarget = data.details.partTarget; });
    delay = () => hls.latency;
    hls.loadSource(url);
    hls.attachMedia(video);
  },
  async shaka(url) {
    const shakaPlayer = new shaka.Player();
    await shakaPlayer.attach(video);
    shakaPlayer.configure({ streaming: { lowLatencyMode: true } });
    shakaPlayer.addEventListener('error', (e) => errors.push('shaka: ' + e.detail.code + ' ' + e.detail.message));
    await shakaPlayer.load(url).catch((e) => errors.push('shaka: ' + e.code + ' ' + e.message));
    details.tracks = shakaPlayer.getVariantTracks().map((t) => ({ width: t.width, bandwidth: t.bandwidth, codecs: t.codecs }));
    delay = () => (Date.now() - shakaPlayer.getPlayheadTimeAsDate()) / 1000;
  },
  dashjs(url) {
    const dash = dashjs.MediaPlayer().create();
    dash.updateSettings({ debug: { logLevel: 1 }, streaming: { delay: { useSuggestedPresentationDelay: true },
      liveCatchup: { enabled: true } } });
    dash.on('error', (e) => errors.push('dash.js: ' + JSON.stringify(e.error).slice(0, 300)));
    dash.on('streamInitialized', () => { details.qualities =
      dash.getRepresentationsByType('video').map((r) => ({ width: r.width, bandwidth: r.bandwidth, codecs: r.codecs ?? r.mimeType })); });
    delay = () => dash.getCurrentLiveLatency();
    dash.initialize(video, url, true);
  },
  websocket(url) {
    const source = new MediaSource();
    video.src = URL.createObjectURL(source);
    const queue = [];
    let buffer;
    const next = () => {
      if (!buffer || buffer.updating || !queue.length) return;
      const head = queue.shift();
      if (typeof head === 'string') { buffer.changeType(head); next(); } else buffer.appendBuffer(head);
    };
    // Not before there is somebody to take what it says.
    source.addEventListener('sourceopen', () => {
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    socket.onclose = (e) => { if (!e.wasClean) errors.push('websocket: ' + e.code + ' ' + e.reason); };
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') { queue.push(data); return next(); }
      const { mime } = JSON.parse(data);
      details.mime = mime;
      if (buffer) { queue.push(mime); return next(); }
      buffer = source.addSourceBuffer(mime);
      buffer.onupdateend = () => {
        // Stays at the newest picture.
        if (buffer.buffered.length) {
          const end = buffer.buffered.end(buffer.buffered.length - 1);
          if (end - video.currentTime > 0.6) video.currentTime = end - 0.1;
          video.play().catch(() => {});
        }
        next();
      };
    }; });
  },
  // The server's own module, as a page of another site uses it.
  async whep(url, connection = {}) {
    const { WhepPlayer } = await import(new URL('/webrtc/player.js', url));
    const player = new WhepPlayer(video, url, { connection, onstate(state, detail) {
      (details.states ??= []).push([state, detail, Date.now()]);
    } });
    delay = async () => { details.statistics = await player.statistics(); return null; };
    player.start();
  },
  // The same by TURN alone.
  'whep-relay': (url) => players.whep(url, { iceTransportPolicy: 'relay' }),
  // The same where no UDP gets through: the browser never hears of it.
  'whep-tcp'(url) {
    const real = window.fetch;
    window.fetch = async (...request) => {
      const answer = await real(...request);
      if (answer.status !== 201) return answer;
      const sdp = (await answer.text()).replace(/a=candidate:\\S+ \\d+ udp .*\\r\\n/gi, '');
      return new Response(sdp, { status: 201, headers: answer.headers });
    };
    return players.whep(url);
  },
  // Publishes pictures with a counter, 25 a second, and a tone.
  async whip(url, code = (number) => number) {
    const { WhipPublisher } = await import(new URL('/webrtc/player.js', url));
    const size = [384, 240], block = size[0] / 24;
    [canvas.width, canvas.height] = size;
    document.body.append(canvas);
    const media = canvas.captureStream(25);
    let number = 0;
    setInterval(() => {
      context.fillStyle = '#357';
      context.fillRect(0, block, size[0], size[1]);
      for (let bit = 0; bit < 24; bit++) {
        context.fillStyle = code(number) & (1 << bit) ? '#fff' : '#000';
        context.fillRect(bit * block, 0, block, block);
      }
      context.fillStyle = '#fff';
      context.fillRect((number * 3) % size[0], 100, 40, 40);
      number++;
    }, 40);
    const sound = new AudioContext(), tone = sound.createOscillator(), out = sound.createMediaStreamDestination();
    tone.connect(out);
    tone.start();
    media.addTrack(out.stream.getAudioTracks()[0]);
    const publisher = new WhipPublisher(media, url, { onstate(state, detail) {
      (details.states ??= []).push([state, detail]);
    } });
    delay = async () => { details.statistics = await publisher.statistics(); publisher.stop(); return null; };
    publisher.start();
  },
  // The same by one codec, with the counter in Gray code: from one picture to the next one block changes, which does not
  // look like something that moves. Encoders with little time take a step of the plain counter for that.
  ...Object.fromEntries(['vp8', 'vp9', 'av1'].map((codec) => ['whip-' + codec, (url) => {
    const add = RTCPeerConnection.prototype.addTransceiver;
    RTCPeerConnection.prototype.addTransceiver = function (track, options) {
      const transceiver = add.call(this, track, options);
      if (track.kind === 'video') {
        const wanted = ['video/' + codec, 'video/rtx'];
        transceiver.setCodecPreferences(RTCRtpSender.getCapabilities('video').codecs.filter(
          (c) => wanted.includes(c.mimeType.toLowerCase())));
      }
      return transceiver;
    };
    return players.whip(url, (number) => number ^ (number >> 1));
  }])),
  // Pictures of another site may only be looked at if it allows that.
  video(url) { video.crossOrigin = 'anonymous'; video.src = url; },
  // The same, and by hls.js, with steps to other places as soon as one has been shown.
  seek(url) { players.video(url); steps(); },
  'seek-hls'(url) { players.hlsjs(url); steps(); },
};
function steps() {
  const places = [0.8, 0.2, 0.5];
  let shown = 0;
  const step = () => {
    if (++shown % 12 === 0 && places.length && video.duration > 1) video.currentTime = places.shift() * video.duration;
    video.requestVideoFrameCallback(step);
  };
  video.requestVideoFrameCallback(step);
}
// dash.js has to see the event of playing by itself.
window.start = async (name, url) => { await players[name](url); if (name !== "dashjs") video.play().catch(() => {}); };
</script>`;

const server = createServer((request, response) => {
  const script = scripts[request.url];
  response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
  if (script) createReadStream(script).pipe(response); else response.end(page);
});
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));

async function firefox() {
  const { default: puppeteer } = await import(pathToFileURL(require.resolve('puppeteer-core')));
  return puppeteer.launch({ browser: 'firefox', executablePath: '/usr/bin/firefox-esr', headless: true,
    extraPrefsFirefox: { 'media.autoplay.default': 0 } });
}
const browser = process.env.BROWSER === 'firefox' ? await firefox() : await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--autoplay-policy=no-user-gesture-required', '--disable-gpu',
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
});
// Whoever has seen enough says so.
process.on('SIGTERM', async () => { await browser.close(); process.exit(0); });
try {
  const tab = await browser.newPage();
  const logged = [];
  tab.on('console', (message) => { if (message.type() === 'error') logged.push(message.text()); });
  if (process.env.REQUESTS) {
    tab.on('response', (response) => process.stderr.write(`${Date.now() % 100000} ${response.status()} ${response.url()}\n`));
    tab.on('console', (message) => process.stderr.write(`${message.text().slice(0, 300)}\n`));
  }
  await tab.exposeFunction('report', (line) => process.stdout.write(JSON.stringify(line) + '\n'));
  // Those that the server has itself.
  const own = player === 'page' || player === 'publish';
  await tab.goto(own ? url : `http://127.0.0.1:${server.address().port}/`);
  process.stdout.write(JSON.stringify({ begin: Date.now() }) + '\n');
  if (player === 'publish') await tab.click('#start');
  if (own) {
    await tab.evaluate(() => {
      const video = document.querySelector('video');
      window.finish = () => ({ end: true, errors: [], details: {
        state: document.body.dataset.state, text: document.querySelector('#state').textContent, frames: video.getVideoPlaybackQuality().totalVideoFrames } });
    });
  } else {
    await tab.evaluate(([player, url]) => { window.start(player, url); }, [player, url]);
  }
  await new Promise((done) => setTimeout(done, Number(seconds) * 1000));
  if (process.env.SCREENSHOT) await tab.screenshot({ path: process.env.SCREENSHOT });
  const end = await tab.evaluate(() => window.finish());
  process.stdout.write(JSON.stringify({ ...end, logged: logged.slice(0, 10) }) + '\n');
} finally {
  await browser.close();
  server.close();
}
