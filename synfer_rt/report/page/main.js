// Brings address, gallery and viewer together.

const grid = new Grid(document.getElementById("grid"), cellOf, (id) => {
  goTo({ ...readState(), open: nameOf(id) }, { remember: true });
});
const views = { figures: document.getElementById("figures"), gallery: document.getElementById("gallery") };
let selection = "";

function cellOf(id) {
  const [run, row] = located(id);
  const { label, requested, voted, accepted } = run.derived;
  const cell = make("div", "cell");
  const image = make("img", "");
  image.alt = "";
  image.decoding = "async";
  const source = run.thumbnail(row);
  if (source) image.src = source;
  const name = label.value(row) ?? "–";
  const [asked, seen] = [requested.value(row), voted.value(row)];
  const words = asked && seen && asked !== seen ? `${asked.slice(0, 4)}→${seen.slice(0, 4)}` : name;
  cell.classList.toggle("rejected", accepted.value(row) === "not accepted");
  cell.setAttribute("aria-label", described(run, row));
  cell.title = described(run, row);
  const letter = runs.length > 1 ? [make("b", "letter", run.letter.toUpperCase()), " "] : [];
  cell.append(source ? image : make("span", "none", "no image"), make("span", "words", ...letter, words));
  return cell;
}

async function show() {
  const state = readState();
  const view = state.view === "gallery" ? "gallery" : "figures";
  for (const [name, element] of Object.entries(views)) element.hidden = name !== view;
  for (const link of document.querySelectorAll("a.view")) {
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "figures") {
    if (viewer.dialog.open) viewer.dialog.close();
    return;
  }
  showFilters(state);
  const wanted = address({ ...state, open: "" });
  if (wanted !== selection) {
    const ids = await selected(state);
    if (address({ ...readState(), open: "" }) !== wanted) return; // overtaken by another
    selection = wanted;
    grid.element.scrollTop = 0;
    grid.active = 0;
    grid.show(ids);
    document.getElementById("count").textContent = `${counted(ids.length)} of ${counted(total)} images`;
  }
  await showOpen(state);
}

async function showOpen(state) {
  const id = state.open ? idOf(state.open) : undefined;
  if (id === undefined) {
    if (viewer.dialog.open) viewer.dialog.close();
    return;
  }
  const place = grid.ids.indexOf(id);
  if (place >= 0) grid.choose(place);
  document.getElementById("previous").disabled = place <= 0;
  document.getElementById("next").disabled = place < 0 || place === grid.ids.length - 1;
  await showImage(id);
}

function counted(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function move(step) {
  const to = grid.ids[grid.active + step];
  if (to !== undefined) goTo({ ...readState(), open: nameOf(to) });
}


document.getElementById("previous").addEventListener("click", () => move(-1));
document.getElementById("next").addEventListener("click", () => move(1));
document.getElementById("close").addEventListener("click", () => viewer.dialog.close());
viewer.dialog.addEventListener("close", () => {
  goTo({ ...readState(), open: "" });
  grid.element.focus({ preventScroll: true });
});
viewer.dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("pre, input, select")) return;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
});
viewer.dialog.addEventListener("click", (event) => {
  if (event.target === viewer.dialog) viewer.dialog.close(); // the backdrop
});
document.getElementById("zoom").addEventListener("change", (event) => {
  grid.zoom = Number(event.target.value);
  grid.layout();
  grid.choose(grid.active);
});
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = document.getElementById("theme");
let chosen = "";
function showTheme() {
  const now = chosen || (dark.matches ? "dark" : "light");
  document.documentElement.style.colorScheme = now;
  theme.setAttribute("aria-pressed", String(now === "dark"));
}
theme.addEventListener("click", () => {
  chosen = (chosen || (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  showTheme();
});
dark.addEventListener("change", showTheme);
showTheme();
buildFilters();
if (matchMedia("(max-width: 760px)").matches) document.querySelector("#filters details").open = false;
addEventListener("popstate", show);
addEventListener("hashchange", show);
show();
