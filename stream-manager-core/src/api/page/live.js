// Live pictures of a stream in a box: WebRTC, else fragmented MP4 over a WebSocket, else one picture after the other.

import { address, ask, Offline, ofStream, request } from "./api.js";
import { h } from "./dom.js";

/** @typedef {"webrtc" | "mse" | "pictures"} Way */

/** How long WebRTC has to show something before the next way is tried. */
const WEBRTC_LIMIT_MS = 6000;
/** How often there is a picture where nothing else goes. */
const PICTURE_MS = 2000;
/** What is buffered behind the picture is let go of. */
const KEEP_SECONDS = 10;

/** How long to wait for a server that does not answer. */
const AGAIN_MS = 2000;

/** Whether the server has WebRTC is found out once. */
let webrtc = true;

/** Streams that do not come by WebRTC, for what they are made of. @type {Set<string>} */
const otherwise = new Set();

/** Shows a stream in an element, from start() to stop(). */
export class Live {
  /**
   * @param {HTMLElement} box
   * @param {string} id
   * @param {{onstate?: (state: string, detail: string) => void}} [options]
   */
  constructor(box, id, options = {}) {
    this.box = box;
    this.id = id;
    this.tell = options.onstate ?? (() => {});
    /** @type {Way | null} */
    this.way = null;
    /** @type {(() => void) | null} */
    this.end = null;
    this.attempt = 0;
    this.muted = true;
    /** @type {any} */
    this.player = null;
    /** Told what is seen, by WebRTC. @type {((message: any) => void) | null} */
    this.ondetections = null;
    /** Where the zero of what is shown is on the stream's timeline, in seconds. */
    this.zero = 0;
  }

  start() {
    if (this.end) return;
    this.#begin(this.#first());
  }

  /** @returns {Way} */
  #first() {
    return webrtc && !otherwise.has(this.id) ? "webrtc" : "mse";
  }

  /** How far what is shown is behind what is sent, in milliseconds, as far as that is known here. @returns {Promise<number | null>} */
  async delay() {
    if (this.way === "webrtc" && this.player) {
      const { bufferMs, roundTripMs } = await this.player.statistics();
      return bufferMs === undefined ? null : bufferMs + (roundTripMs ?? 0) / 2;
    }
    if (this.way === "mse" && this.shown instanceof HTMLVideoElement) {
      const { buffered, currentTime } = this.shown;
      return buffered.length ? (buffered.end(buffered.length - 1) - currentTime) * 1000 : null;
    }
    return null;
  }

  stop() {
    this.attempt += 1;
    this.end?.();
    this.end = null;
    this.way = null;
    this.box.replaceChildren();
  }

  /** The element that shows it, for pictures of it. */
  get shown() {
    return /** @type {HTMLVideoElement | HTMLImageElement | null} */ (this.box.firstElementChild);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    if (this.shown instanceof HTMLVideoElement) this.shown.muted = muted;
  }

  /** @param {Way} way */
  #begin(way) {
    this.stop();
    this.way = way;
    this.box.dataset.way = way;
    const attempt = this.attempt;
    /** Another way, unless it is only that nobody answers. @param {Way} other */
    const next = async (other) => {
      const answers = await ask("GET", "health/live").then(
        () => true,
        (error) => !(error instanceof Offline),
      );
      if (attempt !== this.attempt) return;
      if (answers) return this.#begin(other);
      this.tell("waiting", "the server does not answer");
      const again = setTimeout(() => next(way === "pictures" ? this.#first() : way), AGAIN_MS);
      this.end = () => clearTimeout(again);
    };
    if (way === "webrtc") this.#webrtc(attempt, next);
    else if (way === "mse") this.#mse(attempt, next);
    else this.#pictures(attempt, () => next(this.#first()));
  }

  #video() {
    const video = h("video", { autoplay: true, playsInline: true, muted: this.muted, disablePictureInPicture: false });
    this.box.replaceChildren(video);
    return video;
  }

  /**
   * @param {number} attempt
   * @param {(way: Way) => unknown} next
   */
  async #webrtc(attempt, next) {
    const video = this.#video();
    /** @type {any} */
    let module;
    try {
      module = await import(address("webrtc/player.js").href);
    } catch {
      webrtc = false;
      return next("mse");
    }
    if (attempt !== this.attempt) return;
    const where = address(`webrtc/${this.id.split("/").map(encodeURIComponent).join("/")}/whep`);
    // What does not come this way may come another: a firewall, or a codec that the browser has only elsewhere.
    const limit = setTimeout(() => video.readyState < 2 && next("mse"), WEBRTC_LIMIT_MS);
    const player = new module.WhepPlayer(video, where, {
      ondetections: (/** @type {any} */ message) => this.ondetections?.(message),
      onstate: (/** @type {string} */ state, /** @type {string} */ detail, /** @type {number} */ status) => {
        if (attempt !== this.attempt) return;
        if (status === 406) {
          otherwise.add(this.id);
          next("mse");
        } else this.tell(state, detail);
      },
    });
    this.player = player;
    this.end = () => {
      clearTimeout(limit);
      player.stop();
      this.player = null;
    };
    player.start();
  }

  /**
   * @param {number} attempt
   * @param {(way: Way) => unknown} next
   */
  #mse(attempt, next) {
    if (!("MediaSource" in globalThis)) return next("pictures");
    const video = this.#video();
    const media = new MediaSource();
    const url = URL.createObjectURL(media);
    video.src = url;
    const where = address(ofStream(this.id, "/live.mp4"));
    where.protocol = where.protocol.replace("http", "ws");
    /** @type {WebSocket | null} */
    let socket = null;
    let again = 0;
    /** @type {Uint8Array[]} */
    const waiting = [];
    /** @type {SourceBuffer | null} */
    let buffer = null;
    const pump = () => {
      if (!buffer || buffer.updating || attempt !== this.attempt) return;
      try {
        const ranges = buffer.buffered;
        if (ranges.length && video.currentTime - ranges.start(0) > KEEP_SECONDS * 2) {
          buffer.remove(0, video.currentTime - KEEP_SECONDS);
          return;
        }
        const part = waiting.shift();
        if (part) buffer.appendBuffer(/** @type {any} */ (part));
        // Live, not what was live a while ago.
        const end = ranges.length ? ranges.end(ranges.length - 1) : 0;
        if (end - video.currentTime > 3) video.currentTime = end - 0.5;
      } catch {
        this.#begin("pictures");
      }
    };
    const open = () => {
      if (attempt !== this.attempt) return;
      socket = new WebSocket(where);
      socket.binaryType = "arraybuffer";
      let heard = false;
      socket.onmessage = ({ data }) => {
        heard = true;
        if (typeof data === "string") {
          const { type, zero } = told(data);
          this.zero = zero;
          if (!type || !MediaSource.isTypeSupported(type)) return next("pictures");
          if (buffer) {
            // Others than before: begun anew, which is short.
            this.#begin("mse");
          } else {
            buffer = media.addSourceBuffer(type);
            buffer.mode = "segments";
            buffer.addEventListener("updateend", pump);
          }
          return;
        }
        waiting.push(new Uint8Array(data));
        if (waiting.length > 400) return this.#begin("mse");
        this.tell("playing", "");
        pump();
      };
      socket.onclose = ({ reason }) => {
        if (attempt !== this.attempt) return;
        if (!heard) return next("pictures");
        this.tell("waiting", reason || "the connection has ended");
        again = window.setTimeout(() => this.#begin(this.#first()), 2000);
      };
    };
    media.addEventListener("sourceopen", open, { once: true });
    this.end = () => {
      clearTimeout(again);
      socket?.close();
      URL.revokeObjectURL(url);
    };
  }

  /**
   * @param {number} attempt
   * @param {() => void} gone
   */
  #pictures(attempt, gone) {
    const image = h("img", { alt: `the newest picture of ${this.id}` });
    this.box.replaceChildren(image);
    let timer = 0;
    const show = () => {
      request(ofStream(this.id, "/snapshot.jpg?width=960"), { cache: "no-store" })
        .then(async (response) => {
          if (attempt !== this.attempt) return;
          if (response.ok) {
            const url = URL.createObjectURL(await response.blob());
            image.onload = () => URL.revokeObjectURL(url);
            image.src = url;
            this.tell("playing", "");
          } else {
            this.tell("waiting", "there is no picture");
          }
        })
        .then(
          () => {
            if (attempt === this.attempt) timer = window.setTimeout(show, PICTURE_MS);
          },
          () => attempt === this.attempt && gone(),
        );
    };
    this.end = () => clearTimeout(timer);
    show();
  }
}

/**
 * What a message says: the type for a SourceBuffer, and where its zero is on the stream's timeline.
 * @param {string} text
 */
function told(text) {
  try {
    const { mime, start_pts_secs } = JSON.parse(text);
    return { type: String(mime ?? ""), zero: Number(start_pts_secs ?? 0) };
  } catch {
    return { type: "", zero: 0 };
  }
}
