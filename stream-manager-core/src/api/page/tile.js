// One stream in a box: its live picture, its name, how it is. It plays only while it can be seen.

import { may, playable } from "./api.js";
import { fill, h } from "./dom.js";
import { Live } from "./live.js";
import { Overlay } from "./overlay.js";

/** @typedef {import("./api.js").Stream} Stream */

/** A tile narrower than this takes the camera's smaller stream, if it has one. */
const SMALL_PIXELS = 520;

const WORDS = /** @type {Record<string, string>} */ ({
  running: "live",
  connecting: "connecting",
  backoff: "no signal",
  idle: "idle",
  stopped: "stopped",
});

/**
 * How a stream is, in a word and in full.
 * @param {Stream} stream
 */
export function condition(stream) {
  if (!stream.enabled) return { word: "disabled", kind: "stopped", why: "it is disabled" };
  if (stream.fallback?.active) return { word: "fallback", kind: "backoff", why: "something stands in for its source" };
  const why = stream.state === "running" ? "" : stream.last_error || stream.reason;
  return { word: WORDS[stream.state] ?? stream.state, kind: stream.state, why };
}

export class Tile {
  /**
   * @param {Stream} stream
   * @param {import("./api.js").Me} me
   */
  constructor(stream, me) {
    this.stream = stream;
    this.watched = may(me, "read", stream.id);
    this.box = h("div", { class: "picture" });
    this.state = h("span", { class: "state" });
    this.light = h("span", { class: "light", role: "img" });
    this.why = h("p", { class: "why" });
    this.element = h(
      "article",
      { class: "tile", draggable: true, "data-id": stream.id },
      h(
        "a",
        { href: `#/stream/${encodeURIComponent(stream.id)}`, draggable: false },
        this.box,
        this.why,
        h("footer", {}, this.light, h("h2", { title: stream.id }, stream.id), this.state),
      ),
    );
    /** @type {Overlay | null} */
    this.overlay = null;
    /** @type {Live | null} */
    this.live = null;
    this.visible = false;
    this.detail = "";
    this.update(stream);
  }

  /** @param {Stream} stream */
  update(stream) {
    this.stream = stream;
    const { word, kind, why } = condition(stream);
    this.element.dataset.state = kind;
    fill(this.state, word);
    const { recording } = stream;
    const light = { recording: "recording", blocked: "recording is blocked", paused: "recording is paused", waiting: "recording waits" }[recording.state];
    this.light.hidden = !light;
    this.light.dataset.recording = recording.state;
    this.light.setAttribute("aria-label", light ?? "");
    this.light.title = light ?? "";
    fill(this.why, this.watched ? why || this.detail : "You may not watch this stream.");
    this.#play();
  }

  /** @param {boolean} visible */
  see(visible) {
    this.visible = visible;
    this.#play();
  }

  #play() {
    const wanted = this.visible && this.watched && playable(this.stream) && !document.hidden;
    if (wanted && !this.live) {
      this.live = new Live(this.box, this.#best(), {
        onstate: (name, detail) => {
          this.detail = name === "playing" ? "" : detail;
          this.element.dataset.playing = String(name === "playing");
          if (this.stream.state === "running") fill(this.why, this.detail);
        },
      });
      this.live.start();
    } else if (!wanted && this.live) {
      this.live.stop();
      this.live = null;
      this.element.dataset.playing = "false";
    }
    if (this.live && wanted && this.stream.inference?.state === "running") {
      this.overlay ??= new Overlay(this.box, this.live);
      this.overlay.start();
    } else {
      this.overlay?.stop();
      this.overlay = null;
    }
  }

  /** The camera's own smaller stream for a small tile: nothing is encoded for that. */
  #best() {
    const variants = this.stream.config?.variants ?? [];
    const small = this.element.clientWidth * devicePixelRatio < SMALL_PIXELS;
    const last = variants[variants.length - 1];
    return small && last ? `${this.stream.id}/${last.name}` : this.stream.id;
  }

  stop() {
    this.visible = false;
    this.#play();
  }
}
