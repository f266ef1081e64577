// What is seen in a picture, drawn over it: boxes with their names.

import { ask, ofStream } from "./api.js";
import { colour, h } from "./dom.js";

/** How often it is asked for. What is older than a few of these is not true any more. */
const EVERY_MS = 400;
const STALE_MS = 3000;
const AFTER_FAILURE_MS = 5000;

export class Overlay {
  /**
   * @param {HTMLElement} box where the picture is
   * @param {string} id
   */
  constructor(box, id) {
    this.box = box;
    this.id = id;
    this.canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
    this.words = h("span", { class: "unseen" });
    this.timer = 0;
    this.running = false;
    this.last = "";
    this.changed = 0;
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.box.parentElement?.append(this.canvas, this.words);
    this.#ask();
  }

  stop() {
    this.running = false;
    clearTimeout(this.timer);
    this.canvas.remove();
    this.words.remove();
  }

  async #ask() {
    let pause = EVERY_MS;
    try {
      const { last } = await ask("GET", ofStream(this.id, "/inference"));
      if (!this.running) return;
      if (last?.frame_time !== this.last) {
        this.last = last?.frame_time ?? "";
        this.changed = performance.now();
      }
      this.#draw(performance.now() - this.changed < STALE_MS ? last : null);
    } catch {
      this.#draw(null);
      pause = AFTER_FAILURE_MS;
    }
    if (this.running) this.timer = window.setTimeout(() => this.#ask(), pause);
  }

  /** @param {{width: number, height: number, detections: {label: string, score: number, relative_box?: number[] | null}[]} | null} seen */
  #draw(seen) {
    const { clientWidth: wide, clientHeight: high } = this.canvas;
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(wide * scale);
    this.canvas.height = Math.round(high * scale);
    const pen = this.canvas.getContext("2d");
    const all = seen?.detections ?? [];
    this.canvas.dataset.count = String(all.length);
    this.words.textContent = all.length ? `Seen: ${all.map(({ label }) => label).join(", ")}` : "";
    if (!pen || !seen || !all.length) return;
    pen.scale(scale, scale);
    // The picture lies in the middle of its box, as large as it can be.
    const fit = Math.min(wide / seen.width, high / seen.height);
    const [w, t] = [seen.width * fit, seen.height * fit];
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
