// The page: its controls make a state, which is sent whole; the answer is shown.

import { described, showReader, showVotes } from "./answers.js";
import { Line } from "./line.js";
import { element, Units } from "./units.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = ["steps", "guidance", "semantic_guidance", "layout_strength"];
const TEXTS = ["prompt", "negative_prompt"];
const CHOICES = ["quality", "semantic_form", "layout"];

const about = await (await fetch("controls")).json();
const line = new Line(send);
const units = new Units($("regions"), about.regions, unitsMoved);
let drawn = true; // the units are those that are drawn for the label
let photo = null; // the upload to start from, and its file
let newest = null; // the state that was asked for last
let restShown = ""; // the state at rest whose image is made

async function send(kind, body, signal) {
  const where = kind === "copies" ? "copies" : "image";
  return answerOf(await reached(fetch(where, { method: "POST", body: JSON.stringify(body), signal })));
}

async function reached(asking) {
  try {
    return await asking;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio does not answer; look whether `synfer-rt studio` still runs.");
  }
}

async function answerOf(response) {
  const text = await response.text();
  try {
    const answer = JSON.parse(text);
    if (response.ok) return answer;
    throw new Error(answer.error);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new Error(`The studio failed (${response.status}); its terminal says why.`);
  }
}

// The state as the controls stand; what is left at its default is not in it.
function state() {
  const found = { label: $("label").value, seed: Number($("seed").value) };
  for (const name of TEXTS) if ($(name).value.trim()) found[name] = $(name).value;
  for (const name of NUMBERS) if ($(name).value !== "" && !$(name).disabled) found[name] = Number($(name).value);
  for (const name of CHOICES) if ($(name).value && !$(name).disabled) found[name] = $(name).value;
  if (found.layout === about.layout) delete found.layout;
  if (!("semantic_guidance" in found)) delete found.semantic_form;
  if (about.regions.length) {
    const scale = Number($("au_scale").value);
    if (scale !== about.au_scale) found.au_scale = scale;
    if (!drawn) found.aus = orZero(units.values);
  }
  if (photo) found.photo = photo.key;
  return found;
}

// No intensity at all would mean that they are drawn.
function orZero(aus) {
  return Object.keys(aus).length ? aus : { [units.names[0]]: 0 };
}

function atRest(current) {
  const rest = { ...current, label: about.neutral ?? current.label };
  return about.regions.length ? { ...rest, aus: orZero({}) } : rest;
}

function changed(event) {
  if (!$("lock").checked && event?.target.id !== "seed") $("seed").value = anySeed();
  if (!complete()) {
    newest = null;
    return;
  }
  const current = state();
  const begun = event?.timeStamp ?? performance.now();
  newest = current;
  document.body.ariaBusy = "true";
  line.ask("now", current, (answer) => show(answer, current, begun), (error) => current === newest && fail(error));
}

// Whether every control holds what it may. If not, says what is wrong: a state would leave it out.
function complete() {
  const wrong = [...$("form").elements].find((one) => !one.disabled && !one.checkValidity());
  if (wrong) fail(new Error(`${wrong.labels[0].textContent.trim()}: ${wrong.validationMessage}`));
  return !wrong;
}

function anySeed() {
  return Math.floor(Math.random() * 2 ** 31);
}

function unitsMoved(event) {
  setDrawn(false);
  changed(event);
}

function setDrawn(yes) {
  drawn = yes;
  $("drawn").ariaPressed = String(yes);
}

function remember(current) {
  const { photo: _, ...rest } = current;
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(rest))}`);
}

async function show(answer, current, begun) {
  const now = $("now");
  now.src = answer.image;
  now.alt = described(answer, current.label);
  await now.decode();
  performance.measure("answer", { start: begun });
  if (drawn) units.show(answer.given);
  units.mark(answer.read);
  showVotes($("votes"), answer);
  showReader($("reader"), answer);
  $("prompt").placeholder = answer.prompt;
  $("steps").placeholder = answer.steps;
  $("guidance").placeholder = answer.guidance;
  $("layout_strength").placeholder = answer.layout_strength;
  const took = Math.round(performance.now() - begun);
  const kept = about.annotators.length ? (answer.accepted ? "accepted" : "not accepted") : "not judged";
  const by = answer.label === current.label ? answer.label : `${current.label}, by the vote ${answer.label}`;
  $("said").textContent = `${by} · ${kept} · ${answer.quality}, ${answer.steps} steps · ${took} ms`;
  note("notes", answer.notes);
  showBefore(current);
  if (current !== newest) return;
  $("error").hidden = true;
  remember(current);
  document.body.ariaBusy = "false";
}

function note(list, sentences) {
  $(list).replaceChildren(...sentences.map((text) => element("li", {}, text)));
}

function fail(error) {
  document.body.ariaBusy = "false";
  $("error").textContent = error.message;
  $("error").hidden = false;
}

function showBefore(current = state()) {
  const which = $("compare").value;
  if (which === "photo") return setBefore(photo.image, `The photo ${photo.name}`);
  if (which === "kept") return setBefore($("keep").dataset.image, $("keep").dataset.alt);
  const rest = atRest(current);
  const key = JSON.stringify(rest);
  if (key === restShown) return setBefore($("before").dataset.rest, "The same face at rest");
  line.ask("before", rest, (answer) => {
    restShown = key;
    $("before").dataset.rest = answer.image;
    if ($("compare").value === "rest") setBefore(answer.image, "The same face at rest");
  }, fail);
}

function setBefore(image, alt) {
  if ($("before").src !== image) $("before").src = image;
  $("before").alt = alt;
}

async function upload(file) {
  if (!file) return;
  try {
    if (file.size > about.photo_bytes)
      throw new Error(`The file has ${(file.size / 1e6).toFixed(1)} MB; choose a photo of at most ${about.photo_bytes / 1e6} MB.`);
    const headers = { "X-File-Name": encodeURIComponent(file.name) };
    const asking = fetch(`photo?align=${$("align").checked}`, { method: "POST", body: file, headers });
    const answer = await answerOf(await reached(asking));
    choosePhoto({ ...answer, file });
  } catch (error) {
    $("photo").value = ""; // it would name a file that is not the photo
    fail(error);
  }
}

function choosePhoto(chosen) {
  photo = chosen;
  $("chosen").hidden = !photo;
  $("layout").disabled = Boolean(photo);
  $("compare").options[1].disabled = !photo;
  $("compare").value = photo ? "photo" : "rest";
  if (photo) {
    $("chosen-image").src = photo.image;
    $("chosen-image").alt = `The photo ${photo.name} as the model sees it`;
    $("chosen-name").textContent = photo.name;
    note("photo-notes", photo.notes);
  } else $("photo").value = "";
  enable();
  changed();
}

function enable() {
  $("layout_strength").disabled = !photo && $("layout").value === "none";
  $("semantic_form").disabled = !about.forms.length;
  $("semantic_guidance").disabled = !about.forms.length;
}

function makeStrip() {
  if (!complete()) return;
  const unit = $("strip-unit").value;
  const count = Number($("strip-count").value);
  const sides = about.regions.flatMap((region) => region.units).find((one) => one.name === unit).sides ?? [];
  const others = Object.entries(units.values).filter(([name]) => name !== unit && !sides.includes(name));
  const values = Array.from({ length: count }, (_, i) => Number((i / (count - 1)).toFixed(2)));
  const items = values.map((value) => stripItem(unit, value));
  $("strip-images").replaceChildren(...items);
  $("strip-images").ariaLabel = `${unit} from 0 to 1`;
  const current = state();
  const ask = (i) =>
    line.ask("strip", { ...current, aus: { ...Object.fromEntries(others), [unit]: values[i] } }, (answer) => {
      if (!items[i].isConnected) return; // another strip was begun
      const image = items[i].querySelector("img");
      image.src = answer.image;
      image.alt = `${unit} at ${values[i]}. ${described(answer, current.label)}`;
      if (i + 1 < count) ask(i + 1);
    }, fail);
  ask(0);
}

function stripItem(unit, value) {
  const said = `${unit} at ${value}: take it`;
  const button = element("button", { type: "button", title: said, "aria-label": said }, element("img", { alt: "" }), element("span", {}, value.toFixed(2)));
  button.addEventListener("click", (event) => {
    units.move(unit, value);
    unitsMoved(event);
  });
  return element("li", {}, button);
}

function copyAs(kind) {
  if (!complete()) return;
  line.ask("copies", state(), async (texts) => {
    const text = texts[kind];
    $("text").textContent = text;
    $("text").hidden = false;
    $("save").hidden = kind !== "plan";
    if (kind === "plan") $("save").href = URL.createObjectURL(new Blob([text], { type: "application/toml" }));
    const how = kind === "plan" ? ` Save it as plan.toml, and run: ${texts.plan_command}` : "";
    $("copied").textContent = `${(await copied(text)) ? "Copied." : "Select the text below, and copy it."} ${texts.remark}${how}`;
  }, fail);
}

// Browsers let a page write to the clipboard only on this machine or by HTTPS.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
}

function build() {
  document.title = `${about.model} · synfer-rt studio`;
  $("model").textContent = `${about.model} on ${about.backend}, ${about.size_text} pixels`;
  fill($("label"), about.classes.map((name) => [name, name]));
  const first = `${about.quality}, unless a setting needs another`;
  fill($("quality"), [["", first], ...about.qualities.map((name) => [name, name])]);
  fill($("semantic_form"), about.forms.map((name) => [name, name]));
  fill($("strip-unit"), units.names.map((name) => [name, name]));
  if (units.names.includes("AU12")) $("strip-unit").value = "AU12";
  $("au_scale").max = Math.max(3, 2 * about.au_scale);
  $("au_scale").value = about.au_scale;
  $("layout").value = about.layout;
  if (!about.layouts) $("layout").options[0].remove();
  $("photo-section").hidden = !about.photos;
  $("align-field").hidden = !about.aligns;
  $("units").hidden = $("strip").hidden = !about.regions.length;
  $("read-photo").hidden = !about.reads_aus;
  $("negative_prompt").disabled = !about.negative_prompt;
  const [height, width] = about.size;
  document.body.style.setProperty("--shape", `${width} / ${height}`);
  if (Math.max(height, width) <= 128) document.body.style.setProperty("--rendering", "pixelated");
}

// Puts the controls to the state in the address, if there is one.
function restore() {
  let kept;
  try {
    kept = JSON.parse(decodeURIComponent(location.hash.slice(1))) ?? {};
  } catch {
    return; // an address that no state made
  }
  for (const [name, value] of Object.entries(kept))
    if (["label", "seed", "au_scale", ...TEXTS, ...NUMBERS, ...CHOICES].includes(name)) $(name).value = value;
  if (!$("label").value) $("label").value = about.classes[0];
  if (typeof kept.aus === "object" && kept.aus) {
    setDrawn(false);
    units.show(kept.aus);
  }
}

function listen() {
  const plain = ["label", "prompt", "seed", ...NUMBERS, ...CHOICES, "negative_prompt"];
  for (const id of plain)
    $(id).addEventListener($(id).tagName === "SELECT" ? "change" : "input", (event) => {
      enable();
      changed(event);
    });
  $("au_scale").addEventListener("input", (event) => {
    showScale();
    changed(event);
  });
  $("another").addEventListener("click", () => {
    $("seed").value = anySeed();
    changed();
  });
  $("drawn").addEventListener("click", (event) => {
    setDrawn(true);
    changed(event);
  });
  $("zero").addEventListener("click", (event) => {
    units.show({});
    unitsMoved(event);
  });
  $("read-photo").addEventListener("click", (event) => {
    units.show(units.fromRead(photo.read));
    unitsMoved(event);
  });
  // A browser reports no change when the same file is chosen again.
  $("photo").addEventListener("click", (event) => (event.target.value = ""));
  $("photo").addEventListener("change", (event) => upload(event.target.files[0]));
  $("align").addEventListener("change", () => upload(photo?.file));
  $("remove-photo").addEventListener("click", () => choosePhoto(null));
  $("compare").addEventListener("change", () => showBefore());
  $("keep").addEventListener("click", () => {
    Object.assign($("keep").dataset, { image: $("now").src, alt: `Kept: ${$("now").alt}` });
    $("compare").options[2].disabled = false;
    $("compare").value = "kept";
    showBefore();
  });
  $("strip-make").addEventListener("click", makeStrip);
  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copyAs(button.dataset.kind));
  $("form").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => location.reload());
  for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", goToPart);
}

// Shows a part of the page, and goes on by Tab from there; the address keeps the state.
function goToPart(event) {
  event.preventDefault();
  const part = document.querySelector(event.target.hash);
  part.tabIndex = -1;
  part.scrollIntoView();
  part.focus({ preventScroll: true });
}

function showScale() {
  $("au_scale-value").value = `× ${Number($("au_scale").value).toFixed(2)}`;
}

build();
restore();
showScale();
enable();
listen();
changed();
