// Times as clocks on the wall show them, in any time zone: days of 23 and 25 hours are days.

/** @type {Map<string, Intl.DateTimeFormat>} */
const formats = new Map();
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** Steps between lines, from a second on. */
const STEPS = [1000, 2000, 5000, 10_000, 15_000, 30_000, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 7 * DAY];

/**
 * @param {string} zone
 * @param {Intl.DateTimeFormatOptions} options
 */
function format(zone, options) {
  const key = zone + JSON.stringify(options);
  let made = formats.get(key);
  if (!made) formats.set(key, (made = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone, hourCycle: "h23" })));
  return made;
}

/** The time zone of whoever looks. */
export function ownZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/**
 * Whether there is a zone of this name.
 * @param {string} zone
 */
export function isZone(zone) {
  try {
    format(zone, { hour: "numeric" });
    return true;
  } catch {
    return false;
  }
}

/**
 * What the clock shows.
 * @param {number} ms
 * @param {string} zone
 */
export function clock(ms, zone) {
  /** @type {Record<string, number>} */
  const found = {};
  const all = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };
  for (const { type, value } of format(zone, /** @type {any} */ (all)).formatToParts(ms)) found[type] = Number(value);
  return { year: found.year, month: found.month, day: found.day, hour: found.hour, minute: found.minute, second: found.second };
}

/**
 * How far the clock is ahead of UTC, in milliseconds.
 * @param {number} ms
 * @param {string} zone
 */
export function offset(ms, zone) {
  const { year, month, day, hour, minute, second } = clock(ms, zone);
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(ms / 1000) * 1000;
}

/**
 * When the clock shows this. What it shows twice is the first time; what it leaves out is what it shows instead.
 * @param {string} zone
 * @param {number} year
 * @param {number} month
 * @param {number} day
 * @param {number} [hour]
 * @param {number} [minute]
 * @param {number} [second]
 */
export function instant(zone, year, month, day, hour = 0, minute = 0, second = 0) {
  const shown = Date.UTC(year, month - 1, day, hour, minute, second);
  const before = shown - offset(shown - DAY, zone);
  const after = shown - offset(shown + DAY, zone);
  const right = [before, after].filter((ms) => ms + offset(ms, zone) === shown);
  return right.length ? Math.min(...right) : Math.max(before, after);
}

/**
 * When the day begins that is so many days from the one that a time is in.
 * @param {number} ms
 * @param {string} zone
 * @param {number} [days]
 */
export function dayOf(ms, zone, days = 0) {
  const { year, month, day } = clock(ms, zone);
  const noon = new Date(Date.UTC(year, month - 1, day + days));
  return instant(zone, noon.getUTCFullYear(), noon.getUTCMonth() + 1, noon.getUTCDate());
}

/**
 * When the week begins, on a Monday.
 * @param {number} ms
 * @param {string} zone
 * @param {number} [weeks]
 */
export function weekOf(ms, zone, weeks = 0) {
  const { year, month, day } = clock(ms, zone);
  const weekday = (new Date(Date.UTC(year, month - 1, day)).getUTCDay() + 6) % 7;
  return dayOf(ms, zone, weeks * 7 - weekday);
}

/**
 * Where lines are drawn: at round times of the clock, at least so far apart.
 * @param {number} from
 * @param {number} to
 * @param {string} zone
 * @param {number} apart
 * @returns {{at: number, text: string, day: boolean}[]}
 */
export function ticks(from, to, zone, apart) {
  const step = STEPS.find((one) => one >= apart) ?? 7 * DAY;
  const found = [];
  if (step >= DAY) {
    const days = step / DAY;
    for (let at = days === 7 ? weekOf(from, zone) : dayOf(from, zone); at <= to; at = dayOf(at, zone, days)) {
      if (at >= from) found.push({ at, text: date(at, zone), day: true });
    }
    return found;
  }
  // Clocks change by half an hour at the least.
  const unit = Math.min(step, 30 * MINUTE);
  const ahead = offset(from, zone);
  for (let at = Math.ceil((from + ahead) / unit) * unit - ahead; at <= to; at += unit) {
    const { hour, minute, second } = clock(at, zone);
    const ofDay = ((hour * 60 + minute) * 60 + second) * 1000;
    if (ofDay % step) continue;
    found.push({ at, text: ofDay === 0 ? date(at, zone) : time(at, zone, step < MINUTE), day: ofDay === 0 });
  }
  return found;
}

/**
 * @param {number} ms
 * @param {string} zone
 * @param {boolean} [seconds]
 */
export function time(ms, zone, seconds = true) {
  return format(zone, { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) }).format(ms);
}

/**
 * @param {number} ms
 * @param {string} zone
 */
export function date(ms, zone) {
  return format(zone, { weekday: "short", day: "numeric", month: "short" }).format(ms);
}

/**
 * Date and time, and where clocks are set back also which of the two it is.
 * @param {number} ms
 * @param {string} zone
 */
export function full(ms, zone) {
  const twice = offset(ms - 2 * HOUR, zone) !== offset(ms + 2 * HOUR, zone);
  return `${date(ms, zone)} ${clock(ms, zone).year}, ${time(ms, zone)}${twice ? ` ${zoneName(ms, zone)}` : ""}`;
}

/**
 * What the zone is called at a time: CET, GMT+2.
 * @param {number} ms
 * @param {string} zone
 */
export function zoneName(ms, zone) {
  const part = format(zone, { hour: "numeric", timeZoneName: "short" }).formatToParts(ms).find(({ type }) => type === "timeZoneName");
  return part?.value ?? zone;
}

/**
 * As fields for dates have it.
 * @param {number} ms
 * @param {string} zone
 */
export function isoDate(ms, zone) {
  const { year, month, day } = clock(ms, zone);
  return `${String(year).padStart(4, "0")}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
}

/**
 * A length in words.
 * @param {number} ms
 */
export function long(ms) {
  const seconds = Math.round(ms / 1000);
  const parts = [[Math.floor(seconds / 86400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "min"], [seconds % 60, "s"]];
  return parts.filter(([count]) => count).slice(0, 2).map((part) => part.join(" ")).join(" ") || "0 s";
}
