// The wall: live tiles of all streams, in an order and of a size that one chooses and keeps.

import { all, listen, may } from "./api.js";
import { fill, h } from "./dom.js";
import { Tile } from "./tile.js";

/** @typedef {import("./api.js").Stream} Stream */
/** @typedef {{name: string, count: number, order: string[]}} Layout */

const COUNTS = [0, 1, 4, 6, 9, 16, 25, 36];
/** How often the whole list is read, beside what is heard of. */
const REFRESH_MS = 15000;
/** How long a page of the sequence is shown. */
const SEQUENCE_MS = 10000;
const KEY = "stream-manager.wall";

/** @returns {{count: number, order: string[], layouts: Layout[]}} */
function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { count: Number(kept.count) || 0, order: kept.order ?? [], layouts: kept.layouts ?? [] };
  } catch {
    return { count: 0, order: [], layouts: [] };
  }
}

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @returns {() => void} what ends it
 */
export function wall(place, me) {
  let { count, order, layouts } = remembered();
  /** @type {Map<string, Tile>} */
  const tiles = new Map();
  let page = 0;
  let sequence = 0;
  let filter = "";
  let loaded = false;
  const grid = h("section", { class: "grid", "aria-label": "Live pictures" });
  const status = h("p", { class: "empty" }, "Loading …");
  const keep = () => localStorage.setItem(KEY, JSON.stringify({ count, order, layouts }));

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        tiles.get(/** @type {HTMLElement} */ (target).dataset.id ?? "")?.see(isIntersecting);
      }
    },
    { rootMargin: "64px" },
  );

  const sorted = () => {
    const places = new Map(order.map((id, at) => [id, at]));
    const at = (/** @type {string} */ id) => places.get(id) ?? order.length;
    const words = filter.toLowerCase();
    return [...tiles.keys()]
      .filter((id) => id.toLowerCase().includes(words))
      .sort((a, b) => at(a) - at(b) || a.localeCompare(b, undefined, { numeric: true }));
  };

  const draw = () => {
    const ids = sorted();
    const perPage = count || ids.length || 1;
    const pages = Math.max(1, Math.ceil(ids.length / perPage));
    page = Math.min(page, pages - 1);
    const shown = ids.slice(page * perPage, (page + 1) * perPage);
    const columns = Math.ceil(Math.sqrt(count || Math.min(shown.length, 16) || 1));
    grid.style.setProperty("--columns", String(columns));
    grid.dataset.fixed = String(count > 0);
    const wanted = shown.map((id) => /** @type {Tile} */ (tiles.get(id)).element);
    // What stays where it is goes on playing.
    if (wanted.length !== grid.children.length || wanted.some((element, at) => grid.children[at] !== element)) {
      for (const element of [...grid.children]) {
        if (!wanted.includes(/** @type {HTMLElement} */ (element))) {
          seen.unobserve(element);
          tiles.get(/** @type {HTMLElement} */ (element).dataset.id ?? "")?.see(false);
          element.remove();
        }
      }
      wanted.forEach((element, at) => {
        if (grid.children[at] !== element) grid.insertBefore(element, grid.children[at] ?? null);
        seen.observe(element);
      });
    }
    const none = tiles.size
      ? "No stream fits."
      : may(me, "api.write")
        ? h("span", {}, "There are no streams yet. ", h("a", { href: "#/add" }, "Add a camera"), ".")
        : "There are no streams that you may see.";
    fill(status, loaded && ids.length === 0 ? none : loaded ? "" : "Loading …");
    status.hidden = loaded && ids.length > 0;
    fill(pager, pages > 1 ? `${page + 1} of ${pages}` : "");
    previous.hidden = next.hidden = pages < 2;
    play.hidden = pages < 2;
  };

  /** @param {Stream[]} streams */
  const take = (streams) => {
    const ids = new Set(streams.map((stream) => stream.id));
    for (const [id, tile] of tiles) {
      if (!ids.has(id)) {
        tile.stop();
        tile.element.remove();
        tiles.delete(id);
      }
    }
    for (const stream of streams) {
      const tile = tiles.get(stream.id);
      if (tile) tile.update(stream);
      else tiles.set(stream.id, movable(new Tile(stream, me)));
    }
    loaded = true;
    draw();
  };

  /** By mouse, and by the keyboard with Alt and the arrows. @param {Tile} tile */
  const movable = (tile) => {
    const { element } = tile;
    element.addEventListener("dragstart", (event) => {
      event.dataTransfer?.setData("text/plain", tile.stream.id);
      element.classList.add("dragged");
    });
    element.addEventListener("dragend", () => element.classList.remove("dragged"));
    element.addEventListener("dragover", (event) => event.preventDefault());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      move(event.dataTransfer?.getData("text/plain") ?? "", tile.stream.id);
    });
    element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!event.altKey || !step) return;
      event.preventDefault();
      const ids = sorted();
      const target = ids[ids.indexOf(tile.stream.id) + step];
      if (target) move(tile.stream.id, target);
      element.querySelector("a")?.focus();
    });
    return tile;
  };

  /** @param {string} id @param {string} to */
  const move = (id, to) => {
    if (id === to || !tiles.has(id)) return;
    const ids = sorted();
    const at = ids.indexOf(to);
    const rest = ids.filter((other) => other !== id);
    rest.splice(at, 0, id);
    order = rest;
    keep();
    draw();
  };

  let reading = false;
  const refresh = async () => {
    if (reading) return;
    reading = true;
    try {
      take(await all("api/streams"));
    } catch (error) {
      if (!loaded) fill(status, String(/** @type {Error} */ (error).message));
    } finally {
      reading = false;
    }
  };

  const size = h(
    "select",
    {
      onchange: () => {
        count = Number(size.value);
        page = 0;
        keep();
        draw();
      },
    },
    COUNTS.map((n) => h("option", { value: String(n), selected: n === count }, n ? String(n) : "all")),
  );
  const search = h("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": "Search streams",
    oninput: () => {
      filter = search.value;
      page = 0;
      draw();
    },
  });
  const turn = (/** @type {number} */ by) => {
    const perPage = count || tiles.size || 1;
    const pages = Math.max(1, Math.ceil(sorted().length / perPage));
    page = (page + by + pages) % pages;
    draw();
  };
  const pager = h("span", { class: "pager", "aria-live": "polite" });
  const previous = h("button", { type: "button", "aria-label": "Previous page", onclick: () => turn(-1) }, "‹");
  const next = h("button", { type: "button", "aria-label": "Next page", onclick: () => turn(1) }, "›");
  const play = h("button", { type: "button", "aria-pressed": "false", onclick: () => toggle() }, "Sequence");
  const toggle = () => {
    clearInterval(sequence);
    const on = play.getAttribute("aria-pressed") !== "true";
    play.setAttribute("aria-pressed", String(on));
    if (on) sequence = window.setInterval(() => turn(1), SEQUENCE_MS);
  };
  const fullScreen = () => void (document.fullscreenElement ? document.exitFullscreen() : grid.requestFullscreen()).catch(() => {});
  const full = h("button", { type: "button", onclick: fullScreen }, "Full screen");
  /** From tile to tile. @param {number} by */
  const step = (by) => {
    const links = [...grid.querySelectorAll("a")];
    const at = links.findIndex((link) => link === document.activeElement);
    links[at < 0 ? 0 : Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  };
  const columns = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  /** @type {Record<string, () => void>} */
  const keys = {
    f: fullScreen, s: () => play.hidden || toggle(), PageUp: () => turn(-1), PageDown: () => turn(1),
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => step(-columns()), ArrowDown: () => step(columns()),
  };
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) return;
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", pressed);
  const saved = h("select", {
    "aria-label": "Layouts",
    onchange: () => {
      const chosen = saved.value;
      saved.value = "";
      if (chosen === "+") {
        const name = prompt("A name for this layout")?.trim().slice(0, 60);
        if (!name) return;
        layouts = [...layouts.filter((layout) => layout.name !== name), { name, count, order: sorted() }];
      } else {
        const layout = layouts.find((layout) => `=${layout.name}` === chosen);
        if (!layout) return;
        ({ count, order } = layout);
        size.value = String(count);
        page = 0;
      }
      keep();
      list();
      draw();
    },
  });
  const list = () =>
    fill(
      saved,
      h("option", { value: "" }, "Layout"),
      layouts.map(({ name }) => h("option", { value: `=${name}` }, name)),
      h("option", { value: "+" }, "Save this one …"),
    );
  list();

  fill(
    place,
    h("h1", { class: "unseen" }, "Live pictures"),
    h("div", { class: "bar" }, search, h("label", {}, "Tiles", size), saved, previous, pager, next, play, h("span", { class: "space" }), full),
    status,
    grid,
    h("p", { class: "keys" }, "Arrows go from tile to tile, Alt with an arrow moves one, Enter opens it, F is for full screen, Page up and down turn pages, S begins a sequence."),
  );
  const timer = setInterval(refresh, REFRESH_MS);
  // Many at a time are read once.
  let soon = 0;
  const silence = listen(
    ["stream_state", "recording_state", "stream_created", "stream_changed", "stream_deleted", "fallback_state"],
    () => {
      clearTimeout(soon);
      soon = window.setTimeout(refresh, 250);
    },
  );
  const awake = () => {
    for (const tile of tiles.values()) tile.update(tile.stream);
    if (!document.hidden) refresh();
  };
  document.addEventListener("visibilitychange", awake);
  refresh();
  return () => {
    clearInterval(timer);
    clearInterval(sequence);
    clearTimeout(soon);
    silence();
    seen.disconnect();
    document.removeEventListener("visibilitychange", awake);
    document.removeEventListener("keydown", pressed);
    for (const tile of tiles.values()) tile.stop();
  };
}
