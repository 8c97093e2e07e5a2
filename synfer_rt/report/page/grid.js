// A grid of any number of images, of which only the rows in sight are in the document.

const CAPTION = 18;
const GAP = 6;
const BEYOND = 3; // rows that are ready above and below those in sight

class Grid {
  constructor(element, cell, open) {
    Object.assign(this, { element, cell, open, ids: new Uint32Array(), active: 0, zoom: 80 });
    this.rows = new Map();
    this.sheet = document.createElement("div");
    this.sheet.setAttribute("role", "presentation");
    element.append(this.sheet);
    element.addEventListener("scroll", () => this.request(), { passive: true });
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("click", (event) => {
      const cell = event.target.closest("[role=gridcell]");
      if (cell) this.choose(Number(cell.dataset.place), true);
    });
    new ResizeObserver(() => this.layout()).observe(element);
  }

  show(ids) {
    this.ids = ids;
    this.active = Math.min(this.active, Math.max(ids.length - 1, 0));
    this.layout();
  }

  layout() {
    const room = this.element.clientWidth - GAP;
    if (room <= 0) return;
    this.across = Math.max(1, Math.floor(room / (this.zoom + GAP)));
    const side = Math.floor(room / this.across) - GAP; // so that rows fill the width
    this.step = side + CAPTION + GAP;
    this.element.style.setProperty("--zoom", `${side}px`);
    this.element.setAttribute("aria-colcount", this.across);
    this.element.setAttribute("aria-rowcount", Math.ceil(this.ids.length / this.across));
    this.sheet.style.height = `${Math.ceil(this.ids.length / this.across) * this.step + GAP}px`;
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
  }

  request() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = undefined;
      this.draw();
    });
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const last = Math.ceil(this.ids.length / this.across) - 1;
    const from = Math.max(0, Math.floor(scrollTop / this.step) - BEYOND);
    const to = Math.min(last, Math.floor((scrollTop + clientHeight) / this.step) + BEYOND);
    for (const [number, row] of this.rows) {
      if (number < from || number > to) {
        row.remove();
        this.rows.delete(number);
      }
    }
    for (let number = from; number <= to; number++) {
      if (!this.rows.has(number)) this.rows.set(number, this.row(number));
    }
    this.mark();
  }

  row(number) {
    const row = document.createElement("div");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", number + 1);
    row.style.top = `${number * this.step + GAP}px`;
    const first = number * this.across;
    for (let place = first; place < Math.min(first + this.across, this.ids.length); place++) {
      const cell = this.cell(this.ids[place]);
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-colindex", place - first + 1);
      cell.id = `cell-${place}`;
      cell.dataset.place = place;
      row.append(cell);
    }
    this.sheet.append(row);
    return row;
  }

  mark() {
    this.element.querySelector(".active")?.classList.remove("active");
    const cell = document.getElementById(`cell-${this.active}`);
    cell?.classList.add("active");
    if (cell) this.element.setAttribute("aria-activedescendant", cell.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  // Makes an image the active one, brings it into sight, and opens it if asked to.
  choose(place, open = false) {
    if (!this.ids.length) return;
    this.active = Math.min(Math.max(place, 0), this.ids.length - 1);
    const top = Math.floor(this.active / this.across) * this.step;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.step + GAP > scrollTop + clientHeight) {
      this.element.scrollTop = top + this.step + GAP - clientHeight;
    }
    this.draw();
    if (open) this.open(this.ids[this.active]);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.step)) * this.across;
    const steps = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.across, ArrowUp: -this.across,
      PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity, Enter: 0, " ": 0,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.choose(this.active + steps[event.key], steps[event.key] === 0);
  }
}
