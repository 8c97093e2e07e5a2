// What is shown is in the address, after the #: gallery?label=happy&AU12=0.5..1&sort=confidence.
// A link to the page so leads to the same view, and the browser's buttons go back and forth.

const RANGES = [
  { key: "confidence", title: "confidence", least: 0, most: 1, step: 0.01 },
  { key: "nearest", title: "distance to nearest", least: 0, most: 255, step: 0.5 },
  ...manifest.units.map((key) => ({ key, title: key, least: 0, most: 1, step: 0.05 })),
];
const ORDERS = [
  { key: "", title: "as in the run" },
  { key: "confidence", title: "confidence, lowest first" },
  { key: "confident", title: "confidence, highest first" },
  { key: "nearest", title: "nearest duplicates first" },
  ...manifest.units.map((key) => ({ key, title: `${key}, strongest first` })),
];

function readState() {
  const [view, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  const state = { view, words: {}, ranges: {}, run: "", text: "", sort: "", open: "" };
  for (const [key, value] of new URLSearchParams(query)) {
    if (["run", "text", "sort", "open"].includes(key)) state[key] = value;
    else if (RANGES.some((range) => range.key === key)) {
      const ends = value.split("..").map(Number);
      if (ends.length === 2 && !ends.some(Number.isNaN)) state.ranges[key] = ends;
    } else if (manifest.filters.some((filter) => filter.key === key)) state.words[key] = value;
  }
  return state;
}

function address(state) {
  const query = new URLSearchParams();
  if (state.run) query.set("run", state.run);
  for (const [key, word] of Object.entries(state.words)) if (word) query.set(key, word);
  for (const [key, ends] of Object.entries(state.ranges)) query.set(key, ends.join(".."));
  for (const key of ["text", "sort", "open"]) if (state[key]) query.set(key, state[key]);
  const text = query.toString();
  return `#${state.view}${text && `?${text}`}`;
}

// Changes the address and what is shown. Only what can be gone back from becomes history.
function goTo(state, { remember = false } = {}) {
  const to = address(state);
  if (to === location.hash) return;
  if (remember) history.pushState(null, "", to);
  else history.replaceState(null, "", to);
  show();
}

// The places of the images that a state shows, in its order.
async function selected(state) {
  await loaded();
  const keep = new Uint8Array(total).fill(1);
  for (const run of runs) {
    const rows = keep.subarray(run.first, run.first + run.count);
    if (state.run && state.run !== run.letter) rows.fill(0);
    for (const [key, word] of Object.entries(state.words)) keepWord(rows, run.derived[key], word);
    for (const [key, ends] of Object.entries(state.ranges)) await keepRange(rows, run, key, ends);
    if (state.text) await keepText(rows, run.prompts, state.text);
  }
  const ids = new Uint32Array(total);
  let count = 0;
  for (let id = 0; id < total; id++) if (keep[id]) ids[count++] = id;
  return ordered(ids.subarray(0, count), state.sort);
}

function keepWord(rows, column, word) {
  const wanted = column ? column.values.indexOf(word) : -1;
  for (let i = 0; i < rows.length; i++) if (!column || column.code(i) !== wanted) rows[i] = 0;
}

async function keepRange(rows, run, key, [least, most]) {
  const column = await numbers(run, key);
  for (let i = 0; i < rows.length; i++) {
    const value = column ? column.value(i) : NaN;
    if (!(value >= least && value <= most)) rows[i] = 0;
  }
}

async function keepText(rows, column, text) {
  const wanted = text.toLowerCase();
  const has = (await column?.load())?.values.map((x) => String(x ?? "").toLowerCase().includes(wanted));
  for (let i = 0; i < rows.length; i++) if (!has?.[column.code(i)]) rows[i] = 0;
}

async function numbers(run, key) {
  const derived = { confidence: "confidence", confident: "confidence", nearest: "distance" }[key];
  return derived ? run.derived[derived] : run.units.get(key)?.load();
}

// Images in the order of a key; equal ones, and all without a key, by their number in the run, so
// that those of two runs with the same number stand side by side.
async function ordered(ids, key) {
  if (!key && runs.length === 1) return ids;
  const keys = new Float64Array(total);
  const number = new Float64Array(total);
  for (const run of runs) {
    const column = key && (await numbers(run, key));
    const down = key === "confidence" || key === "nearest" ? 1 : -1;
    for (let i = 0; i < run.count; i++) {
      number[run.first + i] = run.derived.number.value(i);
      const value = column ? down * column.value(i) : 0;
      keys[run.first + i] = value < 0 && down > 0 ? Infinity : value; // what has none comes last
    }
  }
  return ids.sort((a, b) => keys[a] - keys[b] || number[a] - number[b] || a - b);
}
