// The server's API, as the page uses it: requests, what they refuse, and what happens.

/**
 * @typedef {{state: string, reason: string, enabled: boolean, file: string | null, bytes: number, lost_frames: number, modes: string[]}} Recording
 * @typedef {{kind: string, codec: string, width?: number, height?: number, frame_rate?: number | null}} Track
 * @typedef {{
 *   id: string, state: string, reason: string, since: string | null, enabled: boolean, source_url: string, tracks: Track[],
 *   bitrate_bps: number | null, frame_rate: number | null, packets_lost: number, readers: Record<string, number>,
 *   recording: Recording, last_error: string | null, addresses: Record<string, string>, origin: string,
 *   config: {variants?: {name: string}[], on_demand?: boolean} | null, fallback: {active: boolean} | null, inference?: {state: string} | null, renditions?: string[],
 * }} Stream
 * @typedef {{id?: number, kind: string, stream?: string, time: string, [more: string]: any}} Happening
 * @typedef {{actions: string[], streams?: string[]}} Permission
 * @typedef {{user: string | null, permissions: Permission[] | null, time_zone?: string | null}} Me
 */

/** Where the API is: beside the page. */
const base = new URL(".", document.baseURI);

/**
 * The address of something of the server's.
 * @param {string} path
 */
export function address(path) {
  return new URL(path, base);
}

/** What the server has refused, in its own words. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, detail?: string, title?: string, pointer?: string}} problem
   */
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answers ${status}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.pointer = problem.pointer ?? "";
  }
}

/** The server does not answer. */
export class Offline extends Error {
  constructor() {
    super("the server does not answer");
  }
}

/** Tells whoever listens: "signin" if somebody has to say who they are, "offline" and "online". */
export const bus = new EventTarget();
let offline = false;

/** How far the server's clock is ahead of this machine's, which may be wrong. */
let ahead = 0;

/** The time, as the server has it. */
export function now() {
  return Date.now() + ahead;
}

/** @param {Response} response */
function setClock({ headers }) {
  // Full seconds; what differs by less is the way and the rounding.
  const difference = Date.parse(headers.get("date") ?? "") + 500 - Date.now();
  if (Number.isFinite(difference)) ahead = Math.abs(difference) < 3000 ? 0 : Math.abs(difference - ahead) < 3000 ? ahead : difference;
}

/** @param {boolean} now */
function online(now) {
  if (offline === !now) return;
  offline = !now;
  bus.dispatchEvent(new Event(now ? "online" : "offline"));
}

/**
 * What the server answers, as it is.
 * @param {string} path
 * @param {RequestInit} [init]
 * @param {number} [timeout_ms]
 */
export function request(path, init = {}, timeout_ms = 15_000) {
  // No dialog of the browser's for who has not signed in.
  const headers = { ...init.headers, "x-requested-with": "page" };
  return fetch(address(path), { ...init, headers, signal: AbortSignal.timeout(timeout_ms) });
}

/**
 * From one time to another, for a query.
 * @param {number} start
 * @param {number} end
 */
export function between(start, end) {
  return `start=${new Date(start).toISOString()}&end=${new Date(end).toISOString()}`;
}

/**
 * Asks the server for something, or to do something.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
export async function ask(method, path, body) {
  let response;
  try {
    /** @type {RequestInit} */
    const sent = body === undefined ? {} : { headers: { "content-type": method === "PATCH" ? "application/merge-patch+json" : "application/json" }, body: JSON.stringify(body) };
    response = await request(path, { method, ...sent }, 20_000);
  } catch {
    online(false);
    throw new Offline();
  }
  online(true);
  setClock(response);
  const type = response.headers.get("content-type") ?? "";
  const answer = type.includes("json") ? await response.json().catch(() => ({})) : {};
  if (response.ok) return answer;
  if (response.status === 401) bus.dispatchEvent(new Event("signin"));
  throw new Refused(response.status, answer);
}

/**
 * Asks until the server answers, with pauses.
 * @param {string} path
 * @returns {Promise<any>}
 */
export async function patiently(path) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 5000)) {
    try {
      return await ask("GET", path);
    } catch (error) {
      if (!(error instanceof Offline)) throw error;
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

/**
 * All of a list that comes in pages.
 * @param {string} path
 * @returns {Promise<any[]>}
 */
export async function all(path) {
  const items = [];
  let after = "";
  do {
    const sign = path.includes("?") ? "&" : "?";
    const page = await ask("GET", `${path}${sign}limit=500${after && `&after=${encodeURIComponent(after)}`}`);
    items.push(...page.items);
    after = page.next ?? "";
  } while (after);
  return items;
}

/**
 * A stream's address in the API. An id may contain slashes, which stay.
 * @param {string} id
 * @param {string} [rest]
 */
export function ofStream(id, rest = "") {
  return `api/streams/${id.split("/").map(encodeURIComponent).join("/")}${rest}`;
}

/**
 * Hears what happens, of these kinds, also after an outage, until it is told to stop.
 * @param {string[]} kinds
 * @param {(event: Happening) => void} heard
 * @param {string} [stream]
 * @returns {() => void}
 */
export function listen(kinds, heard, stream) {
  const of = stream ? `&stream=${encodeURIComponent(stream)}` : "";
  const source = new EventSource(address(`api/events?kind=${kinds.join(",")}${of}`));
  /** @param {MessageEvent} message */
  const take = (message) => {
    try {
      heard(JSON.parse(message.data));
    } catch {
      // What is no event is none of ours.
    }
  };
  for (const kind of kinds) source.addEventListener(kind, take);
  return () => source.close();
}

/**
 * Whether there is something to see: it runs, is about to, or does as soon as somebody watches.
 * @param {Stream} stream
 */
export function playable({ enabled, state, config, origin }) {
  // What is made of another stream is made while somebody watches.
  return enabled && (state === "running" || state === "connecting" || (state === "idle" && (config?.on_demand === true || origin === "derived")));
}

/**
 * Whether somebody may do something, with a stream if one is named.
 * @param {Me} me
 * @param {string} action
 * @param {string} [stream]
 */
export function may(me, action, stream) {
  if (me.permissions === null) return true;
  return me.permissions.some(
    (permission) =>
      (permission.actions.includes(action) || permission.actions.includes("admin")) &&
      (stream === undefined || (permission.streams ?? ["*"]).some((pattern) => fits(pattern, stream))),
  );
}

/**
 * Whether an id fits a pattern in which * stands for anything.
 * @param {string} pattern
 * @param {string} id
 */
export function fits(pattern, id) {
  const parts = pattern.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(id);
}

/**
 * Whether somebody may do something that is not about one stream.
 * @param {Me} me
 * @param {string} action
 */
export function mayAll(me, action) {
  if (me.permissions === null) return true;
  return me.permissions.some(({ actions, streams }) => (actions.includes(action) || actions.includes("admin")) && (streams === undefined || streams.includes("*")));
}
