// Which models there are, and the lists to choose from them.

import { askJson } from "./api.js";
import { byId, make } from "./dom.js";
import { Problem } from "./problem.js";

const LISTS = { "text-classification": "classify-model", chat: "chat-model" };
const SETTLED = new Set(["ready", "failed", "unloaded"]);
const AGAIN_MS = 2000; // while one loads, or nobody answers
export const REQUEST = { method: "GET", path: "/models" };

let known = [];
let timer;
const listeners = [];

// Call back with { models } or { problem } now and whenever they change.
export const onModels = (listener) => listeners.push(listener);

export async function loadModels() {
  clearTimeout(timer);
  let problem;
  try {
    known = (await askJson(REQUEST)).models;
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    problem = failure;
  }
  for (const [task, id] of Object.entries(LISTS)) fill(byId(id), task);
  for (const listener of listeners) listener({ models: known, problem });
  const isLoading = known.some((model) => !SETTLED.has(model.state));
  if (isLoading || problem?.code === "unreachable") timer = setTimeout(loadModels, AGAIN_MS);
}

function fill(list, task) {
  const chosen = list.value;
  const models = known.filter((model) => model.task === task);
  const options = models.map(({ name, state }) =>
    make("option", { value: name }, state === "ready" ? name : `${name} (${state})`));
  list.replaceChildren(...options);
  list.disabled = !models.length;
  if (!models.length) list.append(make("option", { value: "" }, "none"));
  const isThere = models.some((model) => model.name === chosen);
  list.value = isThere ? chosen : (models.find((model) => model.default)?.name ?? list.value);
}

// What a request says of the model: nothing, where it is the default one.
export function modelField(id) {
  const name = byId(id).value;
  const isDefault = known.find((model) => model.name === name)?.default ?? true;
  return isDefault ? {} : { model_name: name };
}

export const labelsOf = (id) =>
  known.find((model) => model.name === byId(id).value)?.labels ?? [];
