// The sliders of the action units, by region of the face. A unit with sides has one slider for
// both, or two.

const DIGITS = 2;

export class Units {
  #rows = new Map(); // by the name of a unit or side: its row, slider and output
  #units = new Map(); // by the name of a unit: its sides, and whether they are apart
  #moved;

  // `moved()` is called when a slider moves.
  constructor(place, regions, moved) {
    this.#moved = moved;
    for (const region of regions) {
      const set = element("fieldset", {}, element("legend", {}, region.name));
      for (const unit of region.units) this.#add(set, unit);
      place.append(set);
    }
  }

  get names() {
    return [...this.#units.keys()];
  }

  // {name: intensity} as the sliders stand: of a unit that is apart, its sides.
  get values() {
    const found = {};
    for (const [name, { sides, apart }] of this.#units)
      for (const each of apart ? sides : [name]) {
        const value = Number(this.#rows.get(each).slider.value);
        if (value > 0) found[each] = value;
      }
    return found;
  }

  // Moves the sliders to {name: intensity}, and all others to 0.
  show(aus) {
    for (const [name, { sides }] of this.#units) {
      const apart = sides?.some((side) => side in aus) ?? false;
      this.#setApart(name, apart);
      this.#set(name, aus[name] ?? 0);
      for (const side of sides ?? []) this.#set(side, aus[side] ?? aus[name] ?? 0);
    }
  }

  // Moves one unit, both of its sides.
  move(name, value) {
    this.#setApart(name, false);
    this.#set(name, value);
  }

  // Marks what the reader sees, {name: intensity}; null for no reader.
  mark(read) {
    for (const [name, { mark }] of this.#rows) {
      mark.hidden = !read;
      if (!read) continue;
      mark.style.left = `calc(8px + (100% - 16px) * ${read[name]})`;
      mark.title = `read: ${read[name].toFixed(DIGITS)}`;
    }
  }

  // The values of what a reader sees, as far as sliders show them.
  fromRead(read) {
    const aus = {};
    const put = (name) => {
      const value = Number(read[name].toFixed(DIGITS));
      if (value >= 0.05) aus[name] = value;
    };
    for (const [name, { sides }] of this.#units) {
      if (sides && Math.abs(read[sides[0]] - read[sides[1]]) > 0.1) sides.forEach(put);
      else put(name);
    }
    return aus;
  }

  #add(set, unit) {
    this.#units.set(unit.name, { sides: unit.sides, apart: false });
    this.#addRow(set, unit.name, unit.name, unit.text, unit.sides && "split");
    if (!unit.sides) return;
    const [left, right] = unit.sides;
    this.#addRow(set, left, unit.name, `left ${unit.text}`, "join", unit.name);
    this.#addRow(set, right, unit.name, `right ${unit.text}`);
    this.#setApart(unit.name, false);
  }

  #addRow(set, name, shown, text, button) {
    const id = `unit-${name}`;
    const slider = element("input", { type: "range", id, min: 0, max: 1, step: 0.01, value: 0 });
    const output = element("output", { for: id });
    const mark = element("i", { className: "read", hidden: true });
    const label = element("label", { for: id, title: text }, element("b", {}, shown), ` ${text}`);
    const row = element("div", { className: "unit" }, label, element("span", { className: "track" }, slider, mark), output);
    if (button) row.append(this.#button(shown, button === "split"));
    set.append(row);
    this.#rows.set(name, { row, slider, output, mark });
    slider.addEventListener("input", (event) => {
      this.#write(name);
      this.#moved(event);
    });
    this.#write(name);
  }

  #button(unit, splits) {
    const said = splits ? `${unit}: left and right apart` : `${unit}: both sides together`;
    const button = element("button", { type: "button", title: said, "aria-label": said }, splits ? "L R" : "=");
    button.addEventListener("click", (event) => {
      const [left, right] = this.#units.get(unit).sides;
      const value = (name) => Number(this.#rows.get(name).slider.value);
      if (splits) for (const side of [left, right]) this.#set(side, value(unit));
      else this.#set(unit, Math.max(value(left), value(right)));
      this.#setApart(unit, splits);
      this.#rows.get(splits ? left : unit).row.querySelector("button").focus();
      this.#moved(event);
    });
    return button;
  }

  #setApart(name, apart) {
    const unit = this.#units.get(name);
    unit.apart = apart;
    this.#rows.get(name).row.hidden = apart;
    for (const side of unit.sides ?? []) this.#rows.get(side).row.hidden = !apart;
  }

  #set(name, value) {
    this.#rows.get(name).slider.value = value;
    this.#write(name);
  }

  #write(name) {
    const { row, slider, output } = this.#rows.get(name);
    output.value = Number(slider.value).toFixed(DIGITS);
    row.classList.toggle("active", Number(slider.value) > 0);
  }
}

// An element with attributes, or properties for those that attributes cannot set.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "className" || key === "hidden") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
