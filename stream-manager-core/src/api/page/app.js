// The control room: who one is, where one is, and whether the server answers.

import { ask, bus, may, mayAll, patiently, Refused } from "./api.js";
import { button, fill, h, showCurrent } from "./dom.js";
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
/** @typedef {(place: HTMLElement, me: Me, id: string) => () => void} Open */
/**
 * The wall is there at once; the others come when somebody goes there.
 * @type {{name: string, path: string, may: (me: Me) => boolean, load: () => Promise<Open>}[]}
 */
const PAGES = [
  { name: "Live", path: "", may: () => true, load: async () => wall },
  { name: "Recordings", path: "recordings", may: (me) => may(me, "playback"), load: async () => (await import("./recordings.js")).recordings },
  { name: "Seen", path: "objects", may: (me) => may(me, "playback"), load: async () => (await import("./objects.js")).objects },
  { name: "Add", path: "add", may: (me) => mayAll(me, "api.write"), load: async () => (await import("./add.js")).add },
  { name: "Settings", path: "settings", may: (me) => mayAll(me, "api.read"), load: async () => (await import("./settings.js")).settings },
];
/** How often somebody has gone somewhere: what comes late is not shown any more. */
let turn = 0;
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
  showCurrent(nav);
  const title = ((page === "stream" || page === "zones") && id) || pages.find(({ path }) => path && path === page)?.name;
  document.title = title ? `${title} · Stream Manager` : "Stream Manager";
  for (const open of document.querySelectorAll("dialog")) open.close();
  const mine = ++turn;
  if (page === "stream" && id) {
    leave = streamPage(main, me, id);
    return;
  }
  const zones = { name: "Zones", path: "zones", load: async () => (await import("./zones.js")).zones };
  const target = page === "zones" && id ? zones : (pages.find(({ path }) => path === page) ?? pages[0]);
  if (target.path) fill(main, h("p", { class: "empty" }, "Loading …"));
  target.load().then(
    (open) => {
      if (mine === turn && me) leave = open(main, me, id);
    },
    () => mine === turn && fill(main, h("p", { class: "empty" }, "The server does not answer. "), button("Try again", () => location.reload())),
  );
}

async function begin() {
  turn += 1;
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
  turn += 1;
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
