// Recordings of several cameras, played in step: one of them leads, the others keep to it.

import { address, ask, between, ofStream, request } from "./api.js";
import { fill, h } from "./dom.js";

/** How much is asked for at once, in milliseconds of what was recorded. */
const WINDOW_MS = 30 * 60_000;
/** What is being written can be had a moment later. */
export const LIVE_MARGIN_MS = 1500;
/** How far cameras may be apart, in seconds of the clock on the wall. */
const APART = 0.15;
const FAR_APART = 1;
/** For how long the others wait for one that loads. */
const PATIENCE_MS = 8000;
/** How soon one that failed is tried again. */
const AGAIN_MS = 3000;

/** One camera's recordings in a box. */
export class Replay {
  /**
   * @param {string} id
   * @param {() => number} now
   */
  constructor(id, now) {
    this.id = id;
    this.now = now;
    this.video = h("video", { playsInline: true, muted: true, preload: "auto", disablePictureInPicture: true });
    this.words = h("p", { class: "why" });
    this.element = h("div", { class: "player replay", "data-id": id }, h("div", { class: "picture" }, this.video), this.words, h("footer", {}, h("h2", { title: id }, id)));
    /** What is loaded: when its media begins and ends. @type {{start: number, end: number} | null} */
    this.loaded = null;
    /** Where there is nothing. @type {{start: number, end: number} | null} */
    this.hole = null;
    /** Until when that is believed: just now more may come to be there. */
    this.believed = Infinity;
    this.loading = 0;
    this.failed = 0;
    this.attempt = 0;
    this.video.addEventListener("error", () => {
      if (!this.loaded) return;
      this.loaded = null;
      this.failed = performance.now();
    });
  }

  /** Where it is. */
  get time() {
    return this.loaded ? this.loaded.start + this.video.currentTime * 1000 : null;
  }

  /** @param {number} time */
  has(time) {
    return this.loaded !== null && time >= this.loaded.start - 1 && time < this.loaded.end;
  }

  /** @param {number} time */
  isHole(time) {
    return this.hole !== null && time >= this.hole.start && time < this.hole.end && performance.now() < this.believed;
  }

  /** Whether the others have to wait for it. */
  get waits() {
    if (this.loading) return performance.now() - this.loading < PATIENCE_MS;
    return this.loaded !== null && (this.video.seeking || (this.video.readyState < 3 && !this.video.ended));
  }

  /**
   * Loads what there is at a time.
   * @param {number} time
   */
  async #load(time) {
    const attempt = ++this.attempt;
    this.loading = performance.now();
    this.loaded = null;
    this.hole = null;
    this.believed = Infinity;
    const end = Math.min(time + WINDOW_MS, this.now());
    const where = ofStream(this.id, `/playback?${between(time, end)}&gaps=stop`);
    try {
      if (end <= time) throw new RangeError("not yet");
      const answer = await request(where, { method: "HEAD" });
      if (attempt !== this.attempt) return;
      const begins = Date.parse(answer.headers.get("playback-start") ?? "");
      const ends = Date.parse(answer.headers.get("playback-end") ?? "");
      if (answer.ok && begins < end && begins <= time + 40 && ends > time) {
        this.loaded = { start: begins, end: ends };
        this.video.src = address(where).href;
        this.video.currentTime = Math.max(0, (time - begins) / 1000);
        fill(this.words);
      } else if (answer.ok && begins > time) {
        this.hole = { start: time, end: begins };
      } else if (answer.ok || answer.status === 404) {
        // Nothing at all, or not yet: the next is perhaps days away.
        const { items } = await ask("GET", ofStream(this.id, `/recordings?view=segments&start=${new Date(end).toISOString()}&limit=1`));
        if (attempt !== this.attempt) return;
        const next = items.length ? Date.parse(items[0].start) : this.now();
        if (end < time + WINDOW_MS) this.believed = performance.now() + AGAIN_MS;
        this.hole = { start: time, end: Math.max(next, end, time + 1000) };
      } else {
        this.failed = performance.now();
        fill(this.words, answer.status === 403 ? "You may not watch its recordings." : `It cannot be played (${answer.status}).`);
      }
    } catch (error) {
      if (attempt !== this.attempt) return;
      if (error instanceof RangeError) {
        this.hole = { start: time, end: time + 1000 };
        this.believed = performance.now() + 1000;
      } else {
        this.failed = performance.now();
        fill(this.words, "The server does not answer.");
      }
    } finally {
      if (attempt === this.attempt) this.loading = 0;
    }
    if (this.hole) {
      this.video.pause();
      fill(this.words, "Nothing is recorded here.");
    }
    this.element.dataset.playing = String(this.loaded !== null);
  }

  /**
   * Keeps it where it has to be.
   * @param {number} time
   * @param {number} rate
   * @param {boolean} playing
   * @param {boolean} leads
   */
  keep(time, rate, playing, leads) {
    if (this.loading) return;
    if (!this.has(time)) {
      if (this.isHole(time) || performance.now() - this.failed < AGAIN_MS) return;
      this.#load(time);
      return;
    }
    const { video } = this;
    const late = (time - (this.time ?? time)) / 1000;
    if (!playing) {
      if (!video.paused) video.pause();
      if (!video.seeking && Math.abs(late) > 0.004) video.currentTime += late;
      return;
    }
    if (!leads && !video.seeking && Math.abs(late) > FAR_APART * Math.max(1, rate)) video.currentTime += late;
    const nudge = leads || Math.abs(late) < APART ? 0 : Math.max(-0.2, Math.min(0.2, late / 2));
    const wanted = Math.max(0.0625, Math.min(16, rate * (1 + nudge)));
    if (Math.abs(video.playbackRate - wanted) > 0.001) video.playbackRate = wanted;
    if (video.paused && !video.ended) video.play().catch(() => {});
  }

  /** Another time: what is loaded may do for it. @param {number} time */
  seek(time) {
    this.failed = 0;
    this.attempt += 1;
    this.loading = 0;
    if (this.has(time) && this.loaded) this.video.currentTime = Math.max(0, (time - this.loaded.start) / 1000);
    else {
      this.loaded = null;
      if (!this.isHole(time)) this.hole = null;
    }
  }

  stop() {
    this.attempt += 1;
    this.loaded = null;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}

/** All of them. */
export class Deck {
  /**
   * @param {() => number} now
   * @param {(deck: Deck) => void} changed
   */
  constructor(now, changed) {
    this.now = now;
    this.changed = changed;
    /** @type {Replay[]} */
    this.replays = [];
    this.time = now();
    this.rate = 1;
    this.playing = false;
    this.turn = setInterval(() => this.#tick(), 40);
  }

  /** The one that leads: the first with something to show. */
  get leader() {
    return this.replays.find((replay) => replay.has(this.time)) ?? null;
  }

  /** Whether something has to come first. */
  get waiting() {
    return this.replays.some((replay) => replay.waits);
  }

  /** @param {number} time */
  seek(time) {
    this.time = Math.min(Math.round(time), this.now() - LIVE_MARGIN_MS);
    for (const replay of this.replays) replay.seek(this.time);
    this.changed(this);
  }

  /** @param {boolean} playing */
  play(playing) {
    this.playing = playing;
    if (!playing) for (const replay of this.replays) replay.video.pause();
    this.changed(this);
  }

  /**
   * One picture on or back.
   * @param {number} by
   * @param {number} frameRate
   */
  step(by, frameRate) {
    this.play(false);
    const { leader } = this;
    const from = leader?.time ?? this.time;
    const begins = leader?.loaded?.start ?? 0;
    // The middle of a picture, so that rounding does not decide which one it is.
    const at = Math.floor(((from - begins) / 1000) * frameRate + 0.02) + by;
    this.time = begins + ((at + 0.5) / frameRate) * 1000;
    this.changed(this);
  }

  #tick() {
    const { leader } = this;
    const waiting = this.waiting;
    if (this.playing && leader && !waiting && leader.time !== null && !leader.video.paused) this.time = leader.time;
    if (this.playing && leader?.video.ended && leader.loaded) this.time = leader.loaded.end;
    if (this.playing && this.replays.length && this.replays.every((replay) => replay.isHole(this.time))) {
      // Nothing anywhere: on to where there is something again.
      const next = Math.min(...this.replays.map((replay) => replay.hole?.end ?? Infinity));
      if (next >= this.now() - LIVE_MARGIN_MS) this.play(false);
      else this.time = next;
    }
    for (const replay of this.replays) {
      // Who is ready waits for those who are not.
      replay.keep(this.time, this.rate, this.playing && !(waiting && !replay.waits), replay === leader);
    }
    if (this.playing) this.changed(this);
  }

  stop() {
    clearInterval(this.turn);
    for (const replay of this.replays) replay.stop();
  }
}
