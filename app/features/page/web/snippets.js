// A request as code that does the same elsewhere. The key stays out of it: it is read from APP_KEY.

import { address } from "./api.js";
import { announce, button, byId } from "./dom.js";

// Linux takes no argument of a command from 128 KiB on, whatever the shell.
const MAX_ARGUMENT_BYTES = 100_000;

const hasKey = () => byId("key").value.trim() !== "";
const indent = (text, by) => text.replaceAll("\n", `\n${" ".repeat(by)}`);

// For a POSIX shell, where only ' ends what ' began.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function asCurl({ method = "POST", path, body, streams }) {
  const parts = [`curl -s${streams ? "N" : ""} ${quoted(address(path))}`];
  if (method !== (body === undefined ? "GET" : "POST")) parts[0] += ` -X ${method}`;
  if (hasKey()) parts.push('-H "Authorization: Bearer $APP_KEY"');
  if (body !== undefined) {
    parts.push("-H 'Content-Type: application/json'", curlBody(JSON.stringify(body)));
  }
  return parts.join(" \\\n  ");
}

// JSON has no line breaks of its own, so that none of its lines ends the here-document.
function curlBody(json) {
  const isLong = new TextEncoder().encode(json).length > MAX_ARGUMENT_BYTES;
  return isLong ? `--data-binary @- <<'JSON'\n${json}\nJSON\n` : `-d ${quoted(json)}`;
}

// JSON as Python writes it; a string in JSON is one in Python too.
function literal(value, depth = 0) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const items = isList
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${literal(v, depth + 1)}`);
  if (!items.length) return isList ? "[]" : "{}";
  const pad = "    ".repeat(depth + 1);
  const inner = items.map((item) => `${pad}${item},\n`).join("");
  return `${isList ? "[" : "{"}\n${inner}${"    ".repeat(depth)}${isList ? "]" : "}"}`;
}

function asPython({ method = "POST", path, body, streams }) {
  const given = [JSON.stringify(address(path))];
  if (streams) given.unshift(JSON.stringify(method));
  if (hasKey()) given.push("headers=headers");
  if (body !== undefined) given.push("json=body");
  given.push("timeout=120");
  const call = `${streams ? "stream" : method.toLowerCase()}(${given.join(", ")})`;
  const reading = streams
    ? `with httpx.${call} as answer:\n    for line in answer.iter_lines():\n        print(line)`
    : `answer = httpx.${call}\nanswer.raise_for_status()\nprint(answer.text)`;
  const lines = [hasKey() ? "import os\n\nimport httpx\n" : "import httpx\n"];
  if (hasKey()) lines.push('headers = {"Authorization": f"Bearer {os.environ[\'APP_KEY\']}"}');
  if (body !== undefined) lines.push(`body = ${literal(body)}`);
  return [...lines, reading].join("\n");
}

function asJavaScript({ method = "POST", path, body, streams }) {
  const headers = [];
  if (hasKey()) headers.push("Authorization: `Bearer ${process.env.APP_KEY}`");
  if (body !== undefined) headers.push('"Content-Type": "application/json"');
  const options = [`  method: ${JSON.stringify(method)},\n`];
  if (headers.length) options.push(`  headers: { ${headers.join(", ")} },\n`);
  if (body !== undefined) {
    options.push(`  body: JSON.stringify(${indent(JSON.stringify(body, null, 2), 2)}),\n`);
  }
  const url = JSON.stringify(address(path));
  const reading = streams
    ? "for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) " +
      "console.log(piece);"
    : "console.log(await answer.text());";
  return `const answer = await fetch(${url}, {\n${options.join("")}});\n${reading}`;
}

const WRITERS = { curl: asCurl, Python: asPython, JavaScript: asJavaScript };

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // absent on plain http from elsewhere
    return true;
  } catch {
    byId("by-hand-text").value = text;
    byId("by-hand").showModal();
    byId("by-hand-text").select();
    return false;
  }
}

// Offer a request that was made as code; each call replaces the last one's. `what` tells the buttons
// from others on the page where only their names are heard.
export function offer(place, request, what) {
  const buttons = Object.entries(WRITERS).map(([name, write]) => {
    const made = button(name, async () => {
      if (!(await copy(write(request)))) return;
      announce(`Copied as ${name}`);
      made.classList.add("done");
      setTimeout(() => made.classList.remove("done"), 1500);
    }, { "aria-label": `Copy ${what} request as ${name}` });
    return made;
  });
  place.replaceChildren("Copy as ", ...buttons);
}
