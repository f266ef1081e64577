// The publisher's page: sends this machine's camera, screen and sound to the stream whose address the page has.
import { WhipPublisher } from "./player.js";

const show = (id) => document.getElementById(id);
const [video, state, picture, sound, start, stop] = ["video", "state", "picture", "sound", "start", "stop"].map(show);
const address = new URL(location.href);
address.pathname = address.pathname.replace(/\/+$/, "").replace(/\/publish$/, "/whip");
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? undefined;
const words = { connecting: "connecting …", publishing: "publishing", waiting: "", stopped: "not publishing" };
let media = null;
let publisher = null;

function tell(name, detail) {
  document.body.dataset.state = name;
  state.textContent = detail ? `${detail} …` : words[name];
}

async function capture() {
  // Browsers give cameras to pages of this machine and to those that came by HTTPS only.
  if (!navigator.mediaDevices) throw new Error("this page has to be opened by https:// or at localhost");
  const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
  if (picture.value === "screen") {
    return navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15 } }, audio: sound.checked });
  }
  return navigator.mediaDevices.getUserMedia({ video: picture.value === "camera" && wanted, audio: sound.checked });
}

function end(why) {
  publisher?.stop();
  media?.getTracks().forEach((track) => track.stop());
  [media, publisher, video.srcObject] = [null, null, null];
  [start.disabled, stop.disabled, picture.disabled, sound.disabled] = [false, true, false, false];
  tell("stopped");
  if (why) state.textContent = why;
}

start.onclick = async () => {
  [start.disabled, picture.disabled, sound.disabled] = [true, true, true];
  tell("connecting");
  try {
    media = await capture();
  } catch (error) {
    return end(`no picture or sound: ${error.message}`);
  }
  // The user may stop to share in the browser's own bar.
  media.getVideoTracks()[0]?.addEventListener("ended", () => end());
  video.srcObject = media;
  stop.disabled = false;
  publisher = new WhipPublisher(media, address, { token, onstate: tell });
  // For tests and the curious.
  globalThis.publisher = publisher;
  publisher.start();
};
stop.onclick = () => end();
addEventListener("pagehide", () => end());
