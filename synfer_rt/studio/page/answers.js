// What the annotators and the AU reader say of an image, as tables.

import { element } from "./units.js";

const SHOWN = 0.1; // units are listed that were asked for or are seen above this
const SIDE = /^[LR]\d+$/;

export const percent = (share) => `${Math.round(100 * share)} %`;

export function described(answer, asked) {
  const best = answer.best ? `; the vote sees ${answer.best}, ${percent(answer.probabilities[answer.best])}` : "";
  return `Face made for ${asked}${best}`;
}

// The vote, a row for each class, with the annotators that find it likeliest.
export function showVotes(table, answer) {
  const body = table.tBodies[0];
  table.hidden = !answer.opinions.length;
  body.replaceChildren(
    ...Object.entries(answer.probabilities).map(([label, share]) => {
      const bar = element("span");
      bar.style.width = percent(share).replace(" ", "");
      const who = answer.opinions.filter((one) => one.best === label);
      return element(
        "tr",
        label === answer.best ? { className: "asked" } : {},
        element("th", { scope: "row" }, label),
        element("td", {}, percent(share)),
        element("td", { className: "bar-cell" }, bar),
        element("td", { className: "text" }, who.map((one) => `${one.annotator} ${percent(one.share)}`).join(", ")),
      );
    }),
  );
  const others = answer.opinions.filter((one) => !(one.best in answer.probabilities));
  for (const one of others) {
    const said = element("td", { className: "text", colspan: 3 }, `${one.annotator} ${percent(one.share)}`);
    body.append(element("tr", {}, element("th", { scope: "row" }, one.best), said));
  }
}

// What was asked of each unit beside what the reader sees; of sides where they were asked apart.
export function showReader(table, answer) {
  const names = Object.keys(answer.aus);
  table.hidden = !names.length;
  const strong = (name) => Math.max(answer.aus[name], answer.read?.[name] ?? 0) > SHOWN;
  const listed = names.filter((name) => (SIDE.test(name) ? name in answer.given : strong(name)));
  const rows = listed.map((name) =>
    element(
      "tr",
      answer.aus[name] > 0 ? { className: "asked" } : {},
      element("th", { scope: "row" }, name),
      element("td", {}, answer.aus[name].toFixed(2)),
      element("td", {}, answer.read ? answer.read[name].toFixed(2) : "–"),
    ),
  );
  const none = element("tr", {}, element("td", { colspan: 3, className: "text" }, "none above 0.1"));
  table.tBodies[0].replaceChildren(...(rows.length ? rows : [none]));
}
