// A small live chart: what there is now in large, the last minutes as a line.

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240;
const HEIGHT = 56;
const HEADROOM = 1.1;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export class Chart {
  #now = make("p", { class: "now" }, "–");
  #most = make("p", { class: "note" }, " ");
  #svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  #points = [];

  // `format` writes a value; `names` are those of the lines, when there are more than one.
  constructor({ title, format, names = [""], size }) {
    Object.assign(this, { title, format, names, size });
    this.node = make("div", { class: "card chart" },
      make("h3", {}, title), this.#now, this.#svg, this.#most);
    this.#label("no readings yet");
  }

  // Add one value for each line; null where there is none.
  add(values) {
    this.#points = [...this.#points, values].slice(-this.size);
    this.#now.replaceChildren(...values.flatMap((value, line) => [
      make("span", {}, value === null ? "–" : this.format(value)),
      ...(this.names[line] ? [make("small", {}, this.names[line])] : []),
    ]));
    const all = this.#points.flat().filter((value) => value !== null);
    const most = Math.max(0, ...all);
    this.#svg.replaceChildren(...values.flatMap((_, line) => this.#line(line, most)));
    const highest = all.length ? `highest ${this.format(most)}` : "nothing yet";
    this.#most.textContent = highest;
    this.#label(`now ${this.#now.textContent}, ${highest}`);
  }

  #label(said) {
    this.#svg.setAttribute("aria-label", `${this.title}: ${said}`);
  }

  // A line, broken where there was nothing; the first has its area filled.
  #line(line, most) {
    const step = WIDTH / (this.size - 1);
    const start = this.size - this.#points.length;
    const top = (most || 1) * HEADROOM;
    const runs = [[]];
    this.#points.forEach((values, place) => {
      const value = values[line];
      if (value === null) return runs.push([]);
      const x = ((start + place) * step).toFixed(1);
      return runs.at(-1).push(`${x} ${(HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1)}`);
    });
    return runs.filter((run) => run.length).flatMap((run) => {
      const [from] = run[0].split(" ");
      const [to] = run.at(-1).split(" ");
      const path = `M${run.join("L")}h.1`; // a value between two gaps is a dot
      const area = `M${run.join("L")}L${to} ${HEIGHT}L${from} ${HEIGHT}Z`;
      const drawn = shape("path", { d: path, class: `line line-${line}` });
      return line ? [drawn] : [shape("path", { d: area, class: "area" }), drawn];
    });
  }
}
