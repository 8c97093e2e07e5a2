// The form of the filters. It shows the state of the address, and writes what is chosen into it.

const filters = {
  words: document.getElementById("words"),
  ranges: document.getElementById("ranges"),
  text: document.getElementById("text"),
  add: document.getElementById("add-range"),
  sort: document.getElementById("sort"),
};

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

function field(title, control) {
  const label = document.createElement("label");
  label.append(title, " ", control);
  return label;
}

function change(part) {
  goTo({ ...readState(), ...part, open: "" });
}

function buildFilters() {
  const choices = manifest.filters.map(({ key, words }) => [key, key.replaceAll("-", " "), words]);
  if (runs.length > 1) choices.unshift(["run", "run", runs.map((run) => run.letter)]);
  for (const [key, title, words] of choices) {
    const select = document.createElement("select");
    select.name = key;
    select.append(option("", "any"), ...words.map((word) => option(word, wordOf(key, word))));
    select.addEventListener("change", () => {
      const words = { ...readState().words, [key]: select.value };
      change(key === "run" ? { run: select.value } : { words });
    });
    filters.words.append(field(title, select));
  }
  filters.add.append(option("", "add …"), ...RANGES.map(({ key, title }) => option(key, title)));
  filters.add.addEventListener("change", () => {
    const { key, least, most } = RANGES.find((range) => range.key === filters.add.value);
    change({ ranges: { ...readState().ranges, [key]: [key in unitsAt ? 0.5 : least, most] } });
    filters.ranges.querySelector(`[data-key="${CSS.escape(key)}"] input`)?.focus();
  });
  filters.sort.append(...ORDERS.map(({ key, title }) => option(key, title)));
  filters.sort.addEventListener("change", () => change({ sort: filters.sort.value }));
  filters.text.addEventListener("input", () => change({ text: filters.text.value }));
  filters.text.closest("label").hidden = !runs.some((run) => run.prompts);
  document.getElementById("clear").addEventListener("click", () => {
    change({ words: {}, ranges: {}, text: "", run: "" });
  });
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
}

const unitsAt = Object.fromEntries(manifest.units.map((key, place) => [key, place]));

function wordOf(key, word) {
  return key === "run" ? `${word.toUpperCase()} ${runs.find((run) => run.letter === word).name}` : word;
}

// Shows a state in the form. What somebody is writing in stays as it is.
function showFilters(state) {
  for (const select of filters.words.querySelectorAll("select")) {
    select.value = (select.name === "run" ? state.run : state.words[select.name]) ?? "";
  }
  if (document.activeElement !== filters.text) filters.text.value = state.text;
  filters.add.value = "";
  filters.sort.value = state.sort;
  const kept = new Map([...filters.ranges.children].map((row) => [row.dataset.key, row]));
  for (const [key, row] of kept) if (!(key in state.ranges)) row.remove();
  for (const [key, ends] of Object.entries(state.ranges)) {
    const row = kept.get(key) ?? rangeRow(key);
    row.querySelectorAll("input").forEach((input, end) => {
      if (document.activeElement !== input) input.value = ends[end];
    });
    if (!row.parentNode) filters.ranges.append(row);
  }
}

function rangeRow(key) {
  const { title, least, most, step } = RANGES.find((range) => range.key === key);
  const row = document.createElement("fieldset");
  row.dataset.key = key;
  const legend = document.createElement("legend");
  legend.textContent = title;
  const inputs = ["from", "to"].map((end) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "number", min: least, max: most, step });
    input.setAttribute("aria-label", `${title} ${end}`);
    input.addEventListener("input", () => {
      const ends = inputs.map(({ value, min, max }, i) => (value === "" ? (i ? max : min) : value));
      change({ ranges: { ...readState().ranges, [key]: ends.map(Number) } });
    });
    return input;
  });
  const remove = document.createElement("button");
  Object.assign(remove, { type: "button", textContent: "×" });
  remove.setAttribute("aria-label", `Remove the range of ${title}`);
  remove.addEventListener("click", () => {
    const { [key]: _, ...ranges } = readState().ranges;
    change({ ranges });
    filters.add.focus();
  });
  row.append(legend, inputs[0], " to ", inputs[1], remove);
  return row;
}
