// Exports: how far they are, and where they can be had.

import { address, all, ask, may } from "./api.js";
import { button, fill, h, size } from "./dom.js";
import { full, long } from "./zone.js";

const RUNNING_MS = 700;

export class Exports {
  /**
   * @param {import("./api.js").Me} me
   * @param {() => string} zone
   */
  constructor(me, zone) {
    this.me = me;
    this.zone = zone;
    this.list = h("ul", { class: "exports" });
    this.element = h("section", { class: "card", hidden: true }, h("h2", {}, "Exports"), this.list);
    this.timer = 0;
    this.ended = false;
    if (may(me, "playback")) this.refresh();
  }

  async refresh() {
    clearTimeout(this.timer);
    /** @type {any[]} */
    let items;
    try {
      items = await all("api/exports");
    } catch {
      return;
    }
    if (this.ended) return;
    items.sort((a, b) => String(b.created).localeCompare(String(a.created)));
    this.element.hidden = items.length === 0;
    fill(this.list, items.map((item) => this.#line(item)));
    if (items.some(({ state }) => state === "waiting" || state === "running")) this.timer = window.setTimeout(() => this.refresh(), RUNNING_MS);
  }

  /** @param {any} item */
  #line(item) {
    const { id, stream, state, progress, problem, result } = item;
    const running = state === "waiting" || state === "running";
    const at = Date.parse(item.start);
    const name = `${stream}, ${full(at, this.zone())}, ${long(Date.parse(item.end) - at)}`;
    const words = state === "done" ? size(result?.bytes ?? item.bytes) : problem || state;
    return h(
      "li",
      { "data-state": state },
      h("span", {}, name),
      running ? h("progress", { max: 1, value: progress, "aria-label": `Progress of ${name}` }) : h("small", {}, words),
      h(
        "span",
        { class: "row" },
        state === "done" && h("a", { class: "button", href: address(`api/exports/${encodeURIComponent(id)}/file`).href, download: "" }, "Download"),
        button(running ? "Stop" : "Delete", async () => {
          await ask("DELETE", `api/exports/${encodeURIComponent(id)}`);
          await this.refresh();
        }, { "aria-label": `${running ? "Stop" : "Delete"} the export of ${name}` }),
      ),
    );
  }

  stop() {
    this.ended = true;
    clearTimeout(this.timer);
  }
}
