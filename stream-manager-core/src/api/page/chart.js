// A small line over time, with its newest value in words.

import { fill, h } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 48;
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} title
 * @param {(value: number) => string} words
 */
export function chart(title, words) {
  const line = document.createElementNS(SVG, "polyline");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  const value = h("dd");
  const element = h("div", { class: "chart" }, h("dt", {}, title), value);
  element.append(svg);
  return {
    element,
    /** @param {number[]} values */
    show(values) {
      const most = Math.max(...values, 1e-9);
      const step = WIDTH / Math.max(values.length - 1, 1);
      const points = values.map((v, at) => `${(at * step).toFixed(1)},${(HEIGHT - 2 - (v / most) * (HEIGHT - 4)).toFixed(1)}`);
      line.setAttribute("points", points.join(" "));
      fill(value, values.length ? words(values[values.length - 1]) : "–");
    },
  };
}
