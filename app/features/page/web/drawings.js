// Answers of the tasks, drawn: each function returns nodes for an answer to a request's body.

import { drawBars } from "./bars.js";
import { make } from "./dom.js";
import { number, percent, plural, score } from "./format.js";

const HUES = 6;

// The text with its entities marked. `start` and `end` count characters as the service does: an
// emoji is one.
export function drawEntities({ entities }, { text }) {
  const chars = [...text];
  const part = (from, to) => chars.slice(from, to).join("");
  const labels = [...new Set(entities.map(({ label }) => label))];
  const nodes = [];
  let at = 0;
  for (const { label, start, end, score: probability } of entities) {
    nodes.push(part(at, start), make("mark",
      { class: `entity hue-${labels.indexOf(label) % HUES}`, title: percent(probability) },
      make("bdi", {}, part(start, end)), make("small", {}, label)));
    at = end;
  }
  nodes.push(part(at));
  return [make("p", { class: "passage", dir: "auto" }, ...nodes),
    make("p", { class: "note" }, plural(entities.length, "entity", "entities"))];
}

// Texts in their order, each with a bar. Scores outside of 0 to 1 are compared with each other.
function drawRanked(rows) {
  const scores = rows.map((row) => row.score);
  const [least, most] = [Math.min(0, ...scores), Math.max(1, ...scores)];
  const share = (value) => (most > 1 || least < -1 ? (value - least) / (most - least) : value);
  return [make("ol", { class: "results ranked" }, ...rows.map((row) => {
    const filled = make("div", { class: "filled" });
    filled.style.width = `${Math.max(0, share(row.score)) * 100}%`;
    return make("li", {},
      make("div", { class: "result-head" },
        make("div", { class: "track", "aria-hidden": "true" }, filled),
        make("span", { class: "note" }, row.score.toFixed(3))),
      make("p", { class: "passage", dir: "auto" }, row.text));
  }))];
}

export const drawRerank = ({ results }, { documents }) =>
  drawRanked(results.map(({ index, relevance_score: score }) => ({ text: documents[index], score })));

export function drawSimilarity({ scores }, { texts }) {
  const rows = scores.map((score, index) => ({ score, text: texts[index] }));
  return drawRanked(rows.sort((a, b) => b.score - a.score));
}

export function drawLabels({ scores, problem_type: kind }) {
  const bars = make("div", { class: "bars" });
  const isRegression = kind === "regression";
  drawBars(bars, scores.map((one) => ({
    label: one.label, share: isRegression ? 0 : one.score, text: score(one.score, isRegression),
  })));
  return [bars];
}

// How alike images are to the first one: the cosines of their vectors.
export function drawVectors({ embeddings, dimensions }, { images }) {
  const size = (vector) => Math.hypot(...vector) || 1;
  const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
  const cosine = (a, b) => dot(a, b) / (size(a) * size(b));
  return [
    make("p", { class: "note" }, `${plural(dimensions, "dimension")}, the first ones: `
      + embeddings[0].slice(0, 4).map(number).join(", ")),
    make("div", { class: "pictures" }, ...embeddings.map((vector, index) => make("figure", {},
      make("img", { src: images[index], alt: `Image ${index + 1}` }),
      make("figcaption", { class: "note" }, cosine(vector, embeddings[0]).toFixed(3))))),
    ...(embeddings.length > 1 ? [make("p", { class: "note" }, "Likeness to the first image.")] : []),
  ];
}

export const drawJson = (answer) =>
  [make("pre", { class: "json", tabindex: "0", role: "region", "aria-label": "Answer" },
    JSON.stringify(answer, null, 1))];
