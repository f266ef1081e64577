// What was recorded: a timeline over several cameras, players in step, marks, and what can be done with a span.

import { address, all, ask, between, listen, may, mayAll, now, ofStream, request } from "./api.js";
import { button, dialog, fill, h, say } from "./dom.js";
import { Exports } from "./exports.js";
import { Deck, LIVE_MARGIN_MS, Replay } from "./replay.js";
import { Selection } from "./span.js";
import { Timeline } from "./timeline.js";
import { clock, date, DAY, dayOf, full, instant, isoDate, isZone, long, ownZone, time as clockTime, weekOf, zoneName } from "./zone.js";

/** @typedef {import("./timeline.js").Row} Row */

const RATES = [0.25, 0.5, 1, 2, 4, 8, 16];
const MOST_CAMERAS = 9;
const KEY = "stream-manager.recordings";
const MARKS = 200;
const SOON_MS = 150;
const REFRESH_MS = 20_000;
const SKIP_MS = 10_000;
const NEAR_END_MS = 3000;

/** @returns {{cameras: string[] | null, zone: string}} */
function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { cameras: Array.isArray(kept.cameras) ? kept.cameras.map(String) : null, zone: String(kept.zone ?? "") };
  } catch {
    return { cameras: null, zone: "" };
  }
}

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @param {string} wanted a camera, and behind an @ a time, if there is one
 * @returns {() => void} what ends it
 */
export function recordings(place, me, wanted) {
  const [, wantedId, wantedTime] = wanted.match(/^(.*?)(?:@(\d+))?$/) ?? [];
  const kept = remembered();
  let zone = isZone(kept.zone) && kept.zone ? kept.zone : ownZone();
  /** @type {"day" | "week"} */
  let view = "day";
  /** @type {{id: string, fps: number, there: boolean}[]} */
  let known = [];
  /** @type {string[]} */
  let chosen = [];
  let active = "";
  let ended = false;

  const deck = new Deck(now, () => drawClock());
  const thumb = h("img", { alt: "", hidden: true });
  const words = h("figcaption");
  const hover = h("figure", { class: "hover", hidden: true }, thumb, words);
  const timeline = new Timeline({
    zone: () => zone,
    now,
    onseek: (time, row) => {
      if (row) activate(row.id);
      seek(time);
    },
    onmove: () => moved(),
    onselect: () => selection.draw(),
    onhover: (row, time, x, text) => showHover(row, time, x, text),
  });
  timeline.element.append(hover);
  if (wantedTime) deck.time = Number(wantedTime);

  // ---- where and when
  const label = h("span", { class: "when", "aria-live": "polite" });
  const clockLine = h("output", { class: "clock" });
  const dateField = h("input", { type: "date", "aria-label": "Day", onchange: () => dateField.value && goto(dateField.value) });
  const dayButton = h("button", { type: "button", onclick: () => whole("day") }, "Day");
  const weekButton = h("button", { type: "button", onclick: () => whole("week") }, "Week");
  const own = ownZone();
  const zones = [...new Set([own, me.time_zone ?? "UTC", "UTC", zone])].filter(isZone);
  const named = (/** @type {string} */ one) => (one === own ? `My time (${one})` : one === me.time_zone ? `The site's (${one})` : one);
  const zoneField = h(
    "select",
    {
      "aria-label": "Time zone",
      onchange: () => {
        zone = zoneField.value;
        keep();
        whole(view);
        drawClock();
        drawMarks();
      },
    },
    zones.map((one) => h("option", { value: one, selected: one === zone }, named(one))),
  );
  const keep = () => localStorage.setItem(KEY, JSON.stringify({ cameras: chosen, zone: zone === own ? "" : zone }));

  /** A whole day or week around what is played. @param {"day" | "week"} next @param {number} [around] */
  const whole = (next, around = deck.time) => {
    view = next;
    const day = next === "day";
    timeline.show(day ? dayOf(around, zone) : weekOf(around, zone), day ? dayOf(around, zone, 1) : weekOf(around, zone, 1));
  };
  /** @param {number} by */
  const turn = (by) => {
    const middle = (timeline.from + timeline.to) / 2;
    const at = view === "day" ? dayOf(middle, zone, by) : weekOf(middle, zone, by);
    whole(view, at);
  };
  /** @param {string} iso */
  const goto = (iso) => {
    const [year, month, day] = iso.split("-").map(Number);
    const at = instant(zone, year, month, day);
    whole("day", at);
    const before = clock(deck.time, zone);
    return settle(instant(zone, year, month, day, before.hour, before.minute, before.second));
  };
  /** To a time, or to what is recorded nearest to it, of what is shown. @param {number} time */
  const settle = async (time) => {
    const { from, to } = timeline;
    read();
    // Who moves meanwhile has it read again.
    for (let newest; newest !== reading; ) await (newest = reading);
    const spans = timeline.rows.flatMap(({ data }) => data?.spans ?? []).filter(({ start, end }) => end > timeline.from && start < timeline.to);
    let [best, least] = [time, Infinity];
    for (const { start, end } of spans) {
      // What is written just now can be had in a moment.
      const near = Math.max(start, Math.min(time, end - NEAR_END_MS));
      if (Math.abs(near - time) < least) [best, least] = [near, Math.abs(near - time)];
    }
    // What has only just begun can be had in a moment.
    const early = best + LIVE_MARGIN_MS - now();
    if (early > 0) await new Promise((done) => setTimeout(done, Math.min(early, LIVE_MARGIN_MS)));
    // Who has gone elsewhere meanwhile stays there.
    if (!ended && timeline.from === from && timeline.to === to) seek(best);
  };

  // ---- what is there
  let soon = 0;
  let asked = 0;
  const moved = () => {
    dayButton.setAttribute("aria-pressed", String(view === "day"));
    weekButton.setAttribute("aria-pressed", String(view === "week"));
    const length = timeline.to - timeline.from;
    const last = timeline.to - 1;
    dateField.value = isoDate((timeline.from + timeline.to) / 2, zone);
    const same = isoDate(timeline.from, zone) === isoDate(last, zone);
    fill(label, `${date(timeline.from, zone)}${same ? "" : ` – ${date(last, zone)}`}, ${zoneName(timeline.from, zone)}${length < DAY / 2 ? `, ${long(length)}` : ""}`);
    clearTimeout(soon);
    soon = window.setTimeout(read, SOON_MS);
  };
  /** The newest reading. @type {Promise<void>} */
  let reading = Promise.resolve();
  const read = () => (reading = readNow());
  const readNow = async () => {
    const mine = ++asked;
    const { from, to, resolution } = timeline;
    const more = (to - from) / 2;
    const range = between(from - more, to + more);
    const coarse = `${Math.max(1, Math.floor(resolution))}ms`;
    await Promise.all(
      timeline.rows.map(async (row) => {
        try {
          const data = await ask("GET", ofStream(row.id, `/timeline?${range}&resolution=${coarse}`));
          if (mine === asked) row.data = data;
        } catch {
          // What was there is still shown, and it is asked again.
        }
        timeline.draw();
      }),
    );
    if (mine === asked) await readMarks();
  };

  // ---- cameras
  const grid = h("section", { class: "replays", "aria-label": "Recorded pictures" });
  const list = h("div", { class: "choices" });
  const choice = h("details", { class: "menu" }, h("summary", { class: "button" }, "Cameras"), list);
  const empty = h("p", { class: "empty", hidden: true });

  /** @param {string} id */
  const activate = (id) => {
    active = timeline.active = id;
    for (const { element } of deck.replays) element.dataset.active = String(element.dataset.id === id);
    timeline.draw();
  };
  const drawCameras = () => {
    for (const replay of deck.replays.filter(({ id }) => !chosen.includes(id))) replay.stop();
    deck.replays = chosen.map((id) => deck.replays.find((replay) => replay.id === id) ?? new Replay(id, now));
    for (const { element, id } of deck.replays) element.onclick = () => activate(id);
    fill(grid, deck.replays.map(({ element }) => element));
    grid.style.setProperty("--columns", String(Math.ceil(Math.sqrt(chosen.length || 1))));
    grid.style.setProperty("--rows", String(Math.ceil((chosen.length || 1) / Math.ceil(Math.sqrt(chosen.length || 1)))));
    timeline.rows = chosen.map((id) => timeline.rows.find((row) => row.id === id) ?? { id, data: null });
    empty.hidden = chosen.length > 0;
    fill(empty, known.length ? "No camera is chosen." : "There are no cameras whose recordings you may watch.");
    if (!chosen.includes(active)) activate(chosen[0] ?? "");
    timeline.draw();
    moved();
  };
  const drawChoice = () =>
    fill(
      list,
      known.map(({ id, there }) => {
        const box = h("input", {
          type: "checkbox",
          checked: chosen.includes(id),
          onchange: () => {
            if (box.checked && chosen.length >= MOST_CAMERAS) {
              box.checked = false;
              say(`${MOST_CAMERAS} cameras at most are shown together.`);
              return;
            }
            chosen = known.map((one) => one.id).filter((one) => (one === id ? box.checked : chosen.includes(one)));
            keep();
            drawCameras();
          },
        });
        return h("label", {}, box, h("span", {}, id, there ? "" : " (no longer there)"));
      }),
    );

  // ---- playing
  const playButton = h("button", { type: "button", class: "go", onclick: () => deck.play(!deck.playing) });
  const rateField = h("select", { "aria-label": "Speed", onchange: () => (deck.rate = Number(rateField.value)) }, RATES.map((rate) => h("option", { value: String(rate), selected: rate === 1 }, `${rate}×`)));
  let drawn = "";
  const drawClock = () => {
    const text = full(deck.time, zone);
    const state = deck.playing ? (deck.waiting ? "… " : "▶ ") : "";
    if (drawn !== state + text + deck.playing) {
      drawn = state + text + deck.playing;
      fill(clockLine, state, text);
      fill(playButton, deck.playing ? "❚❚" : "▶");
      playButton.setAttribute("aria-label", deck.playing ? "Pause" : "Play");
    }
    timeline.cursor = deck.time;
    // It stays in view while it plays.
    if (deck.playing && !timeline.drag && deck.time > timeline.to && deck.time < timeline.to + (timeline.to - timeline.from)) timeline.pan((timeline.to - timeline.from) * 0.9);
    else timeline.draw();
  };
  /** @param {number} time */
  const seek = (time) => {
    deck.seek(time);
    if (deck.time < timeline.from || deck.time > timeline.to) {
      const half = (timeline.to - timeline.from) / 2;
      timeline.show(deck.time - half, deck.time + half);
    }
  };
  const fps = () => known.find(({ id }) => id === (deck.leader?.id ?? active))?.fps ?? 25;
  const step = (/** @type {number} */ by) => deck.step(by, fps());
  const skip = (/** @type {number} */ by) => seek(deck.time + by);
  const faster = (/** @type {number} */ by) => {
    const at = Math.max(0, Math.min(RATES.length - 1, RATES.indexOf(deck.rate) + by));
    deck.rate = RATES[at];
    rateField.value = String(deck.rate);
  };
  const sound = h("button", {
    type: "button",
    "aria-pressed": "false",
    onclick: () => {
      const on = sound.getAttribute("aria-pressed") !== "true";
      sound.setAttribute("aria-pressed", String(on));
      for (const replay of deck.replays) replay.video.muted = !(on && replay.id === active);
    },
  }, "Sound");
  const control = (/** @type {string} */ text, /** @type {string} */ name, /** @type {() => void} */ action) => h("button", { type: "button", "aria-label": name, title: name, onclick: action }, text);

  // ---- thumbnails
  let pointed = 0;
  let shown = "";
  /** @param {Row | null} row @param {number} time @param {number} x @param {string} text */
  const showHover = (row, time, x, text) => {
    clearTimeout(pointed);
    hover.hidden = !row;
    if (!row) return;
    hover.style.left = `${Math.max(0, Math.min(x - 100, timeline.width - 216))}px`;
    fill(words, text);
    const there = row.data?.spans.some(({ start, end }) => start <= time && time < end);
    const what = `${row.id}@${Math.round(time / Math.max(timeline.resolution, 500))}`;
    if (!there || what !== shown) thumb.hidden = true;
    if (!there) return;
    pointed = window.setTimeout(async () => {
      const answer = await request(ofStream(row.id, `/snapshot.jpg?width=200&time=${new Date(time).toISOString()}`)).catch(() => null);
      if (!answer?.ok || hover.hidden || ended) return;
      const url = URL.createObjectURL(await answer.blob());
      shown = what;
      thumb.onload = () => {
        URL.revokeObjectURL(url);
        thumb.hidden = false;
      };
      thumb.src = url;
    }, SOON_MS);
  };

  // ---- what happened
  const search = h("input", { type: "search", placeholder: "Search what happened", "aria-label": "Search what happened", oninput: () => readSoon() });
  const happened = h("ol", { class: "happened" });
  /** @type {{id: number, stream: string, time: string, kind: string, text: string, data: any}[]} */
  let marks = [];
  let later = 0;
  const readSoon = () => {
    clearTimeout(later);
    later = window.setTimeout(readMarks, SOON_MS);
  };
  const readMarks = async () => {
    if (!chosen.length) marks = [];
    else {
      const range = between(timeline.from, timeline.to);
      const text = search.value.trim() && `&text=${encodeURIComponent(search.value.trim())}`;
      try {
        marks = (await ask("GET", `api/marks?${range}&order=newest&limit=${MARKS}&stream=${chosen.map(encodeURIComponent).join(",")}${text}`)).items;
      } catch {
        return;
      }
    }
    if (!ended) drawMarks();
  };
  /** What was seen, as it was seen best. @param {string} object */
  const pictureOf = (object) => {
    const image = h("img", { alt: "", loading: "lazy", src: address(`api/objects/${encodeURIComponent(object)}/picture.jpg`).href });
    // It may be forgotten by now.
    image.onerror = () => image.remove();
    return image;
  };
  const drawMarks = () =>
    fill(
      happened,
      marks.length === 0 && h("li", { class: "none" }, "Nothing is marked in this time."),
      marks.map((mark) => {
        const at = Date.parse(mark.time);
        return h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: "quiet",
              onclick: () => {
                activate(mark.stream);
                seek(at);
              },
            },
            mark.data?.object && pictureOf(mark.data.object),
            h("time", { dateTime: mark.time }, `${date(at, zone)} ${clockTime(at, zone)}`),
            " ",
            h("b", {}, mark.kind.replaceAll("_", " ")),
            " ",
            h("span", {}, `${mark.stream}${mark.text ? ` · ${mark.text}` : ""}`),
          ),
          may(me, "record", mark.stream) &&
            button("×", async () => {
              await ask("DELETE", ofStream(mark.stream, `/marks/${mark.id}`));
              await read();
            }, { class: "quiet", "aria-label": `Take the mark "${mark.kind}" away` }),
        );
      }),
    );

  // ---- a span of time
  const selection = new Selection({
    me,
    zone: () => zone,
    cameras: () => chosen,
    active: () => active,
    span: () => timeline.selection,
    clear: () => timeline.select(null),
    changed: () => read(),
    deleted: () => {
      for (const replay of deck.replays) replay.loaded = replay.hole = null;
    },
    exported: () => exports.refresh(),
  });
  const edge = (/** @type {"start" | "end"} */ which) => {
    const span = timeline.selection ?? { start: deck.time, end: deck.time + 10_000 };
    const next = { ...span, [which]: deck.time };
    timeline.select(next.start < next.end ? next : { start: deck.time, end: deck.time + 1000 });
  };
  const markDialog = () => {
    const kind = h("input", { value: "note", required: true, maxLength: 60, pattern: "[A-Za-z0-9._\\-]+" });
    const text = h("input", { maxLength: 500 });
    const at = deck.time;
    return dialog("Mark", [h("p", {}, `${active}, ${full(at, zone)}`), h("label", {}, "Kind", kind), h("label", {}, "Text", text)], "Mark", async () => {
      await ask("POST", ofStream(active, "/marks"), { time: new Date(at).toISOString(), kind: kind.value, text: text.value });
      await read();
    });
  };

  const exports = new Exports(me, () => zone);
  const marking = button("Mark …", markDialog);
  const controls = h(
    "div",
    { class: "bar controls" },
    playButton,
    control("‹❙", "One picture back", () => step(-1)),
    control("❙›", "One picture on", () => step(1)),
    h("button", { type: "button", onclick: () => skip(-SKIP_MS) }, "−10 s"),
    h("button", { type: "button", onclick: () => skip(SKIP_MS) }, "+10 s"),
    rateField,
    clockLine,
    h("span", { class: "space" }),
    control("[", "Selection begins here", () => edge("start")),
    control("]", "Selection ends here", () => edge("end")),
    marking,
    sound,
    control("−", "Zoom out", () => timeline.zoom(2)),
    control("+", "Zoom in", () => timeline.zoom(0.5)),
  );
  /** @type {Record<string, () => void>} */
  const keys = {
    " ": () => deck.play(!deck.playing), k: () => deck.play(!deck.playing), ",": () => step(-1), ".": () => step(1), ArrowLeft: () => skip(-SKIP_MS), ArrowRight: () => skip(SKIP_MS),
    j: () => faster(-1), l: () => faster(1), "+": () => timeline.zoom(0.5), "-": () => timeline.zoom(2), i: () => edge("start"), o: () => edge("end"), m: () => active && may(me, "record", active) && markDialog(),
    PageUp: () => turn(-1), PageDown: () => turn(1), Escape: () => timeline.select(null),
  };
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, select, textarea, dialog")) return;
    if (event.key === " " && target.closest("button, a, summary")) return;
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener("keydown", pressed);

  fill(
    place,
    h("h1", { class: "unseen" }, "Recordings"),
    h(
      "div",
      { class: "bar" },
      control("‹", "Before", () => turn(-1)),
      dateField,
      control("›", "After", () => turn(1)),
      dayButton,
      weekButton,
      h("button", { type: "button", onclick: () => (whole("day", now()), settle(now() - 30_000)) }, "Now"),
      label,
      h("span", { class: "space" }),
      zoneField,
      choice,
    ),
    empty,
    h(
      "div",
      { class: "recorded" },
      h("div", { class: "main" }, grid, controls, timeline.element, selection.element),
      h("div", { class: "side" }, h("section", { class: "card" }, h("h2", {}, "What happened"), search, happened), exports.element),
    ),
    h("p", { class: "keys" }, "Space plays, ← → ten seconds, , . one picture, J L slower and faster, I O select, M marks, + − zoom, Page up and down for days. Drag the ruler to select."),
  );

  const begin = async () => {
    const streams = /** @type {import("./api.js").Stream[]} */ (await all("api/streams")).filter(({ id }) => may(me, "playback", id));
    // What the camera says of itself comes first: what is measured is a little off, and more so in the beginning.
    const rate = (/** @type {import("./api.js").Stream} */ { tracks, frame_rate: measured }) => tracks.find(({ kind }) => kind === "video")?.frame_rate || measured || 25;
    known = streams.map((stream) => ({ id: stream.id, fps: rate(stream), there: true }));
    if (mayAll(me, "api.read")) {
      // Also of cameras that are gone.
      const storage = await ask("GET", "api/storage").catch(() => ({ streams: [] }));
      for (const { id, segments } of storage.streams) {
        if (segments > 0 && !known.some((one) => one.id === id) && may(me, "playback", id)) known.push({ id, fps: 25, there: false });
      }
    }
    if (ended) return;
    known.sort((a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }));
    const ids = known.map(({ id }) => id);
    const before = (kept.cameras ?? []).filter((id) => ids.includes(id)).slice(0, MOST_CAMERAS);
    const recorded = streams.filter(({ recording }) => recording.state !== "off").map(({ id }) => id);
    chosen = wantedId && ids.includes(wantedId) ? [wantedId] : before.length ? before : (recorded.length ? recorded : ids).slice(0, 4);
    marking.hidden = !chosen.some((id) => may(me, "record", id));
    whole("day", deck.time);
    drawChoice();
    drawCameras();
    activate(chosen[0] ?? "");
    if (wantedTime) seek(Number(wantedTime));
    else await settle(now() - 60_000);
  };
  begin().catch((error) => {
    empty.hidden = false;
    fill(empty, String(error.message), " ", button("Try again", begin));
  });
  const silence = listen(["recording_gap", "segment_finished", "segments_deleted", "export_finished", "export_failed"], ({ kind }) => {
    if (kind.startsWith("export")) exports.refresh();
    else {
      clearTimeout(soon);
      soon = window.setTimeout(read, 1000);
    }
  });
  const timer = setInterval(() => document.hidden || timeline.drag || read(), REFRESH_MS);
  drawClock();
  return () => {
    ended = true;
    clearInterval(timer);
    clearTimeout(soon);
    clearTimeout(later);
    clearTimeout(pointed);
    document.removeEventListener("keydown", pressed);
    silence();
    deck.stop();
    exports.stop();
    timeline.stop();
  };
}
