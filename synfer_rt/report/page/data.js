// The page's data. Typed arrays and texts are decoded when they are first needed; an image's Base64
// is cut out of its block when it is shown. Nothing is fetched.

const manifest = JSON.parse(document.getElementById("manifest").textContent);

const TYPES = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, i4: Int32Array, f8: Float64Array,
};

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function inflated(block) {
  const packed = new Blob([fromBase64(document.getElementById(block).textContent)]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// A value for each row: one that all share, codes of JSON texts, or numbers.
class Column {
  constructor(form, count) {
    this.form = form;
    this.count = count;
    this.path = form.path;
  }

  load() {
    this.loading ??= this.read();
    return this.loading;
  }

  async read() {
    const { form } = this;
    if (form.same !== undefined) {
      this.texts = [form.same];
    } else {
      this.array = new TYPES[form.type](await inflated(form.block));
      if (form.texts) this.texts = JSON.parse(new TextDecoder().decode(await inflated(form.texts)));
    }
    this.values = this.texts?.map((text) => (text === "" ? undefined : JSON.parse(text)));
    return this;
  }

  // The place of a row's text among the texts.
  code(row) {
    return this.array ? this.array[row] : 0;
  }

  value(row) {
    return this.values ? this.values[this.code(row)] : this.array[row] / this.form.over;
  }

  // The JSON text of a row's value; empty where the record has none.
  text(row) {
    return this.texts ? this.texts[this.code(row)] : String(this.array[row] / this.form.over);
  }
}

// Files that lie one after the other in blocks, each in Base64 of its own.
class Files {
  constructor(form, count) {
    this.form = form;
    this.lengths = new Column(form.lengths, count);
    this.count = count;
    this.starts = new Map();
  }

  load() {
    return this.lengths.load();
  }

  // The Base64 of a row's file; empty if it has none.
  base64(row) {
    const { perBlock, name } = this.form;
    const number = Math.floor(row / perBlock);
    if (!this.starts.has(number)) this.starts.set(number, this.startsOf(number));
    const start = this.starts.get(number)[row - number * perBlock];
    const length = this.lengths.value(row);
    if (!length) return "";
    return document.getElementById(`${name}-${number}`).firstChild.substringData(start, length);
  }

  startsOf(number) {
    const first = number * this.form.perBlock;
    const starts = new Uint32Array(Math.min(this.form.perBlock, this.count - first));
    for (let i = 1; i < starts.length; i++) {
      starts[i] = starts[i - 1] + this.lengths.value(first + i - 1);
    }
    return starts;
  }
}

class Run {
  constructor(form, place, first) {
    Object.assign(this, { place, first, letter: form.letter, name: form.name, count: form.count });
    this.again = form.again;
    this.folder = form.folder;
    this.columns = form.columns.map((column) => new Column(column, form.count));
    this.derived = Object.fromEntries(
      Object.entries(form.derived).map(([name, column]) => [name, new Column(column, form.count)]),
    );
    this.units = new Map(
      this.columns.filter(({ path }) => path[0] === "aus" && path[1]).map((c) => [c.path[1], c]),
    );
    this.prompts = this.field("prompt");
    this.fileNames = this.field("file_name");
    this.thumbnails = new Files(form.thumbnails, form.count);
    this.files = form.files && new Files(form.files, form.count);
  }

  field(name) {
    return this.columns.find(({ path }) => path.length === 1 && path[0] === name);
  }

  // What the gallery needs of every image.
  async load() {
    const files = [this.thumbnails, this.files].filter(Boolean);
    await Promise.all([...Object.values(this.derived), ...files].map((one) => one.load()));
  }

  // The row of the image with a number, -1 if the gallery does not have it.
  row(number) {
    let low = 0;
    let high = this.count - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.derived.number.value(middle) < number) low = middle + 1;
      else high = middle;
    }
    return this.count && this.derived.number.value(low) === number ? low : -1;
  }

  // A row's record as JSON text, every value as it was written.
  async record(row) {
    await Promise.all(this.columns.map((column) => column.load()));
    const fields = new Map();
    for (const column of this.columns) {
      const text = column.text(row);
      if (text === "") continue;
      const [name, key] = column.path;
      if (key === undefined) fields.set(name, text);
      else if (fields.get(name) instanceof Map) fields.get(name).set(key, text);
      else fields.set(name, new Map([[key, text]]));
    }
    const lines = [...fields].map(([name, value]) => {
      if (!(value instanceof Map)) return `  ${JSON.stringify(name)}: ${value}`;
      const parts = [...value].map(([key, text]) => `${JSON.stringify(key)}: ${text}`);
      return `  ${JSON.stringify(name)}: { ${parts.join(", ")} }`;
    });
    return `{\n${lines.join(",\n")}\n}`;
  }

  thumbnail(row) {
    const base64 = this.thumbnails.base64(row);
    return base64 && `data:image/webp;base64,${base64}`;
  }

  // The address of a row's image file: in the page, beside it, or of the thumbnail alone.
  image(row) {
    const base64 = this.files?.base64(row);
    if (base64) return `data:image/png;base64,${base64}`; // browsers find out the kind themselves
    if (this.folder && this.derived.linked.value(row)) {
      return this.folder + String(this.fileNames.value(row)).split("/").map(encodeURIComponent).join("/");
    }
    return "";
  }
}

const runs = [];
for (const form of manifest.runs) {
  const first = runs.reduce((sum, run) => sum + run.count, 0);
  runs.push(new Run(form, runs.length, first));
}
const total = runs.reduce((sum, run) => sum + run.count, 0);

// The run and row of an image by its place among those of all runs.
function located(id) {
  const run = runs.findLast((one) => one.first <= id && one.count) ?? runs[0];
  return [run, id - run.first];
}

const loaded = (() => {
  let loading;
  return () => (loading ??= Promise.all(runs.map((run) => run.load())));
})();
