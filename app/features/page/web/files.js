// Files that are dropped or chosen: which, and what their text is.

import { Problem } from "./problem.js";

const MARKS = { "255,254": "utf-16le", "254,255": "utf-16be" }; // as spreadsheets on Windows set
const PDF = "%PDF-"; // the one that is often text in part
// What no text has: in any, and in one that can only be of the older kind.
const NOT_IN_TEXT = /\0/;
const NOT_IN_OLD_TEXT = /[\0-\x08\x0e-\x19\x1c-\x1f\x81\x8d\x8f\x90\x9d]/;

// Take files that are dropped anywhere on `place`, or chosen in `input`.
export function takeFiles(place, input, take) {
  takeDropped(place, take);
  input.addEventListener("change", () => {
    if (input.files.length) take([...input.files]);
    input.value = ""; // the same file, changed, can be chosen again
  });
}

export function takeDropped(place, take) {
  const isFiles = (event) => event.dataTransfer?.types.includes("Files");
  place.addEventListener("dragover", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) place.classList.remove("over");
  });
  place.addEventListener("drop", (event) => {
    if (!isFiles(event)) return;
    event.preventDefault();
    place.classList.remove("over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
}

// Return a file's text: UTF-8, or what spreadsheets on Windows still write. Throws a Problem where
// it has none.
export async function readText(file) {
  const bytes = await bytesOf(file);
  const text = decode(bytes);
  if (text !== null) return text;
  const detail = `“${file.name}” doesn't look like text. If it is, save it as UTF-8.`;
  throw new Problem({ code: "file", detail });
}

async function bytesOf(file) {
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw unreadable(file);
  }
}

function unreadable(file) {
  const detail = `“${file.name}” can't be read. Of a folder, take the files in it.`;
  return new Problem({ code: "file", detail });
}

// Return a file as a `data:` URL.
export function readDataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(unreadable(file)));
    reader.readAsDataURL(file);
  });
}

// Return the text that bytes are, or null.
function decode(bytes) {
  const mark = MARKS[bytes.slice(0, 2)];
  const isPdf = String.fromCharCode(...bytes.slice(0, PDF.length)) === PDF;
  try {
    const text = new TextDecoder(mark ?? "utf-8", { fatal: true }).decode(bytes);
    return isPdf || NOT_IN_TEXT.test(text) ? null : text;
  } catch {
    const text = new TextDecoder("windows-1252").decode(bytes);
    return mark || isPdf || NOT_IN_OLD_TEXT.test(text) ? null : text;
  }
}
