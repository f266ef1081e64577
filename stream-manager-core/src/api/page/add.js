// Adding cameras: one by its address or found in the network, looked at before it is kept; or many by a list.

import { ask } from "./api.js";
import { button, fill, h, rate, say } from "./dom.js";

/** @typedef {{id: string, source_url: string, user?: string, password?: string}} Wanted */

/** How long looking for devices takes. */
const DISCOVER = "4s";

/**
 * A name for what is at an address.
 * @param {string} url
 */
export function nameOf(url) {
  try {
    // Only what is known as http has a host everywhere.
    const { hostname, pathname } = new URL(url.replace(/^[a-z0-9+.-]+:/i, "http:"));
    const last = pathname.split("/").filter(Boolean).pop() ?? "";
    const name = /^[a-z][\w.-]*$/i.test(last) && !/^(stream|live|main|h26[45]|ch\d+|video\d*)/i.test(last) ? last.replace(/\.\w+$/, "") : hostname;
    return name.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "camera";
  } catch {
    return "camera";
  }
}

/**
 * Streams from lines: an address, or a name and an address.
 * @param {string} text
 * @returns {{streams: Wanted[], problems: string[]}}
 */
export function lines(text) {
  /** @type {Wanted[]} */
  const streams = [];
  /** @type {string[]} */
  const problems = [];
  const taken = new Set();
  text.split(/\r?\n/).forEach((line, at) => {
    const words = line.trim().split(/[\s,;]+/).filter(Boolean);
    if (!words.length || words[0].startsWith("#")) return;
    const where = words.findIndex((word) => /^[a-z][a-z0-9+.-]*:/i.test(word));
    if (where < 0 || where > 1 || words.length > where + 1) {
      problems.push(`Line ${at + 1}: "${line.trim().slice(0, 60)}"; expected a name and an address, or an address alone.`);
      return;
    }
    const source_url = words[where];
    const wanted = where === 1 ? words[0] : nameOf(source_url);
    let id = wanted;
    for (let n = 2; where === 0 && taken.has(id); n++) id = `${wanted}-${n}`;
    taken.add(id);
    streams.push({ id, source_url });
  });
  return { streams, problems };
}

/** How it is recorded: fields, and what they say. */
function recordingFields() {
  const mode = h("select", {}, [["continuous", "All the time"], ["event", "Only events"], ["", "Not at all"]].map(([value, text]) => h("option", { value }, text)));
  const days = h("input", { type: "number", min: "1", max: "36500", placeholder: "as long as there is room" });
  const room = h("input", { type: "number", min: "1", max: "1000000", placeholder: "all there is" });
  const kept = [h("label", {}, "Kept for days", days), h("label", {}, "At most GB", room)];
  mode.onchange = () => kept.forEach((line) => (line.hidden = !mode.value));
  return {
    lines: [h("label", {}, "Recorded", mode), ...kept],
    config: () => {
      if (!mode.value) return { recording: { enabled: false } };
      const retention = { ...(days.value ? { max_age: `${days.value}days` } : {}), ...(room.value ? { max_size: `${room.value}GB` } : {}) };
      return { recording: { enabled: true, modes: [mode.value], ...(Object.keys(retention).length ? { retention } : {}) } };
    },
  };
}

/**
 * @param {HTMLElement} place
 * @returns {() => void}
 */
export function add(place) {
  let ended = false;
  // ---- one
  const url = h("input", { type: "text", inputMode: "url", required: true, placeholder: "rtsp://192.168.1.20/stream1", autocomplete: "off", spellcheck: false, oninput: () => named() });
  const user = h("input", { autocomplete: "off", autocapitalize: "none" });
  const password = h("input", { type: "password", autocomplete: "new-password" });
  const id = h("input", { required: true, maxLength: 200, pattern: "[^?#]+", oninput: () => (id.dataset.own = "true") });
  const named = () => {
    if (id.dataset.own !== "true") id.value = url.value.trim() ? nameOf(url.value.trim()) : "";
  };
  const seen = h("div", { class: "probe", "aria-live": "polite" });
  const recording = recordingFields();
  const problem = h("p", { class: "problem", role: "alert" });
  /** The address with the user and password, if they are given. */
  const whole = () => {
    const text = url.value.trim();
    if (!user.value) return text;
    const mine = `${encodeURIComponent(user.value)}:${encodeURIComponent(password.value)}@`;
    return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)(?:[^/@]*@)?/i, (_all, scheme) => scheme + mine);
  };
  const probe = async () => {
    if (!url.reportValidity()) return;
    fill(seen, h("p", { class: "dim" }, "Looking …"), h("progress", { "aria-label": "Looking" }));
    try {
      const found = await ask("POST", "api/probe", { url: whole(), picture: true, duration: "2s" });
      const describe = (/** @type {any} */ track) =>
        [track.codec.toUpperCase(), track.width && `${track.width} × ${track.height}`, track.measured_frame_rate && track.kind === "video" && `${track.measured_frame_rate.toFixed(1)} pictures a second`, track.sample_rate && `${track.sample_rate / 1000} kHz`, track.bitrate && rate(track.bitrate), track.gop_secs && `a keyframe every ${track.gop_secs.toFixed(1)} s`].filter(Boolean).join(", ");
      fill(
        seen,
        found.picture ? h("img", { src: found.picture, alt: "Its picture" }) : h("p", { class: "dim" }, found.picture_problem ?? "There is no picture."),
        h("ul", {}, found.tracks.map((/** @type {any} */ track) => h("li", {}, h("b", {}, track.kind === "video" ? "Picture" : "Sound"), ` ${describe(track)}`))),
        found.packets_lost > 0 && h("p", { class: "problem" }, `${found.packets_lost} packets were lost meanwhile.`),
      );
    } catch (error) {
      fill(seen, h("p", { class: "problem", role: "alert" }, String(/** @type {Error} */ (error).message)));
    }
  };
  const save = h("button", { type: "submit", class: "go" }, "Add the camera");
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (save.getAttribute("aria-busy") === "true") return;
    save.setAttribute("aria-busy", "true");
    fill(problem);
    try {
      const made = await ask("POST", "api/streams", {
        id: id.value.trim(),
        source_url: url.value.trim(),
        ...(user.value ? { user: user.value, password: password.value } : {}),
        ...recording.config(),
      });
      say(`${made.id} is added.`);
      location.hash = `#/stream/${encodeURIComponent(made.id)}`;
    } catch (error) {
      fill(problem, String(/** @type {Error} */ (error).message));
    } finally {
      save.removeAttribute("aria-busy");
    }
  };

  // ---- found in the network
  const devices = h("ul", { class: "devices", "aria-live": "polite" });
  const where = h("input", { placeholder: "all of the network", autocomplete: "off", spellcheck: false });
  const discover = async () => {
    fill(devices, h("li", {}, "Asking the network …", h("progress", { "aria-label": "Asking the network" })));
    const addresses = where.value.split(/[\s,;]+/).filter(Boolean);
    try {
      const { items } = await ask("POST", "api/discover", { timeout: DISCOVER, addresses, ...(user.value ? { user: user.value, password: password.value } : {}) });
      if (ended) return;
      fill(devices, items.length ? items.map(device) : h("li", {}, "No camera has answered. Those in other networks are found by their addresses."));
    } catch (error) {
      fill(devices, h("li", { class: "problem" }, String(/** @type {Error} */ (error).message)));
    }
  };
  /** @param {any} found */
  const device = (found) => {
    const { report } = found;
    const name = found.name || (report && `${report.manufacturer} ${report.model}`) || found.hardware || found.url;
    return h(
      "li",
      {},
      h("b", {}, name),
      h("span", { class: "dim" }, ` ${[report && `${report.manufacturer} ${report.model}`, found.location, host(found.url)].filter(Boolean).join(", ")}`),
      found.problem && h("p", { class: "dim" }, found.problem, user.value ? "" : " A user and a password may help: they are asked for above."),
      report?.profiles.map((/** @type {any} */ profile) =>
        button(`${profile.name} ${profile.codec ?? ""} ${profile.width ? `${profile.width} × ${profile.height}` : ""}`, async () => {
          url.value = profile.source_url;
          if (id.dataset.own !== "true") id.value = String(found.name || host(found.url)).replace(/[^\w.-]+/g, "-").slice(0, 60);
          url.scrollIntoView({ block: "center" });
          await probe();
        }),
      ),
    );
  };

  // ---- many
  const list = h("textarea", { rows: 8, spellcheck: false, placeholder: "yard/door rtsp://user:password@192.168.1.20/stream1\nrtsp://192.168.1.21/stream1" });
  const many = recordingFields();
  const results = h("ul", { class: "results", "aria-live": "polite" });
  /** @param {boolean} dry */
  const batch = async (dry) => {
    const { streams, problems } = lines(list.value);
    if (problems.length || !streams.length) {
      fill(results, (problems.length ? problems : ["There is no address."]).map((text) => h("li", { class: "problem" }, text)));
      return;
    }
    const operations = streams.map((stream) => ({ op: "create", stream: { ...stream, ...many.config() } }));
    const done = await ask("POST", `api/streams:batch${dry ? "?dry_run=true" : ""}`, { atomic: false, operations });
    fill(
      results,
      h("li", {}, h("b", {}, dry ? `${done.succeeded} can be added, ${done.failed} cannot.` : `${done.succeeded} are added, ${done.failed} are not.`)),
      done.results.map((/** @type {any} */ one, /** @type {number} */ at) =>
        one.error
          ? h("li", { class: "problem" }, `${one.id || streams[at].id}: ${one.error.detail ?? one.error.title}`)
          : h("li", {}, dry ? one.id : h("a", { href: `#/stream/${encodeURIComponent(one.id)}` }, one.id)),
      ),
    );
  };

  fill(
    place,
    h("div", { class: "bar" }, h("h1", {}, "Add cameras")),
    h(
      "div",
      { class: "panels" },
      h(
        "form",
        { class: "card fields", onsubmit: submit },
        h("h2", {}, "A camera"),
        h("label", {}, "Address", url),
        h("div", { class: "pair" }, h("label", {}, "User", user), h("label", {}, "Password", password)),
        h("div", { class: "row start" }, button("Look at it", probe)),
        seen,
        h("label", {}, "Name", id),
        recording.lines,
        problem,
        h("div", { class: "row" }, save),
      ),
      h(
        "section",
        { class: "card fields" },
        h("h2", {}, "In the network"),
        h("p", { class: "dim" }, "Cameras that know ONVIF answer by themselves; what they send, they tell whoever they know: user and password are those of the form."),
        h("label", {}, "Hosts", where),
        h("div", { class: "row start" }, button("Discover", discover)),
        devices,
      ),
      h(
        "section",
        { class: "card fields" },
        h("h2", {}, "Many at once"),
        h("label", {}, "A line each: a name and an address, or an address alone", list),
        many.lines,
        h("div", { class: "row" }, button("Check", () => batch(true)), button("Add all", () => batch(false), { class: "go" })),
        results,
      ),
    ),
  );
  url.focus();
  return () => {
    ended = true;
  };
}

/** @param {string} url */
function host(url) {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}
