// Bars that compare shares: a label, how much of the whole it is, and the number.

import { make } from "./dom.js";

// `rows` are { label, share, text }; as many bars are kept as there are rows, so nothing jumps.
export function drawBars(place, rows) {
  while (place.children.length > rows.length) place.lastChild.remove();
  place.classList.toggle("unanswered", rows.every(({ share }) => !share)); // no first among them
  rows.forEach((row, index) => fill(place.children[index] ?? place.appendChild(empty()), row));
}

function empty() {
  return make("div", { class: "bar" },
    make("bdi", { class: "label" }),
    make("div", { class: "track", "aria-hidden": "true" }, make("div", { class: "filled" })),
    make("span", { class: "value" }));
}

function fill(bar, { label, share, text }) {
  const [name, track, value] = bar.children;
  name.textContent = label;
  name.title = label;
  track.firstChild.style.width = `${share * 100}%`;
  value.textContent = text;
}
