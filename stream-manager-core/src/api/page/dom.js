// Elements from data: text is text wherever it comes from, so nothing in a stream's name is ever markup.

import { now } from "./api.js";

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. Properties that begin with "on" are listeners, "class", "role", "for" and those with a "-" are attributes, the rest is set as it is.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, any>} [properties]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class" || key === "role" || key === "for" || key.includes("-")) {
      if (value !== false) element.setAttribute(key, value === true ? "" : String(value));
    } else /** @type {any} */ (element)[key] = value;
  }
  fill(element, ...children);
  return element;
}

/**
 * Replaces what an element holds.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  const wanted = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.replaceChildren(...wanted.map((child) => (typeof child === "object" ? child : String(child))));
}

/**
 * A button that shows that it is at work for as long as its action takes, and what came of it if that went wrong.
 * @param {string} text
 * @param {() => unknown} action
 * @param {Record<string, any>} [properties]
 */
export function button(text, action, properties = {}) {
  const made = h("button", { type: "button", ...properties }, text);
  made.addEventListener("click", async () => {
    if (made.getAttribute("aria-busy") === "true") return;
    made.setAttribute("aria-busy", "true");
    try {
      await action();
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
    } finally {
      made.removeAttribute("aria-busy");
    }
  });
  return made;
}

/**
 * Says something for a few seconds, aloud as well.
 * @param {string} text
 */
export function say(text) {
  let area = document.getElementById("said");
  if (!area) {
    area = h("div", { id: "said", role: "status", "aria-live": "polite" });
    document.body.append(area);
  }
  const line = h("p", {}, text);
  area.append(line);
  setTimeout(() => line.remove(), 6000);
}

/**
 * Puts something where it can be pasted from; without the right to do so it is shown.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    prompt("Copy it from here", text);
  }
}

/** Scrolls the links of a narrow window to the one that stands for what is shown. @param {HTMLElement} links */
export function showCurrent(links) {
  links.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

/**
 * Asks for something in a dialog, and does it; it stays open with what went wrong, if something did.
 * @param {string} title
 * @param {(Child | Child[])[]} content
 * @param {string} yes
 * @param {() => unknown} action
 * @param {string} [looks]
 * @param {string} [no]
 */
export function dialog(title, content, yes, action, looks = "go", no = "Cancel") {
  const problem = h("p", { class: "problem", role: "alert" });
  const go = h("button", { type: "submit", class: looks }, yes);
  const close = () => box.close();
  const form = h(
    "form",
    {
      method: "dialog",
      onsubmit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        if (go.getAttribute("aria-busy") === "true") return;
        go.setAttribute("aria-busy", "true");
        fill(problem);
        try {
          await action();
          close();
        } catch (error) {
          fill(problem, error instanceof Error ? error.message : String(error));
        } finally {
          go.removeAttribute("aria-busy");
        }
      },
    },
    h("h2", {}, title),
    content.flat(),
    problem,
    h("div", { class: "row" }, h("button", { type: "button", onclick: close }, no), go),
  );
  const box = h("dialog", { "aria-label": title, onclose: () => box.remove() }, form);
  document.body.append(box);
  box.showModal();
  // Who leaves the page leaves it as well.
  addEventListener("hashchange", close, { once: true });
}

/**
 * Bytes as people say them.
 * @param {number} bytes
 */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 999.5 && at < units.length - 1) {
    bytes /= 1000;
    at += 1;
  }
  return `${bytes < 10 && at > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/**
 * Bits per second as people say them.
 * @param {number | null | undefined} bits
 */
export function rate(bits) {
  if (!bits) return "–";
  return bits < 1e6 ? `${Math.round(bits / 1000)} kbit/s` : `${(bits / 1e6).toFixed(1)} Mbit/s`;
}

/**
 * How long ago, in words.
 * @param {string | null | undefined} time
 */
export function since(time) {
  if (!time) return "";
  const seconds = Math.max(0, (now() - Date.parse(time)) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** That can be told apart. */
const COLOURS = ["#f5b83d", "#ff7ab0", "#b48cff", "#4cc38a", "#ff9152", "#4dd4d4"];

/**
 * A colour for things of a kind, always the same.
 * @param {string} kind
 */
export function colour(kind) {
  let sum = 0;
  for (const letter of kind) sum = (sum * 31 + letter.charCodeAt(0)) >>> 0;
  return COLOURS[sum % COLOURS.length];
}
