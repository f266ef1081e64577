// Settings, a part at a time: storage, users, configuration, backups, log, health, models.

import { accounts } from "./accounts.js";
import { address, all, ask, listen, mayAll, now, Refused, request } from "./api.js";
import { button, dialog, fill, h, say, showCurrent, since, size } from "./dom.js";
import { full, long, ownZone } from "./zone.js";

/** @typedef {(place: HTMLElement, me: import("./api.js").Me) => () => void} Part */

const LOG_LINES = 500;
const SVG = "http://www.w3.org/2000/svg";

/** @type {{name: string, path: string, action: string, open: Part}[]} */
const PARTS = [
  { name: "Storage", path: "storage", action: "api.read", open: storage },
  { name: "Users", path: "users", action: "admin", open: accounts },
  { name: "Configuration", path: "configuration", action: "admin", open: configuration },
  { name: "Backups", path: "backups", action: "admin", open: backups },
  { name: "Log", path: "log", action: "admin", open: log },
  { name: "Health", path: "health", action: "api.read", open: health },
  { name: "Models", path: "models", action: "api.read", open: models },
];

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @param {string} id
 * @returns {() => void}
 */
export function settings(place, me, id) {
  const parts = PARTS.filter(({ action }) => mayAll(me, action));
  const part = parts.find(({ path }) => path === id) ?? parts[0];
  const content = h("div", { class: "settings" });
  const tabs = h("nav", { class: "tabs", "aria-label": "Settings" }, parts.map(({ name, path }) => h("a", { href: `#/settings/${path}`, "aria-current": path === part?.path ? "page" : undefined }, name)));
  fill(place, h("div", { class: "bar" }, h("h1", {}, "Settings")), tabs, content);
  showCurrent(tabs);
  if (!part) {
    fill(content, h("p", { class: "empty" }, "There are no settings that you may see."));
    return () => {};
  }
  return part.open(content, me);
}

/**
 * Shows something now and again and again.
 * @param {HTMLElement} place
 * @param {() => Promise<unknown>} show
 * @param {number} every_ms
 */
function repeated(place, show, every_ms) {
  const go = () =>
    show().catch((error) => {
      if (!place.children.length || place.querySelector(".loading")) fill(place, h("p", { class: "empty" }, String(error.message)), button("Try again", go));
    });
  fill(place, h("p", { class: "empty loading" }, "Loading …"));
  go();
  const timer = setInterval(() => document.hidden || go(), every_ms);
  return () => clearInterval(timer);
}

/**
 * A table that can be scrolled on a small screen.
 * @param {string} name
 * @param {string[]} heads
 * @param {(Node | string | number | null | false)[][]} rows
 */
export function table(name, heads, rows) {
  return h(
    "div",
    { class: "scroll", tabIndex: 0, role: "group", "aria-label": name },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head || h("span", { class: "unseen" }, "What can be done"))))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))),
  );
}

/** @param {string} word @param {string} [kind] */
function badge(word, kind = word) {
  return h("span", { class: "state", "data-kind": kind }, word.replaceAll("_", " "));
}

/**
 * Days of room: how a folder fills at the rate that is recorded at now.
 * @param {any} folder
 */
function roomChart(folder) {
  const [width, height] = [360, 90];
  const { total_bytes: total, free_bytes: free, min_free_bytes: least, days_of_room: days } = folder;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "room");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", days === null ? "Nothing is being recorded: there is room without an end." : `Room for ${days.toFixed(1)} days at the present rate`);
  const part = (/** @type {string} */ name, /** @type {Record<string, string | number>} */ attributes, /** @type {string} */ text = "") => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    element.textContent = text;
    svg.append(element);
  };
  if (!total || free === null) return svg;
  const bottom = height - 18;
  const top = Math.max(free, least ?? 0) * 1.15 || total;
  const y = (/** @type {number} */ bytes) => 8 + (1 - bytes / top) * (bottom - 8);
  const span = days === null ? 1 : Math.max(days * 1.25, 0.05);
  const x = (/** @type {number} */ day) => (day / span) * width;
  const full = days === null ? width : x(days);
  const end = days === null ? free : (least ?? 0);
  part("polygon", { class: "fill", points: `0,${y(free)} ${full},${y(end)} ${width},${y(end)} ${width},${bottom} 0,${bottom}` });
  part("line", { class: "least", x1: 0, x2: width, y1: y(least ?? 0), y2: y(least ?? 0) });
  part("text", { x: 2, y: height - 4 }, "now");
  if (days !== null) {
    part("line", { class: "when", x1: full, x2: full, y1: 4, y2: bottom });
    part("text", { x: Math.max(30, full - 4), y: height - 4, "text-anchor": "end" }, days < 2 ? `${Math.round(days * 24)} h` : `${days.toFixed(days < 10 ? 1 : 0)} days`);
  }
  return svg;
}

/** @type {Part} */
function storage(place) {
  const show = async () => {
    const report = await ask("GET", "api/storage");
    const folders = report.directories.map((/** @type {any} */ folder) => {
      const total = folder.total_bytes || 1;
      const others = Math.max(0, total - (folder.free_bytes ?? 0) - folder.recorded_bytes);
      const bar = h("div", { class: "bytes", role: "img", "aria-label": `${size(folder.recorded_bytes)} recordings, ${size(others)} others, ${size(folder.free_bytes ?? 0)} free` });
      // Styles as properties: the page allows no styles in attributes.
      for (const [kind, bytes] of [["recorded", folder.recorded_bytes], ["others", others]]) {
        const piece = h("span", { class: kind });
        piece.style.width = `${(Number(bytes) / total) * 100}%`;
        bar.append(piece);
      }
      return h(
        "section",
        { class: "card" },
        h("div", { class: "row start" }, h("h2", {}, folder.name), badge(folder.state)),
        h("p", { class: "dim" }, folder.path),
        folder.problem && h("p", { class: "problem" }, folder.problem),
        bar,
        h("p", {}, `${size(folder.recorded_bytes)} recordings, ${size(others)} others, ${size(folder.free_bytes ?? 0)} free of ${size(total)}, of which ${size(folder.min_free_bytes ?? 0)} stay free.`),
        roomChart(folder),
        h("p", {}, folder.days_of_room === null ? "Nothing is being written." : `${size(folder.bytes_per_hour)} an hour: room for ${folder.days_of_room < 2 ? `${Math.round(folder.days_of_room * 24)} hours` : `${folder.days_of_room.toFixed(1)} days`}, then the oldest goes.`),
      );
    });
    const most = Math.max(...report.streams.map((/** @type {any} */ one) => one.bytes), 1);
    const zone = ownZone();
    fill(
      place,
      report.index_problem && h("p", { class: "problem" }, report.index_problem),
      Object.entries(report.unmet).map(([name, why]) => h("p", { class: "problem" }, `${name}: ${why}`)),
      h("div", { class: "panels" }, folders),
      h(
        "section",
        { class: "card" },
        h("h2", {}, "Cameras"),
        report.streams.length === 0
          ? h("p", { class: "empty" }, "Nothing is recorded yet.")
          : table(
              "Recordings by camera",
              ["Camera", "On disk", "Protected", "An hour", "Since", "Kept"],
              report.streams.map((/** @type {any} */ one) => {
                const meter = h("meter", { max: most, value: one.bytes, "aria-label": `${one.id}: ${size(one.bytes)}` });
                return [
                  h("a", { href: `#/recordings/${encodeURIComponent(one.id)}` }, one.id),
                  h("span", { class: "row start" }, meter, size(one.bytes)),
                  one.protected_bytes ? size(one.protected_bytes) : "–",
                  one.bytes_per_hour ? size(one.bytes_per_hour) : "–",
                  one.oldest ? full(Date.parse(one.oldest), zone) : "–",
                  [one.max_age_secs && long(one.max_age_secs * 1000), one.max_size_bytes && size(one.max_size_bytes)].filter(Boolean).join(", ") || "while there is room",
                ];
              }),
            ),
      ),
    );
  };
  return repeated(place, show, 10_000);
}

/**
 * What has to be changed for one to become the other, as a JSON merge patch (RFC 7396).
 * @param {any} from
 * @param {any} to
 * @returns {any}
 */
export function difference(from, to) {
  const isObject = (/** @type {any} */ value) => value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isObject(from) || !isObject(to)) return to;
  /** @type {Record<string, any>} */
  const patch = {};
  for (const key of Object.keys(from)) if (!(key in to)) patch[key] = null;
  for (const [key, value] of Object.entries(to)) {
    if (JSON.stringify(from[key]) !== JSON.stringify(value)) patch[key] = isObject(from[key]) && isObject(value) ? difference(from[key], value) : value;
  }
  return patch;
}

/** What can be changed while the server runs. */
const CHANGEABLE = ["defaults", "events", "hooks", "rtmp", "rtsp", "server", "storage", "telemetry"];

/** @type {Part} */
function configuration(place) {
  let ended = false;
  /** @type {Record<string, any>} */
  let before = {};
  let checked = "";
  const text = h("textarea", { rows: 24, spellcheck: false, class: "code", "aria-label": "Configuration as JSON", oninput: () => changed() });
  const outcome = h("div", { "aria-live": "polite" });
  const status = h("p", { class: "dim" });
  const apply = button("Apply", () => send(false), { class: "go", disabled: true });
  const changed = () => {
    apply.disabled = text.value !== checked;
  };
  const read = async () => {
    const all = await ask("GET", "api/config");
    const state = await ask("GET", "api/config/status");
    if (ended) return;
    before = Object.fromEntries(CHANGEABLE.filter((key) => key in all).map((key) => [key, all[key]]));
    text.value = JSON.stringify(before, null, 2);
    checked = "";
    changed();
    fill(status, state.file ? `The file is ${state.file}. ` : "There is no configuration file. ", state.problem ? h("span", { class: "problem" }, `Its newest state is not in use: ${state.problem}`) : "", state.needs_restart.length ? `For these a restart is needed: ${state.needs_restart.join(", ")}.` : "");
  };
  /** @param {boolean} dry */
  const send = async (dry) => {
    const sent = text.value;
    /** @type {any} */
    let patch;
    try {
      patch = difference(before, JSON.parse(sent));
    } catch (error) {
      fill(outcome, h("p", { class: "problem" }, `This is not JSON: ${/** @type {Error} */ (error).message}`));
      return;
    }
    try {
      const done = await ask("PATCH", `api/config${dry ? "?dry_run=true" : ""}`, patch);
      const line = (/** @type {string} */ name, /** @type {string[]} */ items) => items.length > 0 && h("li", {}, `${name}: ${items.join(", ")}`);
      const words = done.changed.length ? (dry ? "This can be applied." : "This is applied.") : "Nothing is different.";
      fill(outcome, h("p", {}, words), h("ul", {}, line("changes", done.changed), line("needs a restart", done.needs_restart), line("streams that change", done.streams_changed)));
      if (dry) {
        checked = done.changed.length ? sent : "";
        changed();
      } else {
        await read();
      }
    } catch (error) {
      checked = "";
      changed();
      const where = error instanceof Refused && error.pointer ? `${error.pointer.slice(1).replaceAll("/", ".")}: ` : "";
      fill(outcome, h("p", { class: "problem", role: "alert" }, where + String(/** @type {Error} */ (error).message)));
    }
  };
  fill(
    place,
    h(
      "section",
      { class: "card fields" },
      h("h2", {}, "Configuration"),
      h("p", { class: "dim" }, "What can be changed while the server runs. It is checked first; what is changed here is kept beside the file. ", h("a", { href: address("api/docs").href }, "Every key"), "."),
      status,
      text,
      outcome,
      h(
        "div",
        { class: "row" },
        button("As it is", read),
        button("Read the file again", async () => {
          const done = await ask("POST", "api/config/reload");
          say(done.changed?.length ? `Changed: ${done.changed.join(", ")}` : "The file has nothing new.");
          await read();
        }),
        button("Check", () => send(true)),
        apply,
      ),
    ),
  );
  read().catch((error) => fill(outcome, h("p", { class: "problem" }, error.message)));
  return () => {
    ended = true;
  };
}

/** @type {Part} */
function backups(place) {
  const zone = ownZone();
  const show = async () => {
    const items = await all("api/backups");
    items.sort((a, b) => String(b.created).localeCompare(String(a.created)));
    fill(
      place,
      h(
        "section",
        { class: "card fields" },
        h("h2", {}, "Backups"),
        h("p", { class: "dim" }, "Configuration, state and index; with recordings if that is configured. Times for them are in the configuration: backup.schedule."),
        h(
          "div",
          { class: "row start" },
          button("Make one now", async () => {
            await ask("POST", "api/backups");
            await show();
          }, { class: "go" }),
        ),
        items.length === 0
          ? h("p", { class: "empty" }, "There is none yet.")
          : table(
              "Backups",
              ["Made", "State", "Holds", "Size", ""],
              items.map((one) => [
                full(Date.parse(one.created), zone),
                one.state === "running" ? h("progress", { max: 1, value: one.progress, "aria-label": "Progress" }) : h("span", {}, badge(one.state, one.state === "done" ? "ok" : "failing"), one.problem ? ` ${one.problem}` : ""),
                `${one.include.join(", ")}${one.encrypted ? ", encrypted" : ""}`,
                one.bytes === null ? "–" : size(one.bytes),
                h(
                  "span",
                  { class: "row" },
                  one.state === "done" && h("a", { class: "button", href: address(`api/backups/${encodeURIComponent(one.id)}/file`).href, download: "" }, "Download"),
                  button("Delete …", () =>
                    dialog("Delete the backup", [h("p", {}, `The backup of ${full(Date.parse(one.created), zone)} is deleted.`)], "Delete", async () => {
                      await ask("DELETE", `api/backups/${encodeURIComponent(one.id)}`);
                      await show();
                    }, "danger"),
                  ),
                ),
              ]),
            ),
      ),
    );
  };
  const silence = listen(["backup_finished", "backup_failed"], () => show().catch(() => {}));
  const stop = repeated(place, show, 5000);
  return () => {
    stop();
    silence();
  };
}

/** @type {Part} */
function log(place) {
  const lines = h("ol", { class: "log", tabIndex: 0, "aria-label": "Log" });
  const level = h("select", { onchange: () => begin() }, ["error", "warn", "info", "debug", "trace"].map((name) => h("option", { value: name, selected: name === "info" }, name)));
  const stream = h("input", { placeholder: "of all streams", onchange: () => begin(), autocomplete: "off" });
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => pause.setAttribute("aria-pressed", String(pause.getAttribute("aria-pressed") !== "true")) }, "Pause");
  /** @type {EventSource | null} */
  let source = null;
  const zone = ownZone();
  /** @type {any[]} */
  let waiting = [];
  let drawing = 0;
  const draw = () => {
    drawing = 0;
    const end = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 20;
    const made = waiting.splice(0).map((one) =>
      h(
        "li",
        { "data-level": one.level },
        h("time", { dateTime: one.time }, full(Date.parse(one.time), zone)),
        " ",
        h("b", {}, one.level),
        " ",
        h("span", {}, `${one.stream ? `${one.stream}: ` : ""}${one.message}`),
        " ",
        h("small", {}, Object.entries(one.fields).map(([key, value]) => `${key}=${value}`).join(" ")),
      ),
    );
    lines.append(...made);
    while (lines.children.length > LOG_LINES) lines.firstElementChild?.remove();
    if (end) lines.scrollTop = lines.scrollHeight;
  };
  const begin = () => {
    source?.close();
    fill(lines);
    waiting = [];
    const of = stream.value.trim() && `&stream=${encodeURIComponent(stream.value.trim())}`;
    source = new EventSource(address(`api/logs?follow=true&level=${level.value}${of}`));
    const take = (/** @type {MessageEvent} */ { data }) => {
      if (pause.getAttribute("aria-pressed") === "true") return;
      try {
        waiting.push(JSON.parse(data));
      } catch {
        return;
      }
      if (waiting.length > LOG_LINES) waiting.shift();
      if (!drawing) drawing = requestAnimationFrame(draw);
    };
    source.onmessage = take;
    source.addEventListener("log", take);
  };
  fill(place, h("section", { class: "card fields" }, h("h2", {}, "Log"), h("div", { class: "bar" }, h("label", {}, "From", level), h("label", {}, "Stream", stream), pause), lines));
  begin();
  return () => {
    source?.close();
    cancelAnimationFrame(drawing);
  };
}

/** @type {Part} */
function health(place) {
  const show = async () => {
    // Also what is failing is an answer.
    const response = await request("health/ready");
    const report = await response.json();
    const system = await ask("GET", "api/system");
    /** @type {[string, string][]} */
    const facts = [
      ["Version", `${system.version}${system.profile === "debug" ? " (debug build)" : ""}, ${system.target}`],
      ["Runs for", long(now() - Date.parse(system.started))],
      ["Streams", `${system.streams_running} of ${system.streams_defined} run`],
      ["Sessions", String(system.sessions)],
      ["Load", system.load ? `${system.load.map((/** @type {number} */ one) => one.toFixed(2)).join(", ")} on ${system.cpus} processors` : "–"],
      ["Memory", system.memory_bytes ? `${size(system.memory_bytes)} of ${size(system.memory_total_bytes)}, ${size(system.memory_available_bytes)} free` : "–"],
      ["Threads, files", `${system.threads ?? "–"}, ${system.open_files ?? "–"}`],
      ["Events lost", String(system.events_lost)],
      ["GStreamer", system.gstreamer ? `${system.gstreamer.version}${system.gstreamer.missing.length ? `, without ${system.gstreamer.missing.join(", ")}` : ""}` : "–"],
      ["Built with", system.features.join(", ")],
    ];
    fill(
      place,
      h(
        "div",
        { class: "panels" },
        h(
          "section",
          { class: "card" },
          h("div", { class: "row start" }, h("h2", {}, "Health"), badge(report.status)),
          h("ul", { class: "components" }, report.components.map((/** @type {any} */ one) => h("li", {}, badge(one.status), h("b", {}, one.name), one.reason && h("span", { class: "dim" }, one.reason)))),
        ),
        h("section", { class: "card" }, h("h2", {}, "The server"), h("dl", { class: "facts" }, facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
      ),
    );
  };
  return repeated(place, show, 5000);
}

/** @type {Part} */
function models(place, me) {
  const milliseconds = (/** @type {number | null} */ secs) => (secs === null ? "–" : `${(secs * 1000).toFixed(0)} ms`);
  const show = async () => {
    const { items } = /** @type {{items: any[]}} */ (
      await ask("GET", "api/models").catch((error) => {
        // A server without inference.
        if (error.status === 404) return { items: [] };
        throw error;
      })
    );
    fill(
      place,
      items.length === 0 && h("p", { class: "empty" }, "There are no models. They are named in the configuration file, in [[inference.models]]."),
      h(
        "div",
        { class: "panels" },
        items.map((one) =>
          h(
            "section",
            { class: "card" },
            h("div", { class: "row start" }, h("h2", {}, one.name), badge(one.state, one.state === "ready" ? "ok" : one.state)),
            h("p", { class: "dim" }, one.reason),
            one.last_error && h("p", { class: "problem" }, one.last_error),
            h(
              "dl",
              { class: "facts" },
              [
                ["File", one.path],
                ["Kind", `${one.kind ?? "–"}${one.layout ? `, ${one.layout}` : ""}${one.input_size ? `, ${one.input_size.join(" × ")}` : ""}`],
                ["Sees", one.labels.length > 8 ? `${one.labels.slice(0, 8).join(", ")} and ${one.labels.length - 8} more` : one.labels.join(", ")],
                ["Streams", String(one.streams)],
                ["Pictures", `${one.stats.pictures}, ${one.waiting} wait`],
                ["Takes", `${milliseconds(one.stats.latency_p50_secs)} (95 % within ${milliseconds(one.stats.latency_p95_secs)})`],
                ["Loaded", since(one.since)],
              ].flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
            ),
            mayAll(me, "api.write") &&
              h("div", { class: "row" }, button("Load again", async () => {
                await ask("POST", `api/models/${encodeURIComponent(one.name)}/reload`);
                await show();
              })),
          ),
        ),
      ),
    );
  };
  return repeated(place, show, 5000);
}
