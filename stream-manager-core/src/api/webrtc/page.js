// The viewer's page: plays the stream whose address the page has.
import { WhepPlayer } from "./player.js";

const show = (id) => document.getElementById(id);
const [video, state, statistics, mute, full, numbers] = ["video", "state", "statistics", "mute", "full", "numbers"].map(show);
const address = new URL(location.href);
address.pathname = address.pathname.replace(/\/+$/, "") + "/whep";
const words = { connecting: "connecting …", playing: "", waiting: "", stopped: "stopped" };
const player = new WhepPlayer(video, address, {
  token: new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined,
  onstate(name, detail) {
    document.body.dataset.state = name;
    state.textContent = detail ? `${detail} …` : words[name];
  },
});
// For tests and the curious.
globalThis.player = player;

mute.onclick = () => {
  video.muted = !video.muted;
  mute.textContent = video.muted ? "Sound on" : "Sound off";
};
full.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : document.body.requestFullscreen());
numbers.onclick = () => (statistics.hidden = !statistics.hidden);
video.ondblclick = full.onclick;
document.onkeydown = ({ key }) => ({ m: mute, f: full, s: numbers })[key]?.click();
addEventListener("pagehide", () => player.stop());
addEventListener("pageshow", ({ persisted }) => persisted && player.start());

let before = { bytes: 0, at: performance.now() };
setInterval(async () => {
  if (statistics.hidden) return;
  const now = await player.statistics();
  const at = performance.now();
  const bits = ((now.bytes - before.bytes) * 8) / ((at - before.at) / 1000);
  before = { bytes: now.bytes, at };
  statistics.textContent = [
    `${now.width} × ${now.height}, ${now.codec ?? "no picture"}`,
    `${now.framesPerSecond.toFixed(0)} frames/s, ${(Math.max(bits, 0) / 1e6).toFixed(2)} Mbit/s`,
    `lost ${now.packetsLost} packets`,
    `round trip ${(now.roundTripMs ?? 0).toFixed(0)} ms, buffer ${(now.bufferMs ?? 0).toFixed(0)} ms`,
  ].join("\n");
}, 1000);

player.start();
