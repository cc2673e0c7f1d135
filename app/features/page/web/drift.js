// How far the last answers of each model are from those of its reference, drawn from /metrics.

import { byId, make } from "./dom.js";
import { number } from "./format.js";

const METRIC = "mlapi_drift_psi";
const LIMIT = 0.1; // of the service's alert too
const KINDS = ["label", "score", "length", "unknown"];

let drawn = "";

// Draw the table; without any window that is full there is none.
export function drawDrift(samples) {
  const found = samples.get(METRIC) ?? [];
  const key = JSON.stringify(found);
  if (key === drawn) return;
  drawn = key;
  byId("drift-card").hidden = found.length === 0;
  byId("drift").replaceChildren(...[...byVersion(found)].map(([name, distances]) => make("tr", {},
    make("th", { scope: "row" }, name),
    ...KINDS.map((kind) => make("td", { class: "number" }, cell(distances.get(kind)))))));
}

function byVersion(found) {
  const versions = new Map();
  for (const { labels, value } of found) {
    const name = labels.version ? `${labels.model} ${labels.version}` : labels.model;
    if (!versions.has(name)) versions.set(name, new Map());
    versions.get(name).set(labels.kind, value);
  }
  return versions;
}

function cell(distance) {
  if (distance === undefined) return "–";
  const kind = distance > LIMIT ? "bad" : "good";
  const said = distance > LIMIT ? `${number(distance)}, drifted` : number(distance);
  return make("span", { class: `state ${kind}` }, said);
}
