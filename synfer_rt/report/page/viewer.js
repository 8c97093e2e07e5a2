// One image, large, with its whole record and the command that makes it again.

const viewer = {
  dialog: document.getElementById("viewer"),
  title: document.getElementById("viewer-title"),
  body: document.getElementById("viewer-body"),
};

function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function titleOf(run, row) {
  const words = ["label", "accepted"].map((key) => run.derived[key].value(row)).filter(Boolean);
  const letter = runs.length > 1 ? `${run.letter.toUpperCase()} ` : "";
  return [`${letter}#${run.derived.number.value(row)}`, ...words].join(" · ");
}

// What a screen reader says of an image.
function described(run, row) {
  const { requested, voted, confidence } = run.derived;
  const parts = [titleOf(run, row)];
  if (requested.value(row)) parts.push(`requested ${requested.value(row)}`);
  if (voted.value(row)) parts.push(`voted ${voted.value(row)}`);
  if (confidence.value(row) >= 0) parts.push(`confidence ${confidence.value(row).toFixed(2)}`);
  return parts.join(", ");
}

async function showImage(id) {
  const [run, row] = located(id);
  const [record] = await Promise.all([run.record(row), ...runs.map((one) => one.fileNames?.load())]);
  if (readState().open !== nameOf(id)) return; // another was opened meanwhile
  viewer.title.textContent = titleOf(run, row);
  const others = runs.filter((other) => other !== run);
  const number = run.derived.number.value(row);
  const counterparts = others.map((other) => [other, other.row(number)]).filter(([, at]) => at >= 0);
  const shown = [[run, row], ...counterparts].sort(([a], [b]) => a.place - b.place);
  const pictures = make("div", "pictures", ...shown.map(([one, at]) => picture(one, at, one !== run)));
  const facts = make("div", "facts", ...factsOf(run, row, JSON.parse(record)), ...commands(run, row));
  const whole = make("details", "", make("summary", "", "Whole record"), make("pre", "", record));
  whole.open = true;
  facts.append(whole, copyButton(record, "Copy record"));
  viewer.body.replaceChildren(make("div", "left", pictures, ...nearestOf(run, row)), facts);
  viewer.body.scrollTop = 0;
  if (!viewer.dialog.open) viewer.dialog.showModal();
}

// A figure of an image; that of the other run leads there.
function picture(run, row, other) {
  const image = make("img", "");
  const thumbnail = run.thumbnail(row);
  const [width, height] = [run.derived.width.value(row), run.derived.height.value(row)];
  image.alt = described(run, row);
  const note = make("span", "faint");
  const source = run.image(row) || thumbnail;
  if (!source) return make("figure", "", make("p", "none", "no image"), make("figcaption", "", image.alt));
  image.src = source;
  image.addEventListener("error", () => {
    if (image.getAttribute("src") === thumbnail) return;
    image.src = thumbnail;
    note.textContent = " (the file is not where it was; this is its thumbnail)";
  });
  if (source === thumbnail && Math.max(width, height) > 64) note.textContent = " (thumbnail)";
  const smooth = make("button", "", "Smooth");
  smooth.type = "button";
  smooth.setAttribute("aria-pressed", "false");
  smooth.addEventListener("click", () => {
    const pixels = image.classList.toggle("pixels");
    smooth.setAttribute("aria-pressed", String(!pixels));
  });
  const small = Math.max(width, height) <= 128;
  image.classList.toggle("pixels", small);
  const words = runs.length > 1 ? `${titleOf(run, row)} · ` : "";
  const caption = make("p", "", `${words}${width} × ${height} pixels`, note);
  const link = make("a", "", image);
  link.href = address({ ...readState(), open: nameOf(run.first + row) });
  return make(
    "figure", "", other ? link : image, make("figcaption", "", caption, ...(small ? [smooth] : [])),
  );
}

function factsOf(run, row, record) {
  const terms = make("dl", "");
  const term = (name, value) => {
    if (value !== "" && value !== null && value !== undefined) {
      terms.append(make("div", "", make("dt", "", name), make("dd", "", String(value))));
    }
  };
  term("requested", run.derived.requested.value(row));
  term("voted", run.derived.voted.value(row));
  term("label", `${record.label}${record.rectified ? " (the vote's)" : ""}`);
  term("prompt", record.prompt);
  term("seed", record.seed);
  term("file", record.file_name);
  term("not readable", record.error);
  const parts = [terms];
  const probabilities = Object.entries(record.probabilities ?? {});
  if (probabilities.some(([, value]) => value)) parts.push(bars("Vote", probabilities, 3));
  const units = Object.entries(record.aus ?? {}).filter(([, value]) => value > 0.005);
  if (units.length) parts.push(bars("Action units", units, 2));
  return parts;
}

function bars(title, pairs, decimals) {
  const body = make("tbody", "");
  for (const [name, value] of pairs) {
    const bar = make("span", "bar-fill");
    bar.style.width = `${Math.round(100 * value)}%`;
    const cells = [make("td", "", value.toFixed(decimals)), make("td", "bar-cell", bar)];
    const head = make("th", "", name);
    head.scope = "row";
    body.append(make("tr", "", head, ...cells));
  }
  return make("table", "bars", make("caption", "", title), body);
}

function quoted(word) {
  return /^[\w./@%+=:,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

// The command that makes an image again, and that of all of them.
function commands(run, row) {
  const { one, of, per_shard: perShard, folder, whole, remark } = run.again;
  const number = run.derived.number.value(row);
  const known = {
    index: () => number,
    shard: () => Math.floor(number / perShard),
    file: () => quoted([folder, run.fileNames.value(row)].filter((part) => part && part !== ".").join("/")),
  };
  const alone = one && (of !== "file" || run.derived.linked.value(row));
  const line = alone ? `${one[0]}${known[of]()}${one[1]}` : whole;
  const title = alone ? "Make this image again" : "Make all images again";
  const parts = [make("h3", "", title), make("pre", "command", ...wordsOf(line)), copyButton(line, "Copy command")];
  return [...parts, make("p", "note", remark)];
}

// The words of a command, so that its options are not broken at their hyphens.
function wordsOf(line) {
  return line.split(" ").flatMap((word, i) => {
    const part = word.startsWith("-") ? make("span", "", word) : word;
    return i ? [" ", part] : [part];
  });
}

function copyButton(text, title) {
  const button = make("button", "", title);
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select the text and copy it"; // the browser does not allow it here
    }
    setTimeout(() => { button.textContent = title; }, 2000);
  });
  return button;
}

function nearestOf(run, row) {
  const other = run.derived.nearest.value(row);
  if (other < 0) return [];
  const image = make("img", "");
  image.src = run.thumbnail(other);
  image.alt = described(run, other);
  const link = make("a", "nearest", image);
  link.href = address({ ...readState(), open: nameOf(run.first + other) });
  const distance = run.derived.distance.value(row).toFixed(2);
  link.append(make("span", "", `nearest: #${run.derived.number.value(other)}, ${distance} levels away`));
  return [link];
}

// An image's name in the address: its run's letter and its number.
function nameOf(id) {
  const [run, row] = located(id);
  return `${run.letter}${run.derived.number.value(row)}`;
}

function idOf(name) {
  const run = runs.find((one) => name.startsWith(one.letter));
  const row = run ? run.row(Number(name.slice(run.letter.length))) : -1;
  return row < 0 ? undefined : run.first + row;
}
