// Shows what went wrong: in words, and with the request that failed as code.

import { button, byId, make } from "./dom.js";
import { offer } from "./snippets.js";

const shown = new WeakMap(); // what stands in which place

// Show a problem in its place, or nothing. `actions` are buttons that may help.
export function show(place, problem, ...actions) {
  const { words, request } = problem ?? {};
  if (problem && isShown(place, words, request)) return;
  shown.set(place, { words, request });
  place.replaceChildren();
  if (!problem) return;
  const said = make("div", { role: "alert" }, make("p", {}, words));
  if (problem.code === "unauthorized") {
    actions.push(button("Enter a key", () => byId("key").focus()));
  }
  said.append(...actions);
  if (problem.requestId) {
    const id = make("code", {}, problem.requestId);
    said.append(make("p", { class: "request" }, "Request id ", id));
  }
  const box = make("div", { class: "problem" }, said);
  if (request) {
    const copy = make("p", { class: "copy" });
    offer(copy, request, `failed ${request.path}`);
    box.append(copy);
  }
  place.append(box);
}

// A request that is made every few seconds fails with the same words each time: they aren't said
// again, and whoever has gone to one of the buttons stays there.
function isShown(place, words, request) {
  const before = shown.get(place);
  return before?.words === words && request !== undefined && before.request === request;
}
