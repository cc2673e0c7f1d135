// A tab with a form, and the answer to what it asks: of a task, or of a Python model.

import { show } from "./alert.js";
import { askJson, isAbort } from "./api.js";
import { announce, byId, make } from "./dom.js";
import { takeDropped } from "./files.js";
import { SchemaForm } from "./form.js";
import { duration } from "./format.js";
import { listModels, modelField } from "./models.js";
import { Problem } from "./problem.js";
import { offer } from "./snippets.js";

const CUT = "Only the beginning was read: it is longer than the model's window";

// The parts of the tab; it is hidden until there is a model for it.
export class Panel {
  #asked = new AbortController(); // the request whose answer is still wanted
  #place = make("div", { class: "place" });
  #problem = make("div", { class: "place" });
  #result = make("div", { class: "stack result" });
  #took = make("span", { class: "note" });
  #cut = make("span", { class: "state wary" });
  #copy = make("span", { class: "copy" });

  constructor({ id, tab, title, task, action }) {
    this.models = make("select", { id: `${id}-model` });
    const form = make("form", { class: "stack" }, this.#place, make("div", { class: "controls" },
      make("span", { class: "spacer" }), make("button", { class: "primary" }, action)));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    const card = make("div", { class: "card" }, form, this.#problem, this.#result,
      make("div", { class: "foot late" }, this.#took, this.#cut, this.#copy));
    byId("tab-more").before(make("button",
      { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": id, hidden: true }, tab));
    byId("more").before(make("section",
      { id, role: "tabpanel", "aria-labelledby": `tab-${id}`, hidden: true },
      make("div", { class: "head" }, make("h2", {}, title),
        make("label", { class: "inline" }, "Model ", this.models)), card));
    listModels(this.models.id, task);
    takeDropped(card, (files) => this.form?.take(files));
    this.models.addEventListener("change", () => this.clear());
  }

  // Ask by another form; `request` makes { path, body } of what it reads, `draw` nodes of the answer.
  begin({ form, request, draw }) {
    Object.assign(this, { form, request, draw });
    this.#place.replaceChildren(form.node);
    this.clear();
  }

  clear() {
    this.#asked.abort();
    show(this.#problem, null);
    for (const place of [this.#result, this.#took, this.#cut, this.#copy]) place.replaceChildren();
  }

  async #send() {
    this.#asked.abort();
    this.#asked = new AbortController();
    const { signal } = this.#asked;
    try {
      const request = this.request(this.form.read());
      offer(this.#copy, request, request.path);
      const started = performance.now();
      const answer = await askJson(request, { signal });
      if (signal.aborted) return;
      this.#show(answer, request.body, (performance.now() - started) / 1000);
    } catch (failure) {
      if (isAbort(failure)) return;
      if (!(failure instanceof Problem)) throw failure;
      this.#result.replaceChildren();
      show(this.#problem, failure);
    }
  }

  #show(answer, body, seconds) {
    show(this.#problem, null);
    this.#result.replaceChildren(...this.draw(answer, body));
    const { model, truncated } = answer ?? {};
    this.#took.textContent = [model, duration(seconds)].filter(Boolean).join(", ");
    this.#cut.textContent = truncated === true || truncated?.length ? CUT : "";
    announce("Answered");
  }
}

// Make the tab of a task, whose requests are all of one form.
export function addTask({ path, schema, draw, extra = {}, ...one }) {
  const panel = new Panel(one);
  const request = (body) => ({ path, body: { ...body, ...extra, ...modelField(panel.models.id) } });
  panel.begin({ form: new SchemaForm(schema, { id: one.id }), request, draw });
}
