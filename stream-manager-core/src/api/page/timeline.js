// Recordings of several cameras over time, on a canvas: spans, gaps, what is protected, what happened. It is dragged, zoomed, and selected in.

import { colour, h } from "./dom.js";
import { DAY, full, long, ticks } from "./zone.js";

/**
 * @typedef {{start: number, end: number}} Span
 * @typedef {{start: number, end: number | null, reason: string}} Gap
 * @typedef {{time: number, kind: string, text: string, count?: number}} Mark
 * @typedef {{spans: Span[], gaps: Gap[], marks: Mark[], protected: Span[]}} Data
 * @typedef {{id: string, data: Data | null}} Row
 */

const RULER = 30;
const ROW = 40;
const SHORTEST = 10_000;
const LONGEST = 62 * DAY;
/** How far a finger may slip and still have tapped. */
const TAP = 6;
export class Timeline {
  /**
   * @param {{
   *   zone: () => string,
   *   now: () => number,
   *   onseek: (time: number, row: Row | null) => void,
   *   onmove: () => void,
   *   onselect: () => void,
   *   onhover: (row: Row | null, time: number, x: number, words: string) => void,
   * }} options
   */
  constructor(options) {
    this.options = options;
    /** @type {Row[]} */
    this.rows = [];
    this.from = 0;
    this.to = 1;
    this.cursor = 0;
    this.active = "";
    /** @type {Span | null} */
    this.selection = null;
    this.drawn = 0;
    this.canvas = h("canvas", { class: "timeline", tabIndex: 0, role: "slider", "aria-label": "Time that is played", draggable: false });
    this.element = h("div", { class: "times" }, this.canvas);
    /** @type {Map<number, {x: number, y: number}>} */
    this.pointers = new Map();
    /** @type {{kind: "pan" | "select", x: number, from: number, to: number, moved: boolean, at: number} | null} */
    this.drag = null;
    this.canvas.addEventListener("pointerdown", (event) => this.#down(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.canvas.addEventListener("pointerup", (event) => this.#up(event));
    this.canvas.addEventListener("pointercancel", (event) => this.#up(event, true));
    this.canvas.addEventListener("pointerleave", () => options.onhover(null, 0, 0, ""));
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(((event.deltaX || event.deltaY) / this.width) * (this.to - this.from));
        else this.zoom(Math.exp(event.deltaY / 400), this.#time(event.offsetX));
      },
      { passive: false },
    );
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
    this.theme = new MutationObserver(() => this.draw());
    this.theme.observe(document.documentElement, { attributes: true });
  }

  get width() {
    return this.element.clientWidth || 1;
  }

  /** A pixel's worth of time. */
  get resolution() {
    return (this.to - this.from) / this.width;
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  show(from, to) {
    const length = Math.min(Math.max(to - from, SHORTEST), LONGEST);
    const middle = (from + to) / 2;
    this.from = Math.round(middle - length / 2);
    this.to = Math.round(middle + length / 2);
    this.options.onmove();
    this.draw();
  }

  /** @param {number} by */
  pan(by) {
    this.show(this.from + by, this.to + by);
  }

  /**
   * @param {number} factor
   * @param {number} [around]
   */
  zoom(factor, around = this.cursor >= this.from && this.cursor <= this.to ? this.cursor : (this.from + this.to) / 2) {
    const length = Math.min(Math.max((this.to - this.from) * factor, SHORTEST), LONGEST);
    const share = (around - this.from) / (this.to - this.from);
    this.show(around - share * length, around + (1 - share) * length);
  }

  /** @param {number} time */
  seek(time) {
    this.cursor = time;
    this.draw();
  }

  /** @param {Span | null} selection */
  select(selection) {
    this.selection = selection;
    this.options.onselect();
    this.draw();
  }

  /** @param {number} x */
  #time(x) {
    return this.from + (x / this.width) * (this.to - this.from);
  }

  /** @param {number} time */
  #x(time) {
    return ((time - this.from) / (this.to - this.from)) * this.width;
  }

  /** @param {number} y */
  #row(y) {
    return this.rows[Math.floor((y - RULER) / ROW)] ?? null;
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button !== 0) return;
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // It has gone already.
    }
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    const kind = event.offsetY < RULER || event.shiftKey ? "select" : "pan";
    this.drag = { kind, x: event.offsetX, from: this.from, to: this.to, moved: false, at: this.#time(event.offsetX) };
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const known = this.pointers.get(event.pointerId);
    if (!known || !this.drag) {
      this.#hover(event);
      return;
    }
    if (this.pointers.size === 2) {
      const [a, b] = [...this.pointers.values()];
      const before = Math.abs(a.x - b.x) || 1;
      const middle = this.#time((a.x + b.x) / 2);
      Object.assign(known, { x: event.offsetX, y: event.offsetY });
      this.zoom(before / (Math.abs(a.x - b.x) || 1), middle);
      this.drag.moved = true;
      return;
    }
    Object.assign(known, { x: event.offsetX, y: event.offsetY });
    const by = event.offsetX - this.drag.x;
    if (Math.abs(by) > TAP) this.drag.moved = true;
    if (!this.drag.moved) return;
    this.options.onhover(null, 0, 0, "");
    if (this.drag.kind === "pan") {
      const time = (by / this.width) * (this.drag.to - this.drag.from);
      this.show(this.drag.from - time, this.drag.to - time);
    } else {
      const now = this.#time(event.offsetX);
      this.select({ start: Math.min(this.drag.at, now), end: Math.max(this.drag.at, now) });
    }
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} [cancelled]
   */
  #up(event, cancelled = false) {
    this.pointers.delete(event.pointerId);
    const drag = this.drag;
    if (this.pointers.size) {
      // The other finger goes on dragging from where it is.
      const [rest] = this.pointers.values();
      if (drag) Object.assign(drag, { x: rest.x, from: this.from, to: this.to, moved: true });
      return;
    }
    this.drag = null;
    if (drag && !drag.moved && !cancelled) this.options.onseek(this.#time(event.offsetX), this.#row(event.offsetY));
  }

  /** @param {PointerEvent} event */
  #hover(event) {
    const row = this.#row(event.offsetY);
    const time = this.#time(event.offsetX);
    if (event.pointerType === "touch") return;
    const near = this.resolution * 4;
    const mark = row?.data?.marks.find((one) => Math.abs(one.time - time) < near);
    const gap = row?.data?.gaps.find((one) => one.start <= time && time < (one.end ?? this.options.now()));
    const zone = this.options.zone();
    const words = mark
      ? `${mark.kind}${mark.text ? `: ${mark.text}` : ""}${(mark.count ?? 1) > 1 ? ` and ${(mark.count ?? 1) - 1} more` : ""}`
      : gap
        ? `nothing recorded: ${gap.reason.replaceAll("_", " ")}, ${long((gap.end ?? this.options.now()) - gap.start)}`
        : "";
    this.options.onhover(row, time, event.offsetX, `${full(time, zone)}${words ? ` · ${words}` : ""}`);
  }

  /** Draws with the next picture, however often it is asked to. */
  draw() {
    if (!this.drawn) this.drawn = requestAnimationFrame(() => this.paint());
  }

  /** Draws now. */
  paint() {
    this.drawn = 0;
    const style = getComputedStyle(this.canvas);
    const of = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    const zone = this.options.zone();
    const width = this.width;
    const height = RULER + Math.max(this.rows.length, 1) * ROW;
    const scale = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      this.canvas.style.height = `${height}px`;
    }
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const letters = parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
    pen.font = `${Math.min(16, letters * 0.75)}px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    this.rows.forEach((row, at) => this.#paintRow(pen, row, RULER + at * ROW, of));
    // Times.
    pen.lineWidth = 1;
    for (const { at, text, day } of ticks(this.from, this.to, zone, this.resolution * 78)) {
      const x = Math.round(this.#x(at)) + 0.5;
      pen.strokeStyle = of(day ? "dim" : "line");
      pen.globalAlpha = day ? 0.9 : 0.7;
      pen.beginPath();
      pen.moveTo(x, day ? 0 : RULER - 8);
      pen.lineTo(x, height);
      pen.stroke();
      pen.globalAlpha = 1;
      pen.fillStyle = of(day ? "text" : "dim");
      pen.fillText(text, x + 4, RULER / 2);
    }
    const now = this.#x(this.options.now());
    if (now < width) {
      pen.fillStyle = of("ground");
      pen.globalAlpha = 0.55;
      pen.fillRect(Math.max(0, now), RULER, width, height);
      pen.globalAlpha = 1;
    }
    if (this.selection) {
      const [a, b] = [this.#x(this.selection.start), this.#x(this.selection.end)];
      pen.fillStyle = of("accent");
      pen.globalAlpha = 0.28;
      pen.fillRect(a, 0, Math.max(1, b - a), height);
      pen.globalAlpha = 1;
      pen.fillRect(a - 1, 0, 2, height);
      pen.fillRect(b - 1, 0, 2, height);
    }
    const x = this.#x(this.cursor);
    pen.fillStyle = of("bad");
    pen.fillRect(x - 1, 0, 2, height);
    pen.beginPath();
    pen.arc(x, 6, 5, 0, 7);
    pen.fill();
    this.canvas.setAttribute("aria-valuemin", String(Math.round(this.from / 1000)));
    this.canvas.setAttribute("aria-valuemax", String(Math.round(this.to / 1000)));
    this.canvas.setAttribute("aria-valuenow", String(Math.round(this.cursor / 1000)));
    this.canvas.setAttribute("aria-valuetext", full(this.cursor, zone));
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Row} row
   * @param {number} top
   * @param {(name: string) => string} of
   */
  #paintRow(pen, row, top, of) {
    const { width } = this;
    pen.fillStyle = of(row.id === this.active ? "line" : "card");
    pen.fillRect(0, top + 1, width, ROW - 2);
    const box = (/** @type {number} */ start, /** @type {number} */ end, /** @type {number} */ y, /** @type {number} */ high) => {
      const a = Math.max(0, this.#x(start));
      const b = Math.min(width, this.#x(end));
      if (b > 0 && a < width) pen.fillRect(a, y, Math.max(b - a, 1), high);
    };
    if (row.data) {
      pen.fillStyle = of("bad");
      pen.globalAlpha = 0.25;
      for (const { start, end } of row.data.gaps) box(start, end ?? this.options.now(), top + 18, ROW - 20);
      pen.globalAlpha = 1;
      pen.fillStyle = of("accent");
      for (const { start, end } of row.data.spans) box(start, end, top + 18, ROW - 20);
      pen.fillStyle = of("good");
      for (const { start, end } of row.data.protected) box(start, end, top + ROW - 6, 4);
      // As many as there are pixels, however many there are.
      /** @type {Map<string, {x: number, paint: string}>} */
      const last = new Map();
      for (const { time, kind } of row.data.marks) {
        const x = Math.round(this.#x(time));
        const before = last.get(kind);
        if (x < 0 || x > width || before?.x === x) continue;
        const paint = before?.paint ?? colour(kind);
        last.set(kind, { x, paint });
        pen.fillStyle = paint;
        pen.fillRect(x - 1, top + 13, 3, 12);
      }
    }
    pen.fillStyle = of("text");
    pen.fillText(row.data ? row.id : `${row.id} …`, 6, top + 9, Math.max(width - 12, 10));
  }

  stop() {
    cancelAnimationFrame(this.drawn);
    this.observer.disconnect();
    this.theme.disconnect();
  }
}
