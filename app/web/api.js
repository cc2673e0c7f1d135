// Asks the service: the key is added here, and failures become problems.

import { byId } from "./dom.js";
import { Problem, problemOf } from "./problem.js";

const KEY = "ml-api-key";

// Relative to the page, so that it also works behind a proxy's prefix.
export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

// Keep the key in this tab: sessionStorage is neither shared with others nor kept after it.
export function keepKey(onChange) {
  const field = byId("key");
  field.value = sessionStorage.getItem(KEY) ?? "";
  byId("key-form").addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("change", () => {
    field.value = field.value.trim();
    sessionStorage.setItem(KEY, field.value);
    onChange();
  });
}

// Send a request, { method, path, body }; answers that failed are thrown as Problem.
export async function ask({ method = "POST", path, body }, { signal, accept } = {}) {
  const headers = {};
  const key = byId("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (accept) headers.Accept = accept;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const sent = { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" };
  let response;
  try {
    response = await fetch(address(path), sent);
  } catch (failure) {
    throw isAbort(failure) ? failure : new Problem({ code: "unreachable" });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

export async function askJson(request, options) {
  const response = await ask(request, options);
  try {
    return await response.json();
  } catch (failure) {
    throw isAbort(failure) ? failure : new Problem({ code: "cut" });
  }
}

export const isAbort = (failure) => failure?.name === "AbortError";

// The lines of an answer as they come.
export async function* linesOf(response) {
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
    throw isAbort(failure) ? failure : new Problem({ code: "cut" });
  } finally {
    reader.cancel().catch(() => {}); // it may have ended by itself
  }
}
