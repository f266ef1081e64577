// What is seen in a picture, drawn over it: boxes with their names, each over the picture that it was seen in.
//
// Where the picture comes by WebRTC, what is seen comes by a data channel of the same connection with RTP timestamps; else by a
// WebSocket with presentation times. Pictures are analysed more rarely than they are shown: what is followed is drawn between the two
// places where it was seen, as far as both are known.

import { address, ofStream } from "./api.js";
import { colour, h } from "./dom.js";

/** @typedef {{label: string, score: number, track?: number, relative_box?: number[] | null}} Detection */
/** @typedef {{at: number, width: number, height: number, detections: Detection[]}} Seen */

/** For so long what was seen last is still true, in seconds. */
const STAYS = 1;
/** Pictures that are further apart tell nothing of what lies between. */
const BETWEEN = 2;
/** Pictures that are remembered. */
const MOST = 64;
const AGAIN_MS = 3000;
/** RTP timestamps of pictures, in a second, and how many there are. */
const CLOCK = 90000;
const WRAP = 2 ** 32;

/**
 * What was seen, by time.
 */
export class Timeline {
  constructor() {
    /** @type {Seen[]} */
    this.all = [];
    /** The last RTP timestamp, and the time that it stands for. @type {[number, number] | null} */
    this.last = null;
  }

  /** The time of an RTP timestamp, in seconds: they begin anew every 13 hours. @param {number} timestamp */
  ofRtp(timestamp) {
    if (!this.last) this.last = [timestamp, 0];
    const [last, time] = this.last;
    // The shorter way round.
    const step = ((timestamp - last + WRAP * 1.5) % WRAP) - WRAP / 2;
    this.last = [timestamp, time + step / CLOCK];
    return this.last[1];
  }

  /** @param {Seen} seen */
  learn(seen) {
    const last = this.all[this.all.length - 1];
    if (last && seen.at <= last.at) this.all = [];
    this.all.push(seen);
    if (this.all.length > MOST) this.all.shift();
  }

  /** What is to be drawn over the picture of a time. @param {number} at @returns {Seen | null} */
  at(at) {
    let index = this.all.length - 1;
    while (index >= 0 && this.all[index].at > at) index -= 1;
    const before = this.all[index];
    if (!before) return null;
    const after = this.all[index + 1];
    if (!after || after.at - before.at > BETWEEN) return at - before.at <= STAYS ? before : null;
    const part = (at - before.at) / (after.at - before.at);
    const detections = before.detections.map((one) => {
      const same = one.track === undefined ? undefined : after.detections.find((other) => other.track === one.track);
      const [from, to] = [one.relative_box, same?.relative_box];
      return from && to ? { ...one, relative_box: from.map((v, i) => v + (to[i] - v) * part) } : one;
    });
    return { ...before, detections };
  }
}

export class Overlay {
  /**
   * @param {HTMLElement} box where the picture is
   * @param {import("./live.js").Live} live what shows it
   */
  constructor(box, live) {
    this.box = box;
    this.live = live;
    this.canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
    this.words = h("span", { class: "unseen" });
    this.running = false;
    this.seen = new Timeline();
    /** @type {WebSocket | null} */
    this.socket = null;
    this.timer = 0;
    this.frame = 0;
    /** @type {HTMLVideoElement | null} */
    this.video = null;
    this.drawn = "";
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.box.parentElement?.append(this.canvas, this.words);
    this.live.ondetections = (message) => this.#learn(message);
    this.#look();
  }

  stop() {
    this.running = false;
    clearTimeout(this.timer);
    this.#quiet();
    this.live.ondetections = null;
    this.canvas.remove();
    this.words.remove();
  }

  #quiet() {
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
    this.socket = null;
    this.video?.cancelVideoFrameCallback?.(this.frame);
    this.video = null;
    this.seen = new Timeline();
  }

  /** Goes with what shows the picture at the moment: that may change at any time. */
  #look() {
    if (!this.running) return;
    const video = this.live.shown instanceof HTMLVideoElement ? this.live.shown : null;
    if (video !== this.video) {
      this.#quiet();
      this.video = video;
      this.#draw(null, 0);
      if (video) this.#next(video);
    }
    // By WebRTC it comes with the picture.
    if (this.live.way && this.live.way !== "webrtc" && !this.socket) this.#listen();
    this.timer = window.setTimeout(() => this.#look(), 500);
  }

  #listen() {
    const where = address(ofStream(this.live.id, "/detections"));
    where.protocol = where.protocol.replace("http", "ws");
    const socket = new WebSocket(where);
    this.socket = socket;
    socket.onmessage = ({ data }) => this.#learn(JSON.parse(data));
    socket.onclose = () => {
      window.setTimeout(() => {
        if (this.socket === socket) this.socket = null;
      }, AGAIN_MS);
    };
  }

  /** @param {any} message */
  #learn(message) {
    if (!message.detections) return;
    const byRtp = message.rtp_timestamp !== undefined;
    const at = byRtp ? this.seen.ofRtp(message.rtp_timestamp) : message.pts_secs;
    this.seen.learn({ at, width: message.width, height: message.height, detections: message.detections });
    this.canvas.dataset.by = byRtp ? "rtp" : "pts";
    // Single pictures have no times: what was seen last is nearest to the truth.
    if (this.live.way === "pictures") this.#draw(this.seen.at(at), 0);
  }

  /** @param {HTMLVideoElement} video */
  #next(video) {
    if (!this.running || video !== this.video) return;
    if (!video.requestVideoFrameCallback) {
      this.#show(video.currentTime + this.live.zero);
      window.setTimeout(() => this.#next(video), 100);
      return;
    }
    this.frame = video.requestVideoFrameCallback((_, picture) => {
      const timestamp = /** @type {any} */ (picture).rtpTimestamp;
      this.#show(timestamp === undefined ? picture.mediaTime + this.live.zero : this.seen.ofRtp(timestamp));
      this.#next(video);
    });
  }

  /** @param {number} at */
  #show(at) {
    const seen = this.seen.at(at);
    this.#draw(seen, seen ? at - seen.at : 0);
  }

  /** @param {Seen | null} seen @param {number} age how much older than the picture it is, in seconds */
  #draw(seen, age) {
    const all = seen?.detections ?? [];
    // Nothing over nothing is most of the time.
    if (!all.length && this.canvas.dataset.count === "0") return;
    const { clientWidth: wide, clientHeight: high } = this.canvas;
    const scale = devicePixelRatio || 1;
    const [across, down] = [Math.round(wide * scale), Math.round(high * scale)];
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
    }
    const pen = this.canvas.getContext("2d");
    this.canvas.dataset.count = String(all.length);
    this.canvas.dataset.age = age.toFixed(3);
    const words = all.length ? `Seen: ${all.map(({ label }) => label).join(", ")}` : "";
    if (words !== this.drawn) this.words.textContent = words;
    this.drawn = words;
    if (!pen) return;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, across, down);
    if (!seen || !all.length) return;
    pen.scale(scale, scale);
    // The picture lies in the middle of its box, as large as it can be.
    const { videoWidth, videoHeight } = this.video ?? { videoWidth: 0, videoHeight: 0 };
    // What is analysed may be a smaller stream, which need not have the same shape.
    const [iw, ih] = [videoWidth || seen.width, videoHeight || seen.height];
    const fit = Math.min(wide / iw, high / ih);
    const [w, t] = [iw * fit, ih * fit];
    const [left, top] = [(wide - w) / 2, (high - t) / 2];
    pen.font = "600 12px system-ui, sans-serif";
    pen.textBaseline = "top";
    pen.lineWidth = 2;
    let line = top + 4;
    for (const { label, score, relative_box: box } of all) {
      const text = `${label} ${Math.round(score * 100)} %`;
      const paint = colour(label);
      const long = pen.measureText(text).width + 8;
      let [x, y] = [left + 4, line];
      if (box) {
        const [a, b, c, d] = box;
        pen.strokeStyle = paint;
        pen.strokeRect(left + a * w, top + b * t, (c - a) * w, (d - b) * t);
        [x, y] = [left + a * w, Math.max(top, top + b * t - 18)];
      } else {
        line += 20;
      }
      pen.fillStyle = paint;
      pen.fillRect(x - 1, y, long, 18);
      pen.fillStyle = "#101010";
      pen.fillText(text, x + 3, y + 3);
    }
  }
}
