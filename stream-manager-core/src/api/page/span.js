// A span of time that is selected: what can be done with what is recorded in it.

import { ask, between, may, ofStream } from "./api.js";
import { button, dialog, fill, h, say, size } from "./dom.js";
import { full, long } from "./zone.js";

/**
 * @typedef {import("./timeline.js").Span} Span
 * @typedef {{
 *   me: import("./api.js").Me,
 *   zone: () => string,
 *   cameras: () => string[],
 *   active: () => string,
 *   span: () => Span | null,
 *   clear: () => void,
 *   changed: () => Promise<void>,
 *   deleted: () => void,
 *   exported: () => Promise<void>,
 * }} Around
 */

export class Selection {
  /** @param {Around} around */
  constructor(around) {
    this.around = around;
    this.words = h("span");
    this.element = h("div", { class: "bar selection", hidden: true, role: "group", "aria-label": "What is selected" });
  }

  draw() {
    const { me, zone, cameras, clear } = this.around;
    const span = this.around.span();
    if (span) fill(this.words, `${full(span.start, zone())} – ${full(span.end, zone())} (${long(span.end - span.start)})`);
    // The buttons stay while an end is dragged.
    if (span && this.element.hidden) {
      const records = cameras().some((id) => may(me, "record", id));
      fill(
        this.element,
        this.words,
        button("Export …", () => this.#export()),
        records && button("Protect", () => this.#protect(true)),
        records && button("Protect no longer", () => this.#protect(false)),
        cameras().some((id) => may(me, "api.write", id)) && button("Delete …", () => this.#delete(), { class: "danger" }),
        button("Clear", clear),
      );
    }
    this.element.hidden = !span;
  }

  #span() {
    return /** @type {Span} */ (this.around.span());
  }

  /** Which cameras it is for. @param {string} action */
  #which(action) {
    const { me, cameras, active } = this.around;
    const boxes = cameras()
      .filter((id) => may(me, action, id))
      .map((id, _, all) => ({ id, box: h("input", { type: "checkbox", checked: id === active() || all.length === 1 }) }));
    return {
      element: h("fieldset", {}, h("legend", {}, "Cameras"), boxes.map(({ id, box }) => h("label", { class: "check" }, box, h("span", {}, id)))),
      ids: () => boxes.filter(({ box }) => box.checked).map(({ id }) => id),
    };
  }

  /** @param {boolean} on */
  async #protect(on) {
    const { me, cameras, changed } = this.around;
    const { start, end } = this.#span();
    let count = 0;
    for (const id of cameras().filter((one) => may(me, "record", one))) {
      count += (await ask("POST", ofStream(id, `/recordings/${on ? "protect" : "unprotect"}?${between(start, end)}`))).segments;
    }
    say(count ? `${count} ${count === 1 ? "file is" : "files are"} ${on ? "protected" : "protected no longer"}.` : "Nothing has changed.");
    await changed();
  }

  #delete() {
    const { zone, changed, deleted } = this.around;
    const cameras = this.#which("api.write");
    const { start, end } = this.#span();
    const also = h("input", { type: "checkbox" });
    return dialog("Delete recordings", [
      h("p", {}, `What is recorded from ${full(start, zone())} to ${full(end, zone())} is deleted, in whole files, and cannot be had back.`),
      cameras.element,
      h("label", { class: "check" }, also, h("span", {}, "what is protected, too")),
    ], "Delete", async () => {
      let [segments, bytes] = [0, 0];
      for (const id of cameras.ids()) {
        const done = await ask("DELETE", ofStream(id, `/recordings?${between(start, end)}${also.checked ? "&protected=true" : ""}`));
        segments += done.segments;
        bytes += done.bytes;
      }
      say(segments ? `${segments} ${segments === 1 ? "file" : "files"} with ${size(bytes)} are deleted.` : "There is no whole file in this time that may be deleted.");
      deleted();
      await changed();
    }, "danger");
  }

  #export() {
    const { zone, exported } = this.around;
    const cameras = this.#which("playback");
    const { start, end } = this.#span();
    const format = h("select", {}, [["mp4", "MP4"], ["mkv", "Matroska"], ["ts", "MPEG-TS"], ["fmp4", "fragmented MP4"]].map(([value, text]) => h("option", { value }, text)));
    const exact = h("input", { type: "checkbox" });
    const burn = h("input", { type: "checkbox" });
    const speed = h("input", { type: "number", min: "0.1", max: "10000", step: "any", placeholder: "1" });
    return dialog("Export", [
      cameras.element,
      h("label", {}, "As", format),
      h("label", { class: "check" }, exact, h("span", {}, "exactly from the first picture to the last (otherwise from a keyframe)")),
      h("label", { class: "check" }, burn, h("span", {}, "with the time written into the picture")),
      h("label", {}, "So many times as fast (a time-lapse, without sound)", speed),
    ], "Export", async () => {
      for (const id of cameras.ids()) {
        await ask("POST", ofStream(id, "/exports"), {
          start: new Date(start).toISOString(),
          end: new Date(end).toISOString(),
          format: format.value,
          exact: exact.checked,
          ...(burn.checked ? { burn_time: zone() } : {}),
          ...(speed.value ? { speed: Number(speed.value) } : {}),
        });
      }
      await exported();
    });
  }
}
