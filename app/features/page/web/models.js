// Which models there are, and the lists to choose from them.

import { askJson, onKey, onProblem } from "./api.js";
import { byId, make } from "./dom.js";
import { Problem } from "./problem.js";

// The task of each list to choose a model from.
const lists = new Map([["classify-model", "text-classification"], ["chat-model", "chat"]]);
const SETTLED = new Set(["ready", "failed", "unloaded"]);
const AGAIN_MS = 2000; // while one loads, or nobody answers
// After these, what is known of the models may be wrong; a request that isn't valid may be of a form
// whose model was loaded anew since.
const DOUBTS = new Set(["unreachable", "cut", "foreign", "not_ready", "model_not_ready",
  "model_unavailable", "model_not_found", "invalid_request"]);
export const REQUEST = { method: "GET", path: "/models" };

let known = [];
let isAway = false; // the last time
let isDoubted = false; // since the last time
let timer = null;
const listeners = [];

// Call back with { models, problem, isBack, wasDoubted } each time that they were asked for: with a
// problem the models are those of before, their states unknown; `isBack` says that this one followed
// a problem, `wasDoubted` that any of them may be another one than before.
export const onModels = (listener) => listeners.push(listener);

// Fill a list with the models of a task each time that they are known.
export const listModels = (id, task) => lists.set(id, task);

// Whether a request for this task can be answered: now, or when a model is loaded.
export const isServed = (task) => known.some((m) => m.task === task && m.state !== "failed");

export function startModels() {
  onKey(load);
  onProblem((problem) => {
    if (DOUBTS.has(problem.code)) doubt();
  });
  // Whoever comes back from an editor may have changed a model.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    isDoubted = true;
    load();
  });
  load();
}

// Ask for the models again where the states that somebody was told differ from what is known.
export function compare(models) {
  const stateOf = Object.fromEntries(models.map(({ name, state }) => [name, state]));
  const isSame = models.length === known.length
    && known.every(({ name, state }) => stateOf[name] === state);
  // After a problem they are asked for anyway, or when there is another key.
  if (!isSame && !isAway) doubt();
}

function doubt() {
  isDoubted = true;
  loadLater();
}

function loadLater() {
  timer ??= setTimeout(load, AGAIN_MS);
}

async function load() {
  clearTimeout(timer);
  timer = null;
  let problem;
  try {
    known = (await askJson(REQUEST)).models;
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    problem = failure;
    known = known.map((model) => ({ ...model, state: "unknown", reason: undefined }));
  }
  const isBack = isAway && !problem;
  const wasDoubted = isDoubted;
  isDoubted = problem !== undefined && isDoubted;
  isAway = problem !== undefined;
  for (const [id, task] of lists) fill(byId(id), task);
  for (const listener of listeners) listener({ models: known, problem, isBack, wasDoubted });
  if (!problem && known.some((model) => !SETTLED.has(model.state))) loadLater();
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
  // What the page shows was asked of another model.
  if (chosen && list.value !== chosen) list.dispatchEvent(new Event("change"));
}

export const isReady = (id) =>
  known.find((model) => model.name === byId(id).value)?.state === "ready";

// What a request says of the model: nothing, where it is the default one.
export function modelField(id) {
  const name = byId(id).value;
  const isDefault = known.find((model) => model.name === name)?.default ?? true;
  return isDefault ? {} : { model_name: name };
}

const MAX_CHARS = 2000; // of models that aren't known yet, as the service has it by default

export const maxCharsOf = (id) =>
  known.find((model) => model.name === byId(id).value)?.max_chars ?? MAX_CHARS;

export const labelsOf = (id) =>
  known.find((model) => model.name === byId(id).value)?.labels ?? [];
