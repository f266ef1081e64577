// QR codes (ISO/IEC 18004) of addresses, for phones: bytes, level M, versions 1 to 15.

/** Of each version: codewords for correction in a block, and how many blocks there are with how many codewords of data. */
const BLOCKS = [
  [10, [[1, 16]]], [16, [[1, 28]]], [26, [[1, 44]]], [18, [[2, 32]]], [24, [[2, 43]]], [16, [[4, 27]]], [18, [[4, 31]]], [22, [[2, 38], [2, 39]]],
  [22, [[3, 36], [2, 37]]], [26, [[4, 43], [1, 44]]], [30, [[1, 50], [4, 51]]], [22, [[6, 36], [2, 37]]], [22, [[8, 37], [1, 38]]], [24, [[4, 40], [5, 41]]], [24, [[5, 41], [5, 42]]],
];
/** Where the small squares are. */
const SQUARES = [[], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50], [6, 30, 54], [6, 32, 58], [6, 34, 62], [6, 26, 46, 66], [6, 26, 48, 70]];

const EXP = new Uint8Array(512);
const LOG = new Uint8Array(256);
for (let at = 0, value = 1; at < 255; at++) {
  EXP[at] = EXP[at + 255] = value;
  LOG[value] = at;
  value = (value << 1) ^ (value & 128 ? 0x11d : 0);
}

/**
 * What corrects errors in data (Reed and Solomon).
 * @param {number[]} data
 * @param {number} count
 */
function correction(data, count) {
  let generator = [1];
  for (let at = 0; at < count; at++) {
    const next = new Array(generator.length + 1).fill(0);
    generator.forEach((value, i) => {
      next[i] ^= value;
      if (value) next[i + 1] ^= EXP[LOG[value] + at];
    });
    generator = next;
  }
  const rest = [...data, ...new Array(count).fill(0)];
  for (let at = 0; at < data.length; at++) {
    const factor = rest[at];
    if (factor) generator.forEach((value, i) => (rest[at + i] ^= value ? EXP[LOG[value] + LOG[factor]] : 0));
  }
  return rest.slice(data.length);
}

/**
 * @param {number} value
 * @param {number} generator
 * @param {number} bits
 */
function remainder(value, generator, bits) {
  let rest = value << bits;
  for (let at = 31 - Math.clz32(rest); rest >= 1 << bits; at = 31 - Math.clz32(rest)) rest ^= generator << (at - bits);
  return rest;
}

/** @type {((x: number, y: number) => boolean)[]} */
const MASKS = [
  (x, y) => (x + y) % 2 === 0, (_x, y) => y % 2 === 0, (x) => x % 3 === 0, (x, y) => (x + y) % 3 === 0, (x, y) => (Math.floor(y / 2) + Math.floor(x / 3)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0, (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0, (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

/**
 * The dark and light modules, row by row; null if the text is too long.
 * @param {string} text
 * @returns {boolean[][] | null}
 */
export function qr(text) {
  const bytes = [...new TextEncoder().encode(text)];
  const version = 1 + BLOCKS.findIndex(([, groups], at) => /** @type {number[][]} */ (groups).reduce((sum, [n, size]) => sum + n * size, 0) >= bytes.length + (at < 9 ? 2 : 3));
  if (version === 0) return null;
  const [ecc, groups] = /** @type {[number, number[][]]} */ (BLOCKS[version - 1]);
  const room = groups.reduce((sum, [n, size]) => sum + n * size, 0);
  const bits = `0100${bytes.length.toString(2).padStart(version < 10 ? 8 : 16, "0")}${bytes.map((byte) => byte.toString(2).padStart(8, "0")).join("")}`;
  const padded = (bits + "0000").padEnd(Math.ceil(Math.min(bits.length + 4, room * 8) / 8) * 8, "0").slice(0, room * 8);
  const words = (padded.match(/.{8}/g) ?? []).map((byte) => parseInt(byte, 2));
  for (let at = 0; words.length < room; at++) words.push(at % 2 ? 0x11 : 0xec);
  /** @type {number[][]} */
  const blocks = [];
  for (const [n, size] of groups) for (let at = 0; at < n; at++) blocks.push(words.splice(0, size));
  const corrections = blocks.map((block) => correction(block, ecc));
  const longest = Math.max(...blocks.map((block) => block.length));
  const all = [];
  for (let at = 0; at < longest; at++) for (const block of blocks) if (at < block.length) all.push(block[at]);
  for (let at = 0; at < ecc; at++) for (const block of corrections) all.push(block[at]);
  const stream = all.map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return place(version, stream);
}

/**
 * @param {number} version
 * @param {string} stream
 */
function place(version, stream) {
  const size = version * 4 + 17;
  /** @type {(boolean | null)[][]} */
  const fixed = Array.from({ length: size }, () => new Array(size).fill(null));
  const set = (/** @type {number} */ x, /** @type {number} */ y, /** @type {boolean} */ dark) => {
    if (x >= 0 && y >= 0 && x < size && y < size) fixed[y][x] = dark;
  };
  for (const [cx, cy] of [[3, 3], [size - 4, 3], [3, size - 4]]) {
    for (let y = -4; y <= 4; y++) for (let x = -4; x <= 4; x++) set(cx + x, cy + y, ![2, 4].includes(Math.max(Math.abs(x), Math.abs(y))));
  }
  const places = SQUARES[version - 1];
  for (const cy of places) {
    for (const cx of places) {
      if ((cx === 6 && cy === 6) || (cx === 6 && cy === size - 7) || (cx === size - 7 && cy === 6)) continue;
      for (let y = -2; y <= 2; y++) for (let x = -2; x <= 2; x++) set(cx + x, cy + y, Math.max(Math.abs(x), Math.abs(y)) !== 1);
    }
  }
  for (let at = 8; at < size - 8; at++) {
    fixed[6][at] = at % 2 === 0;
    fixed[at][6] = at % 2 === 0;
  }
  if (version >= 7) {
    const value = (version << 12) | remainder(version, 0x1f25, 12);
    for (let at = 0; at < 18; at++) {
      const dark = ((value >> at) & 1) === 1;
      set(size - 11 + (at % 3), Math.floor(at / 3), dark);
      set(Math.floor(at / 3), size - 11 + (at % 3), dark);
    }
  }
  let best = null;
  let least = Infinity;
  for (let mask = 0; mask < 8; mask++) {
    const grid = fixed.map((row) => [...row]);
    // Level M is 00.
    const value = ((mask << 10) | remainder(mask, 0x537, 10)) ^ 0x5412;
    for (let at = 0; at < 15; at++) {
      const dark = ((value >> at) & 1) === 1;
      if (at < 6) grid[at][8] = dark;
      else if (at < 8) grid[at + 1][8] = dark;
      else grid[size - 15 + at][8] = dark;
      if (at < 8) grid[8][size - 1 - at] = dark;
      else if (at === 8) grid[8][7] = dark;
      else grid[8][14 - at] = dark;
    }
    grid[size - 8][8] = true;
    let next = 0;
    for (let right = size - 1, up = true; right > 0; right -= 2, up = !up) {
      if (right === 6) right = 5;
      for (let step = 0; step < size; step++) {
        const y = up ? size - 1 - step : step;
        for (const x of [right, right - 1]) {
          if (grid[y][x] !== null) continue;
          grid[y][x] = (stream[next++] === "1") !== MASKS[mask](x, y);
        }
      }
    }
    const made = grid.map((row) => row.map(Boolean));
    const bad = penalty(made);
    if (bad < least) [least, best] = [bad, made];
  }
  return best;
}

/**
 * How hard it is to read.
 * @param {boolean[][]} grid
 */
function penalty(grid) {
  const size = grid.length;
  let sum = 0;
  const lines = [...grid, ...grid.map((_row, x) => grid.map((row) => row[x]))].map((line) => line.map((dark) => (dark ? "1" : "0")).join(""));
  for (const line of lines) {
    for (const run of line.match(/0{5,}|1{5,}/g) ?? []) sum += run.length - 2;
    for (const wrong of ["10111010000", "00001011101"]) for (let at = line.indexOf(wrong); at >= 0; at = line.indexOf(wrong, at + 1)) sum += 40;
  }
  let dark = 0;
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      if (grid[y][x]) dark += 1;
      if (x && y && grid[y][x] === grid[y - 1][x] && grid[y][x] === grid[y][x - 1] && grid[y][x] === grid[y - 1][x - 1]) sum += 3;
    }
  }
  return sum + Math.floor(Math.abs((dark / (size * size)) * 20 - 10)) * 10;
}

/**
 * As a picture.
 * @param {string} text
 * @returns {HTMLCanvasElement | null}
 */
export function qrPicture(text) {
  const grid = qr(text);
  if (!grid) return null;
  const canvas = document.createElement("canvas");
  const scale = 5;
  canvas.width = canvas.height = (grid.length + 8) * scale;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `QR code of ${text}`);
  const pen = canvas.getContext("2d");
  if (pen) {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.fillStyle = "#000";
    grid.forEach((row, y) => row.forEach((dark, x) => dark && pen.fillRect((x + 4) * scale, (y + 4) * scale, scale, scale)));
  }
  return canvas;
}
