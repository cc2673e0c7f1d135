// Asks the service: the key is added here, and failures become problems.

import { byId } from "./dom.js";
import { Problem, problemOf } from "./problem.js";

const KEY = "ml-api-key";
const NOT_IN_A_HEADER = /[^\x20-\x7e]/; // an ellipsis for instance, of a key that was shown cut

const keyListeners = [];
const problemListeners = [];

// Call back when there is another key.
export const onKey = (listener) => keyListeners.push(listener);

// Call back with each request's problem.
export const onProblem = (listener) => problemListeners.push(listener);

// Relative to the page, so that it also works behind a proxy's prefix.
export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

// Keep the key in this tab: sessionStorage is neither shared with others nor kept after it.
export function keepKey() {
  const field = byId("key");
  field.value = sessionStorage.getItem(KEY) ?? "";
  byId("key-form").addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("change", () => {
    field.value = field.value.trim();
    sessionStorage.setItem(KEY, field.value);
    for (const listener of keyListeners) listener();
  });
}

// Send a request, { method, path, body }; answers that failed are thrown as Problem.
export async function ask(request, { signal, accept } = {}) {
  const response = await send(request, { signal, accept });
  if (!response.ok) throw told(await problemOf(response), request);
  return response;
}

async function send(request, { signal, accept }) {
  const { method = "POST", path, body } = request;
  const headers = {};
  const key = byId("key").value.trim();
  if (NOT_IN_A_HEADER.test(key)) throw told(new Problem({ code: "unauthorized" }), request);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (accept) headers.Accept = accept;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" };
  try {
    return await fetch(address(path), sent);
  } catch (failure) {
    throw isAbort(failure) ? failure : told(new Problem({ code: "unreachable" }), request);
  }
}

export async function askJson(request, options) {
  const response = await ask(request, options);
  try {
    return await response.json();
  } catch (failure) {
    throw isAbort(failure) ? failure : told(new Problem({ code: "cut" }), request);
  }
}

// Return a request's problem when those who listen have heard of it.
export function told(problem, request) {
  problem.request = request;
  for (const listener of problemListeners) listener(problem);
  return problem;
}

export const isAbort = (failure) => failure?.name === "AbortError";

// The lines of the answer to a request as they come.
export async function* linesOf(response, request) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop(); // the beginning of a line whose end has not come yet
      yield* lines;
    }
  } catch (failure) {
    throw isAbort(failure) ? failure : told(new Problem({ code: "cut" }), request);
  } finally {
    reader.cancel().catch(() => {}); // it may have ended by itself
  }
}
