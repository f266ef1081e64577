// One stream: its live picture, how it is, what can be done with it, who watches, what happens.

import { address, all, ask, listen, may, ofStream, Offline, playable, Refused } from "./api.js";
import { chart } from "./chart.js";
import { button, copy, dialog, fill, h, rate, say, since, size } from "./dom.js";
import { Live } from "./live.js";
import { Overlay } from "./overlay.js";
import { condition } from "./tile.js";
import { ownZone, time as clockTime } from "./zone.js";

/** @typedef {import("./api.js").Stream} Stream */

const REFRESH_MS = 5000;
const MAX_EVENTS = 50;
const MAX_DELAYS = 60;
const KINDS = [
  "stream_state", "recording_state", "stream_changed", "recording_gap", "segment_started", "session_opened", "session_closed", "consumer_lagged",
  "packets_lost", "forward_state", "fallback_state", "camera_event", "inference_state", "export_finished", "export_failed",
];
/** Addresses for people, and the protocols they are for. */
const ADDRESSES = /** @type {const} */ ([
  ["rtsp", "RTSP"], ["rtsps", "RTSPS"], ["whep", "WebRTC (WHEP)"], ["webrtc", "WebRTC page"], ["hls", "HLS"], ["dash", "DASH"], ["mp4", "MP4"], ["rtmp", "RTMP"],
  ["whip", "WebRTC (WHIP)"],
]);

/** @param {import("./api.js").Happening} event */
function words(event) {
  const more = { ...event };
  for (const key of ["id", "kind", "stream", "time"]) delete more[key];
  const text = Object.values(more)
    .filter((value) => value !== null && value !== "")
    .map((value) => (typeof value === "object" ? JSON.stringify(value) : String(value)));
  return text.join(" · ");
}

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @param {string} id
 * @returns {() => void} what ends it
 */
export function streamPage(place, me, id) {
  let ended = false;
  /** @type {Stream | null} */
  let stream = null;
  const box = h("div", { class: "picture" });
  const why = h("p", { class: "why" });
  const player = h("div", { class: "player" }, box, why);
  const watched = may(me, "read", id);
  const live = new Live(box, id, {
    onstate: (name, detail) => {
      player.dataset.playing = String(name === "playing");
      if (stream?.state === "running") fill(why, name === "playing" ? "" : detail);
    },
  });
  const overlay = new Overlay(box, live);
  const state = h("span", { class: "state" });
  const facts = h("dl", { class: "facts" });
  const actions = h("div", { class: "actions" });
  const addresses = h("ul", { class: "addresses" });
  const sessions = h("tbody");
  const nobody = h("p", { class: "empty" }, "Nobody watches.");
  const heads = ["By", "Who", "From", "Rate", "For", "End"].map((name) => h("th", { scope: "col" }, name));
  const table = h(
    "div",
    { class: "scroll", tabIndex: 0, role: "group", "aria-label": "Sessions", hidden: true },
    h("table", {}, h("thead", {}, h("tr", {}, heads)), sessions),
  );
  const log = h("ol", { class: "events", reversed: true });
  const zoning = h("a", { class: "button", href: `#/zones/${encodeURIComponent(id)}`, hidden: true }, "Zones …");
  const charts = {
    rate: chart("Bit rate", rate),
    frames: chart("Pictures a second", (value) => value.toFixed(1)),
    lost: chart("Packets lost", (value) => String(value)),
    delay: chart("Delay here", (value) => `${Math.round(value)} ms`),
  };
  /** @type {number[]} */
  const delays = [];
  const sound = button("Sound on", () => {
    live.mute(!live.muted);
    sound.textContent = live.muted ? "Sound on" : "Sound off";
  });
  const full = button("Full screen", () => (document.fullscreenElement ? document.exitFullscreen() : player.requestFullscreen()));
  const snapshot = h("a", { class: "button", href: address(ofStream(id, "/snapshot.jpg")).href, download: `${id.replaceAll("/", "_")}.jpg` }, "Picture");

  const removing = button("Remove …", () => {
    const also = h("input", { type: "checkbox" });
    return dialog("Remove the stream", [h("p", {}, `${id} is no longer taken in.`), h("label", { class: "check" }, also, h("span", {}, "and all of its recordings are deleted"))], "Remove", async () => {
      await ask("DELETE", ofStream(id, also.checked ? "?recordings=all" : ""));
      say(`${id} is removed.`);
      location.hash = "#/";
    }, "danger");
  });

  /** @param {string} path @param {string} done */
  const act = async (path, done) => {
    await ask("POST", ofStream(id, path));
    say(done);
    await refresh();
  };

  const drawActions = () => {
    if (!stream) return;
    /** @type {HTMLElement[]} */
    const buttons = watched ? [sound, full, snapshot] : [];
    if (may(me, "record", id)) {
      const now = stream.recording.state;
      if (now === "off" || now === "waiting") buttons.push(button("Record", () => act("/recording/start", "It is recorded.")));
      if (now === "paused") buttons.push(button("Resume recording", () => act("/recording/resume", "Recording goes on.")));
      if (now === "recording") {
        buttons.push(button("Pause recording", () => act("/recording/pause", "Recording is paused.")));
        buttons.push(button("New file", () => act("/recording/split", "A new file has begun.")));
      }
      if (now !== "off") buttons.push(button("Stop recording", () => act("/recording/stop", "Recording has stopped.")));
    }
    if (may(me, "api.write", id) && stream.config) {
      buttons.push(
        stream.enabled
          ? button("Disable", () => act("/disable", "It is disabled."))
          : button("Enable", () => act("/enable", "It is enabled.")),
      );
      if (stream.enabled) buttons.push(button("Connect again", () => act("/restart", "It connects again.")));
    }
    // Buttons that are the same stay, so that the keyboard's place does.
    const same = [...actions.children].map((b) => b.textContent).join() === buttons.map((b) => b.textContent).join();
    if (!same) fill(actions, buttons);
  };

  /** @param {string} name @param {string} text */
  const showQr = async (name, text) => {
    const { qrPicture } = await import("./qr.js");
    dialog(name, [h("div", { class: "qr" }, qrPicture(text) ?? h("p", {}, "The address is too long for a QR code.")), h("p", {}, h("code", {}, text))], "Copy", () => copy(text), "go", "Close");
  };

  const draw = () => {
    if (!stream) return;
    const { word, kind, why: reason } = condition(stream);
    zoning.hidden = !stream.inference || !stream.config || !may(me, "api.read", id);
    player.dataset.state = kind;
    state.dataset.state = kind;
    fill(state, word);
    if (!watched) fill(why, "You may not watch this stream.");
    else if (stream.state !== "running") fill(why, reason);
    const playing = watched && playable(stream) && !document.hidden;
    if (playing) live.start();
    else live.stop();
    if (playing && stream.inference?.state === "running") overlay.start();
    else overlay.stop();
    const picture = stream.tracks.find((track) => track.kind === "video");
    const sounds = stream.tracks.find((track) => track.kind === "audio");
    const { recording } = stream;
    /** @type {[string, string][]} */
    const rows = [
      ["State", `${word}${reason ? `: ${reason}` : ""}${stream.since ? `, for ${since(stream.since)}` : ""}`],
      ["Picture", picture ? `${picture.codec} ${picture.width ?? "?"} × ${picture.height ?? "?"}` : "none"],
      ["Sound", sounds?.codec ?? "none"],
      ["Recording", `${recording.state}${recording.state === "recording" ? `, ${size(recording.bytes)} since the start` : `: ${recording.reason}`}`],
      ["Source", stream.source_url],
      ["Watched by", Object.entries(stream.readers).map(([protocol, count]) => `${count} × ${protocol}`).join(", ") || "nobody"],
    ];
    const made = (stream.renditions ?? []).flatMap((other) => [h("a", { href: `#/stream/${encodeURIComponent(other)}` }, other), " "]);
    fill(facts, rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]), made.length ? [h("dt", {}, "Also as"), h("dd", {}, made)] : []);
    const known = ADDRESSES.filter(([key]) => stream?.addresses[key]);
    fill(
      addresses,
      known.map(([key, name]) => {
        const text = stream?.addresses[key] ?? "";
        return h("li", {}, h("span", {}, name), h("code", {}, text), h("span", { class: "row" }, button("Copy", () => copy(text), { "aria-label": `Copy the address for ${name}` }), button("QR", () => showQr(name, text), { "aria-label": `The address for ${name} as a QR code` })));
      }),
    );
    drawActions();
  };

  const drawSessions = async () => {
    if (!may(me, "api.read", id)) return;
    const items = await all(ofStream(id, "/sessions"));
    nobody.hidden = items.length > 0;
    table.hidden = !nobody.hidden;
    fill(
      sessions,
      items.map((session) =>
        h(
          "tr",
          {},
          h("td", {}, session.protocol),
          h("td", {}, session.user ?? "–"),
          h("td", {}, session.address),
          h("td", {}, rate(session.bitrate_bps)),
          h("td", {}, since(session.since)),
          h(
            "td",
            {},
            may(me, "api.write", id) &&
              button(
                "End",
                async () => {
                  await ask("DELETE", `api/sessions/${session.id}`);
                  await drawSessions();
                },
                { "aria-label": `End the session from ${session.address}` },
              ),
          ),
        ),
      ),
    );
  };

  const refresh = async () => {
    try {
      stream = await ask("GET", ofStream(id));
      if (ended) return;
      draw();
      const stats = await ask("GET", ofStream(id, "/stats"));
      if (ended) return;
      const samples = /** @type {any[]} */ (stats.history);
      charts.rate.show(samples.map((sample) => sample.bitrate_bps));
      charts.frames.show(samples.map((sample) => sample.frame_rate));
      charts.lost.show(samples.map((sample) => sample.packets_lost));
      const delay = await live.delay();
      if (delay !== null) delays.push(delay);
      if (delays.length > MAX_DELAYS) delays.shift();
      charts.delay.show(delays);
      await drawSessions();
    } catch (error) {
      if (error instanceof Refused && error.status === 404) {
        live.stop();
        fill(place, h("p", { class: "empty" }, `There is no stream "${id}" (any more). `, h("a", { href: "#/" }, "To the wall")));
        end();
      } else if (!(error instanceof Refused || error instanceof Offline)) {
        throw error;
      }
    }
  };

  fill(
    place,
    h("div", { class: "bar" }, h("a", { class: "button", href: "#/", "aria-label": "Back to the wall" }, "‹"), h("h1", {}, id), state, h("span", { class: "space" }), may(me, "playback", id) && h("a", { class: "button", href: `#/recordings/${encodeURIComponent(id)}` }, "Recordings"), zoning, may(me, "api.write", id) && removing),
    h(
      "div",
      { class: "stream" },
      h("div", { class: "main" }, player, actions, h("dl", { class: "charts" }, charts.rate.element, charts.frames.element, charts.lost.element, charts.delay.element)),
      h(
        "div",
        { class: "side" },
        h("section", { class: "card" }, h("h2", {}, "How it is"), facts),
        h("section", { class: "card" }, h("h2", {}, "Addresses"), addresses),
        h(
          "section",
          { class: "card" },
          h("h2", {}, "Sessions"),
          nobody,
          table,
        ),
        h("section", { class: "card" }, h("h2", {}, "What happens"), log),
      ),
    ),
  );
  let soon = 0;
  const silence = listen(
    KINDS,
    (event) => {
      const time = clockTime(Date.parse(event.time), ownZone());
      log.prepend(h("li", {}, h("time", { dateTime: event.time }, time), " ", h("b", {}, event.kind.replaceAll("_", " ")), " ", h("span", {}, words(event))));
      while (log.children.length > MAX_EVENTS) log.lastElementChild?.remove();
      clearTimeout(soon);
      soon = window.setTimeout(refresh, 250);
    },
    id,
  );
  const timer = setInterval(refresh, REFRESH_MS);
  const awake = () => draw();
  document.addEventListener("visibilitychange", awake);
  const end = () => {
    ended = true;
    clearInterval(timer);
    clearTimeout(soon);
    silence();
    live.stop();
    overlay.stop();
    document.removeEventListener("visibilitychange", awake);
  };
  refresh();
  return end;
}
