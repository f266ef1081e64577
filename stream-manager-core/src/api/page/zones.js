// Zones, lines and masks of a stream, drawn over its picture. They are changed without touching the stream.

import { ask, may, ofStream, request } from "./api.js";
import { button, colour, copy, fill, h, say } from "./dom.js";

/**
 * @typedef {[number, number]} Point
 * @typedef {"zone" | "line" | "mask"} Kind
 * @typedef {{kind: Kind, points: Point[], config: Record<string, any>}} Shape
 */

const PICTURE_MS = 2000;
const MOST_POINTS = 64;
/** How far an arrow key moves a corner. */
const STEP = 0.01;
const LISTS = /** @type {Record<Kind, string>} */ ({ zone: "zones", line: "lines", mask: "masks" });
const PAINT = { mask: "#8c96a1" };

/** @param {number} value */
const within = (value) => Math.round(Math.min(1, Math.max(0, value)) * 10000) / 10000;

/**
 * A patch of the API as lines of the configuration file: JSON's values are TOML's, but for tables.
 * @param {Record<string, Record<string, any>[]>} patch
 */
const asToml = (patch) => {
  const table = (/** @type {Record<string, any>} */ one) => `  { ${Object.entries(one).map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join(", ")} },\n`;
  return Object.entries(patch).map(([key, all]) => `${key} = [${all.length ? `\n${all.map(table).join("")}` : ""}]\n`).join("");
};

/**
 * @param {HTMLElement} place
 * @param {import("./api.js").Me} me
 * @param {string} id
 * @returns {() => void} what ends it
 */
export function zones(place, me, id) {
  let ended = false;
  /** @type {Shape[]} */
  let shapes = [];
  /** @type {Shape | null} */
  let chosen = null;
  let changed = false;

  const image = h("img", { alt: `the picture of ${id}` });
  const canvas = h("canvas", { class: "overlay", "aria-hidden": "true" });
  const corners = h("div", { class: "corners" });
  const board = h("div", { class: "board" }, image, canvas, corners);
  const list = h("ul", { class: "shapes" });
  const fields = h("div", { class: "fields" });
  const problem = h("p", { class: "problem", role: "alert" });
  const lines = h("div");
  const allowed = may(me, "api.write", id);

  /** @param {Shape} shape */
  const paintOf = (shape) => (shape.kind === "mask" ? PAINT.mask : colour(String(shape.config.name)));
  /** @param {Shape} shape */
  const nameOf = (shape) => shape.config.name || (shape.kind === "mask" ? `mask ${shapes.filter(({ kind }) => kind === "mask").indexOf(shape) + 1}` : shape.kind);

  const draw = () => {
    const { clientWidth: wide, clientHeight: high } = board;
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(wide * scale);
    canvas.height = Math.round(high * scale);
    const pen = canvas.getContext("2d");
    if (!pen || !wide) return;
    pen.scale(scale, scale);
    pen.font = "600 13px system-ui, sans-serif";
    for (const shape of shapes) {
      const paint = paintOf(shape);
      pen.beginPath();
      shape.points.forEach(([x, y], at) => pen[at ? "lineTo" : "moveTo"](x * wide, y * high));
      if (shape.kind !== "line") pen.closePath();
      pen.globalAlpha = shape.kind === "mask" ? 0.45 : 0.22;
      pen.fillStyle = paint;
      if (shape.kind !== "line") pen.fill();
      pen.globalAlpha = 1;
      pen.strokeStyle = paint;
      pen.lineWidth = shape === chosen ? 4 : 2;
      pen.stroke();
      if (shape.kind === "line") arrows(pen, shape, wide, high);
      const [x, y] = shape.points[0];
      const text = nameOf(shape);
      pen.fillRect(x * wide, y * high, pen.measureText(text).width + 10, 20);
      pen.fillStyle = "#101010";
      pen.textBaseline = "top";
      pen.fillText(text, x * wide + 5, y * high + 4);
    }
  };
  /** Which way counts. @param {CanvasRenderingContext2D} pen @param {Shape} shape @param {number} wide @param {number} high */
  const arrows = (pen, shape, wide, high) => {
    const [[ax, ay], [bx, by]] = shape.points.map(([x, y]) => [x * wide, y * high]);
    const length = Math.hypot(bx - ax, by - ay) || 1;
    const [mx, my] = [(ax + bx) / 2, (ay + by) / 2];
    // To the right of somebody who looks from the first point to the second.
    const [rx, ry] = [-(by - ay) / length, (bx - ax) / length];
    const ways = { both: [1, -1], forward: [1], backward: [-1] }[/** @type {string} */ (shape.config.direction ?? "both")] ?? [1];
    for (const way of ways) {
      const [tx, ty] = [mx + rx * 26 * way, my + ry * 26 * way];
      pen.beginPath();
      pen.moveTo(mx, my);
      pen.lineTo(tx, ty);
      const [ux, uy] = [(bx - ax) / length, (by - ay) / length];
      pen.moveTo(tx + ux * 6 - rx * 8 * way, ty + uy * 6 - ry * 8 * way);
      pen.lineTo(tx, ty);
      pen.lineTo(tx - ux * 6 - rx * 8 * way, ty - uy * 6 - ry * 8 * way);
      pen.stroke();
    }
  };

  const touched = () => {
    changed = true;
    fill(problem);
    draw();
  };

  /** Corners of what is chosen, to be dragged, moved by arrow keys, or taken away. */
  const drawCorners = () => {
    const shape = chosen;
    if (!shape || !allowed) return fill(corners);
    const set = (/** @type {HTMLElement} */ corner, /** @type {number} */ at, /** @type {number} */ x, /** @type {number} */ y) => {
      shape.points[at] = [within(x), within(y)];
      lay(corner, shape.points[at]);
      touched();
    };
    const lay = (/** @type {HTMLElement} */ corner, /** @type {Point} */ point) => {
      corner.style.left = `${point[0] * 100}%`;
      corner.style.top = `${point[1] * 100}%`;
    };
    const least = shape.kind === "line" ? 2 : 3;
    fill(
      corners,
      shape.points.map((point, at) => {
        const corner = h("button", { type: "button", class: "corner", "aria-label": `Corner ${at + 1} of ${nameOf(shape)}` });
        lay(corner, point);
        corner.onpointerdown = (event) => {
          event.preventDefault();
          corner.focus();
          corner.setPointerCapture(event.pointerId);
        };
        corner.onpointermove = (event) => {
          if (!corner.hasPointerCapture(event.pointerId)) return;
          const { left, top, width, height } = board.getBoundingClientRect();
          set(corner, at, (event.clientX - left) / width, (event.clientY - top) / height);
        };
        corner.onkeydown = (event) => {
          const moves = /** @type {Record<string, Point>} */ ({ ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] });
          const move = moves[event.key];
          if (move) {
            event.preventDefault();
            set(corner, at, shape.points[at][0] + move[0], shape.points[at][1] + move[1]);
          } else if ((event.key === "Delete" || event.key === "Backspace") && shape.points.length > least) {
            event.preventDefault();
            shape.points.splice(at, 1);
            touched();
            drawCorners();
          }
        };
        corner.ondblclick = () => {
          if (shape.points.length <= least) return;
          shape.points.splice(at, 1);
          touched();
          drawCorners();
        };
        return corner;
      }),
      // Another corner in the middle of an edge.
      shape.kind !== "line" && shape.points.length < MOST_POINTS
        ? shape.points.map(([x, y], at) => {
            const [nx, ny] = shape.points[(at + 1) % shape.points.length];
            /** @type {Point} */
            const middle = [within((x + nx) / 2), within((y + ny) / 2)];
            const corner = h("button", { type: "button", class: "corner more", "aria-label": `Another corner behind corner ${at + 1}` });
            lay(corner, middle);
            corner.onclick = () => {
              shape.points.splice(at + 1, 0, middle);
              touched();
              drawCorners();
              /** @type {HTMLElement | null} */ (corners.children[at + 1])?.focus();
            };
            return corner;
          })
        : [],
    );
  };

  /** @param {Shape | null} shape */
  const choose = (shape) => {
    chosen = shape;
    drawList();
    drawFields();
    drawCorners();
    draw();
  };

  const drawList = () =>
    fill(
      list,
      shapes.length === 0 && h("li", { class: "none" }, "There is none yet."),
      shapes.map((shape) => {
        const spot = h("span", { class: "spot" });
        spot.style.background = paintOf(shape);
        return h("li", {}, h("button", { type: "button", "aria-pressed": String(shape === chosen), onclick: () => choose(shape) }, spot, nameOf(shape), h("small", {}, shape.kind)));
      }),
    );

  const drawFields = () => {
    const shape = chosen;
    if (!shape) return fill(fields);
    const { config } = shape;
    /** @param {string} text @param {string} key @param {Record<string, any>} more */
    const field = (text, key, more) => {
      const input = h("input", { value: String(more.list ? (config[key] ?? []).join(", ") : (config[key] ?? "")), disabled: !allowed, ...more.input });
      input.oninput = () => {
        const value = input.value.trim();
        if (more.list) config[key] = value.split(",").map((part) => part.trim()).filter(Boolean);
        else if (!value) delete config[key];
        else config[key] = more.number ? Number(value) : value;
        // Names are shown everywhere.
        if (key === "name") drawList();
        touched();
      };
      return h("label", {}, text, input);
    };
    const direction = () => {
      const select = h("select", { disabled: !allowed }, ["both", "forward", "backward"].map((value) => h("option", { value, selected: value === (config.direction ?? "both") }, { both: "Both ways", forward: "To its right", backward: "To its left" }[value] ?? value)));
      select.onchange = () => {
        config.direction = select.value;
        touched();
      };
      return h("label", {}, "What counts", select);
    };
    const time = { input: { placeholder: "30s" } };
    fill(
      fields,
      shape.kind !== "mask" && field("Name", "name", { input: { required: true, maxLength: 60 } }),
      field(shape.kind === "mask" ? "Only these do not count here" : "Only these count", "classes", { list: true, input: { placeholder: "person, dog; all if empty" } }),
      shape.kind === "line" && direction(),
      shape.kind === "zone" && [field("Told of who is in it for longer than", "loitering_after", time), field("Told of what stands still in it for longer than", "stationary_after", time), field("Told when there are more than", "max_objects", { number: true, input: { type: "number", min: "0", placeholder: "any number" } })],
      allowed && button("Take it away", () => {
        shapes = shapes.filter((one) => one !== shape);
        touched();
        choose(null);
      }),
    );
  };

  /** @param {Kind} kind */
  const add = (kind) => {
    const taken = new Set(shapes.map(({ config }) => config.name));
    let number = 1;
    while (taken.has(`${kind} ${number}`)) number += 1;
    /** @type {Point[]} */
    const points = kind === "line" ? [[0.5, 0.8], [0.5, 0.2]] : [[0.35, 0.35], [0.65, 0.35], [0.65, 0.65], [0.35, 0.65]];
    /** @type {Shape} */
    const shape = { kind, points, config: kind === "mask" ? {} : { name: `${kind} ${number}` } };
    shapes.push(shape);
    touched();
    choose(shape);
    /** @type {HTMLElement | null} */ (corners.firstElementChild)?.focus();
  };

  /** What cannot be saved from here can be taken along. @param {string} text */
  const forFile = (text) => {
    const take = () => copy(text).then(() => (changed = false));
    fill(lines, h("section", { class: "card" }, h("h2", {}, "For the configuration file"), h("p", {}, "These lines belong into the stream's inference, in place of those that are there."), h("pre", { tabIndex: 0 }, text), button("Copy", take)));
  };

  const save = async () => {
    fill(problem);
    fill(lines);
    /** @type {Record<string, any[]>} */
    const patch = { zones: [], lines: [], masks: [] };
    for (const { kind, points, config } of shapes) patch[LISTS[kind]].push({ ...config, points });
    try {
      await ask("PATCH", ofStream(id, "/inference"), patch);
      changed = false;
      say("It holds from now on.");
    } catch (error) {
      const { code, message, pointer } = /** @type {import("./api.js").Refused} */ (error);
      fill(problem, pointer ? `${pointer.replace(/^\//, "")}: ${message}` : message);
      if (code === "defined_in_file") forFile(asToml(patch));
    }
  };

  const read = async () => {
    const { config } = await ask("GET", ofStream(id, "/inference"));
    if (ended) return;
    shapes = /** @type {Kind[]} */ (["zone", "line", "mask"]).flatMap((kind) => (config?.[LISTS[kind]] ?? []).map((/** @type {any} */ { points, ...config }) => ({ kind, points: points.map((/** @type {Point} */ point) => [...point]), config })));
    choose(shapes[0] ?? null);
  };

  let timer = 0;
  const picture = async () => {
    const answer = await request(ofStream(id, "/snapshot.jpg?width=1280"), { cache: "no-store" }).catch(() => null);
    if (ended) return;
    if (answer?.ok) {
      const url = URL.createObjectURL(await answer.blob());
      image.onload = () => {
        URL.revokeObjectURL(url);
        draw();
      };
      image.src = url;
    }
    timer = window.setTimeout(picture, PICTURE_MS);
  };

  fill(
    place,
    h("div", { class: "bar" }, h("a", { class: "button", href: `#/stream/${encodeURIComponent(id)}`, "aria-label": "Back to the stream" }, "‹"), h("h1", {}, `Zones of ${id}`), h("span", { class: "space" }), allowed && button("Save", save, { class: "go" })),
    h(
      "div",
      { class: "stream" },
      h("div", { class: "main" }, board, h("p", { class: "keys" }, "Drag the corners, or move them by the arrow keys. The small ones add a corner; a double click or Delete takes one away.")),
      h(
        "div",
        { class: "side" },
        problem,
        lines,
        h("section", { class: "card" }, h("h2", {}, "Zones, lines and masks"), list, allowed && h("div", { class: "row" }, button("Zone", () => add("zone")), button("Line", () => add("line")), button("Mask", () => add("mask")))),
        h("section", { class: "card" }, h("h2", {}, "What it means"), fields),
      ),
    ),
  );
  const resized = new ResizeObserver(draw);
  resized.observe(board);
  const stay = (/** @type {Event} */ event) => changed && event.preventDefault();
  addEventListener("beforeunload", stay);
  picture();
  read().catch((error) => fill(problem, error.message));
  return () => {
    ended = true;
    clearTimeout(timer);
    resized.disconnect();
    removeEventListener("beforeunload", stay);
    if (changed) say("What was not saved is lost.");
  };
}
