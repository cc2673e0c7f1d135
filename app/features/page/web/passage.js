// Shows the part of a text around a passage, with the passage marked.

import { make } from "./dom.js";

const BEFORE = 160;
const AFTER = 240;
const MAX_PASSAGE = 1200;

// `start` and `end` count characters as the service does: an emoji is one.
export function showPassage(text, { start, end }) {
  const chars = [...text];
  const last = Math.min(end, start + MAX_PASSAGE);
  const from = Math.max(0, start - BEFORE);
  const to = Math.min(chars.length, last + AFTER);
  const part = (a, b) => chars.slice(a, b).join("");
  return make("p", { class: "passage", dir: "auto" },
    from ? "… " : "",
    part(from, start),
    // Where it is all of the text there is nothing to tell it from.
    make("mark", { class: start === 0 && end >= chars.length && "whole" }, part(start, last)),
    part(last, to),
    to < chars.length ? " …" : "");
}
