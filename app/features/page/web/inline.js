// Markdown within a line: code, bold, italic, struck, links. Makes elements with text in them.

import { make } from "./dom.js";

const CODE = /^(`+)(?!`)([^]{0,5000}?[^`])\1(?!`)/;
const TICKS = /^`+/;
const LINK = /^!?\[([^\]\n]{0,500})\]\(\s*<?([^\s()<>"]{1,2000})>?(?:\s+"[^"\n]*")?\s*\)/;
const BARE = /^https?:\/\/[^\s<>()"'`]{1,2000}[^\s<>()"'`.,;:!?]/;
// Marks, what they make, and what stands between them: no blank at either end.
const PAIRS = [
  [/^\*\*(?=\S)([^]{0,1000}?\S)\*\*/, "strong"],
  [/^__(?=\S)([^]{0,1000}?\S)__(?!\w)/, "strong"],
  [/^~~(?=\S)([^]{0,1000}?\S)~~/, "s"],
  [/^\*(?=[^\s*])([^]{0,1000}?[^\s*])\*(?!\*)/, "em"],
  [/^_(?=[^\s_])([^]{0,1000}?[^\s_])_(?!\w)/, "em"],
];
const SPECIAL = /[\\`*_~![\n]|https?:\/\//g;
const MAX_DEPTH = 8;
const SAFE = new Set(["http:", "https:", "mailto:"]);

// Put a text's nodes into an element.
export function writeInline(parent, text, depth = 0) {
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) parent.append(plain);
    plain = "";
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at >= text.length) break;
    const isWord = /\w/.test(text[at - 1] ?? "");
    const found = depth < MAX_DEPTH ? piece(text.slice(at), isWord, depth) : null;
    if (found) {
      flush();
      parent.append(found.node);
      at += found.length;
    } else if (text[at] === "\\" && /[\\`*_~[\]()#>!.+-]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      const [taken] = TICKS.exec(text.slice(at)) ?? [text[at]]; // a run of ` opens code, or nothing
      plain += taken;
      at += taken.length;
    }
  }
  flush();
}

// Return the element that a text begins with, and how much of the text it takes; null for none.
function piece(rest, isWord, depth) {
  if (rest[0] === "\n") return { node: make("br"), length: 1 };
  const code = CODE.exec(rest);
  if (code) return { node: make("code", {}, code[2].trim()), length: code[0].length };
  const link = LINK.exec(rest);
  if (link) return { node: linked(link[2], link[1], depth), length: link[0].length };
  const bare = isWord ? null : BARE.exec(rest);
  if (bare) return { node: linked(bare[0], null, depth), length: bare[0].length };
  for (const [pair, tag] of PAIRS) {
    const found = rest[0] === "_" && isWord ? null : pair.exec(rest); // snake_case is a word
    if (found) {
      const node = make(tag);
      writeInline(node, found[1], depth + 1);
      return { node, length: found[0].length };
    }
  }
  return null;
}

// A link says where it leads; one to anything but a page or a mailbox stays text. Images become
// links too: showing one would ask another host for it.
function linked(target, text, depth) {
  const isSafe = URL.canParse(target) && SAFE.has(new URL(target).protocol);
  const node = isSafe
    ? make("a", { href: target, title: target, target: "_blank", rel: "noopener noreferrer" })
    : make("span");
  if (text === null) node.append(target);
  else writeInline(node, text || target, Math.max(depth + 1, MAX_DEPTH - 1));
  return node;
}
