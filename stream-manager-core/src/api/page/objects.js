// What was seen: people, cars and whatever a model knows, looked for by what it is, where and when, with pictures and clips.

import { address, all, ask, between, listen, may, now } from "./api.js";
import { button, dialog, fill, h } from "./dom.js";
import { DAY, dayOf, full, instant, isoDate, long, ownZone } from "./zone.js";

/**
 * @typedef {{model: string, label: string, score: number}} Attribute
 * @typedef {{
 *   object: string, stream: string, label: string, best_score: number, begin: string, last: string, duration_secs: number, present: boolean,
 *   zones: string[], lines: {line: string, direction: string}[], attributes?: Attribute[], picture_url: string | null, clip_url: string,
 * }} Seen
 */

const PAGE = 48;
const SOON_MS = 400;
/** A clip begins this much before its object. */
const BEFORE_MS = 5000;

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @returns {() => void} what ends it
 */
export function objects(place, me) {
  const zone = ownZone();
  let ended = false;
  let next = "";
  let turn = 0;
  let pages = 0;
  let soon = 0;
  /** @type {Set<string>} */
  const labels = new Set();
  /** @type {Set<string>} */
  const zones = new Set();

  const later = () => {
    clearTimeout(soon);
    soon = window.setTimeout(() => read(false), SOON_MS);
  };
  const camera = h("select", { onchange: later }, h("option", { value: "" }, "All cameras"));
  const knownLabels = h("datalist", { id: "labels" });
  const knownZones = h("datalist", { id: "zones" });
  const label = h("input", { type: "search", placeholder: "person, dog", oninput: later });
  label.setAttribute("list", "labels");
  const where = h("input", { type: "search", placeholder: "door", oninput: later });
  where.setAttribute("list", "zones");
  const score = h("input", { type: "number", min: "0", max: "100", step: "5", value: "0", inputMode: "numeric", oninput: later });
  const day = h("input", { type: "date", onchange: later });
  const from = h("input", { type: "time", value: "00:00", onchange: later });
  const to = h("input", { type: "time", value: "", onchange: later });
  const order = h("select", { onchange: later }, h("option", { value: "newest" }, "Newest first"), h("option", { value: "oldest" }, "Oldest first"));
  const found = h("ol", { class: "seen" });
  const empty = h("p", { class: "empty", hidden: true });
  const more = button("More", () => read(true), { hidden: true });
  const live = h("span", { class: "pager", "aria-live": "polite" });

  /** From when to when, if a day is named. */
  const range = () => {
    if (!day.value) return "";
    const [year, month, date] = day.value.split("-").map(Number);
    const at = (/** @type {string} */ text) => instant(zone, year, month, date, ...text.split(":").map(Number));
    const end = to.value ? at(to.value) : dayOf(at("12:00"), zone, 1);
    const start = at(from.value || "00:00");
    // Until after midnight.
    return `&${between(start, end > start ? end : end + DAY)}`;
  };

  /** @param {boolean} on */
  const read = async (on) => {
    const mine = ++turn;
    const words = (/** @type {string} */ name, /** @type {HTMLInputElement | HTMLSelectElement} */ field) => {
      const text = field.value.split(",").map((part) => part.trim()).filter(Boolean).join(",");
      return text && `&${name}=${encodeURIComponent(text)}`;
    };
    const least = Math.min(100, Math.max(0, Number(score.value) || 0)) / 100;
    const query = `api/objects?limit=${PAGE}&order=${order.value}${words("stream", camera)}${words("label", label)}${words("zone", where)}${least ? `&min_score=${least}` : ""}${range()}`;
    let page;
    try {
      page = await ask("GET", `${query}${on && next ? `&after=${encodeURIComponent(next)}` : ""}`);
    } catch (error) {
      if (mine !== turn || ended) return;
      fill(found);
      more.hidden = true;
      empty.hidden = false;
      fill(empty, String(/** @type {Error} */ (error).message));
      return;
    }
    if (mine !== turn || ended) return;
    next = page.next ?? "";
    pages = on ? pages + 1 : 1;
    const cards = page.items.map(card);
    if (on) found.append(...cards);
    else fill(found, cards);
    more.hidden = !next;
    empty.hidden = found.children.length > 0;
    fill(empty, "Nothing was seen that is like this.");
    fill(live, found.children.length ? `${found.children.length}${next ? " and more" : ""}` : "");
    for (const seen of /** @type {Seen[]} */ (page.items)) {
      labels.add(seen.label);
      seen.zones.forEach((name) => zones.add(name));
    }
    fill(knownLabels, [...labels].sort().map((value) => h("option", { value })));
    fill(knownZones, [...zones].sort().map((value) => h("option", { value })));
  };

  /** Its words: what it is, and what further models say of it. @param {Seen} seen */
  const named = (seen) => [seen.label, ...(seen.attributes ?? []).map((one) => one.label)].join(", ");

  /** @param {Seen} seen */
  const card = (seen) => {
    const at = Date.parse(seen.begin);
    const picture = seen.picture_url ? h("img", { alt: "", loading: "lazy", src: address(seen.picture_url.slice(1)).href }) : null;
    // It may be forgotten by now.
    if (picture) picture.onerror = () => picture.remove();
    return h(
      "li",
      {},
      h(
        "button",
        { type: "button", onclick: () => open(seen) },
        h("span", { class: "frame" }, picture ?? h("span", {}, "no picture")),
        h("b", {}, named(seen), h("small", {}, `${Math.round(seen.best_score * 100)} %`)),
        h("span", {}, seen.stream),
        h("time", { dateTime: seen.begin }, full(at, zone)),
        h("small", {}, seen.present ? "still there" : `for ${long(Math.max(1000, seen.duration_secs * 1000))}`, seen.zones.length ? ` · ${seen.zones.join(", ")}` : ""),
      ),
    );
  };

  /** @param {Seen} seen */
  const open = (seen) => {
    const at = Date.parse(seen.begin);
    const clip = address(seen.clip_url.slice(1)).href;
    const video = h("video", { src: clip, controls: true, autoplay: true, muted: true, playsInline: true });
    const problem = h("p", { class: "none", hidden: true }, "Nothing was recorded of it.");
    video.onerror = () => {
      video.remove();
      problem.hidden = false;
    };
    const lines = seen.lines.map(({ line, direction }) => `${line} (${direction})`);
    /** @type {[string, string][]} */
    const rows = [
      ["Camera", seen.stream],
      ["Came", full(at, zone)],
      ["Was there", seen.present ? "still is" : long(Math.max(1000, seen.duration_secs * 1000))],
      ["How sure", `${Math.round(seen.best_score * 100)} %`],
      ["Zones", seen.zones.join(", ")],
      ["Lines", lines.join(", ")],
      ["More", (seen.attributes ?? []).map((one) => `${one.label} ${Math.round(one.score * 100)} % (${one.model})`).join(", ")],
    ];
    const close = () => /** @type {HTMLDialogElement | null} */ (video.closest("dialog") ?? problem.closest("dialog"))?.close();
    const go = () => {
      close();
      location.hash = `#/recordings/${encodeURIComponent(seen.stream)}@${at - BEFORE_MS}`;
    };
    const forget = button("Forget it", async () => {
      await ask("DELETE", `api/objects/${encodeURIComponent(seen.object)}`);
      close();
      await read(false);
    });
    dialog(
      named(seen),
      [
        video,
        problem,
        h("dl", { class: "facts" }, rows.filter(([, text]) => text).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
        h("div", { class: "row" }, h("a", { class: "button", href: clip, download: `${seen.stream.replaceAll("/", "-")}-${seen.label}.mp4` }, "Download the clip"), may(me, "record", seen.stream) && forget),
      ],
      "Show in recordings",
      go,
      "go",
      "Close",
    );
  };

  const clear = () => {
    for (const field of [label, where, day, to]) field.value = "";
    [camera.value, score.value, from.value, order.value] = ["", "0", "00:00", "newest"];
    return read(false);
  };
  const days = (/** @type {number} */ back) => () => {
    day.value = isoDate(dayOf(now(), zone, -back) + DAY / 2, zone);
    return read(false);
  };
  fill(
    place,
    h("div", { class: "bar" }, h("h1", {}, "Seen"), live, h("span", { class: "space" }), button("Today", days(0)), button("Yesterday", days(1)), button("Everything", clear)),
    h(
      "form",
      { class: "card filters", onsubmit: (/** @type {Event} */ event) => event.preventDefault(), "aria-label": "What to look for" },
      h("label", {}, "What", label),
      h("label", {}, "Zone", where),
      h("label", {}, "Camera", camera),
      h("label", {}, "Sure, % at least", score),
      h("label", {}, "Day", day),
      h("label", {}, "From", from),
      h("label", {}, "To", to),
      h("label", {}, "Order", order),
    ),
    knownLabels,
    knownZones,
    found,
    empty,
    h("div", { class: "row" }, more),
  );
  all("api/streams").then(
    (streams) => !ended && camera.append(...streams.filter(({ id }) => may(me, "playback", id)).map(({ id }) => h("option", { value: id }, id))),
    () => {},
  );
  read(false);
  // What comes is shown at once, unless somebody has gone further back.
  const silence = listen(["object"], ({ phase }) => {
    if (pages <= 1 && phase !== "update" && order.value === "newest" && !document.querySelector("dialog")) later();
  });
  return () => {
    ended = true;
    clearTimeout(soon);
    silence();
  };
}
