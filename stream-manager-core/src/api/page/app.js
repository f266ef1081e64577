// The control room: who one is, where one is, and whether the server answers.

import { add } from "./add.js";
import { ask, bus, may, patiently, Refused } from "./api.js";
import { button, fill, h } from "./dom.js";
import { recordings } from "./recordings.js";
import { hasSettings, settings } from "./settings.js";
import { signin } from "./signin.js";
import { streamPage } from "./stream.js";
import { wall } from "./wall.js";

/** @typedef {import("./api.js").Me} Me */

const THEME = "stream-manager.theme";
const main = h("main", { id: "main", tabIndex: -1 });
const banner = h("p", { class: "banner", role: "alert", hidden: true }, "The server does not answer. Trying again …");
const who = h("span", { class: "who" });
const nav = h("nav", { "aria-label": "Pages" });
const header = h(
  "header",
  { class: "top" },
  h("a", { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => (event.preventDefault(), main.focus()) }, "Skip to the content"),
  h("a", { class: "brand", href: "#/" }, h("span", { "aria-hidden": "true" }, "◉"), " Stream Manager"),
  nav,
  h("span", { class: "space" }),
  who,
  button("◐", theme, { class: "quiet", "aria-label": "Light or dark", title: "Light or dark" }),
);
/** @type {{name: string, path: string, may: (me: Me) => boolean, open: (place: HTMLElement, me: Me, id: string) => () => void}[]} */
const PAGES = [
  { name: "Live", path: "", may: () => true, open: wall },
  { name: "Recordings", path: "recordings", may: (me) => may(me, "playback"), open: recordings },
  { name: "Add", path: "add", may: (me) => may(me, "api.write"), open: add },
  { name: "Settings", path: "settings", may: hasSettings, open: settings },
];
/** @type {(() => void) | null} */
let leave = null;
/** @type {Me | null} */
let me = null;

function theme() {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  const next = now === "light" ? "dark" : "light";
  document.documentElement.dataset.theme = next;
  localStorage.setItem(THEME, next);
}

/** What of an address behind # is meant. */
function place() {
  const [, page, id] = location.hash.match(/^#\/(\w*)\/?(.*)$/) ?? [];
  return { page: page ?? "", id: decodeURIComponent(id ?? "") };
}

function show() {
  leave?.();
  leave = null;
  if (!me) return;
  const { page, id } = place();
  const pages = PAGES.filter((one) => one.may(/** @type {Me} */ (me)));
  fill(nav, pages.map(({ name, path }) => h("a", { href: `#/${path}`, "aria-current": path === page ? "page" : undefined }, name)));
  const title = (page === "stream" && id) || pages.find(({ path }) => path && path === page)?.name;
  document.title = title ? `${title} · Stream Manager` : "Stream Manager";
  for (const open of document.querySelectorAll("dialog")) open.close();
  if (page === "stream" && id) leave = streamPage(main, me, id);
  else leave = (pages.find(({ path }) => path === page) ?? pages[0]).open(main, me, id);
}

async function begin() {
  leave?.();
  leave = null;
  fill(main, h("p", { class: "empty" }, "Loading …"));
  try {
    me = await patiently("api/me");
  } catch (error) {
    me = null;
    fill(who);
    fill(nav);
    // Who may do nothing at all without saying who they are is asked for that.
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      await signin(main, begin);
    } else {
      fill(main, h("p", { class: "empty" }, String(/** @type {Error} */ (error).message)), button("Try again", begin));
    }
    return;
  }
  const out = async () => {
    await ask("POST", "api/logout");
    await begin();
  };
  if (me?.user) {
    fill(who, h("span", {}, me.user), button("Sign out", out, { class: "quiet" }));
  } else {
    const setup = await ask("GET", "api/setup").catch(() => ({ needed: false }));
    fill(who, button(setup.needed ? "Make the first user" : "Sign in", signinNow, { class: "quiet" }));
  }
  show();
}

function signinNow() {
  leave?.();
  leave = null;
  return signin(main, begin);
}

const chosen = localStorage.getItem(THEME);
if (chosen) document.documentElement.dataset.theme = chosen;
document.body.append(header, banner, main);
addEventListener("hashchange", show);
// Rights that are lost in mid-session.
bus.addEventListener("signin", () => {
  if (me?.user) {
    me = null;
    begin();
  }
});
bus.addEventListener("offline", () => (banner.hidden = false));
bus.addEventListener("online", () => (banner.hidden = true));
// The server may be away while nothing is asked.
setInterval(() => ask("GET", "health/live").catch(() => {}), 5000);
begin();
