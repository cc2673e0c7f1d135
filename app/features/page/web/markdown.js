// Shows Markdown as it grows: cut into blocks, of which only those that changed are made anew.

import { make } from "./dom.js";
import { writeInline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)/;
const HEADING = /^ {0,3}#{1,6}\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( {0,12})(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

// Put a text into a place whose children are the blocks of the text's beginning, or nothing.
export function showMarkdown(place, text) {
  const blocks = cut(text.split("\n"));
  while (place.children.length > blocks.length) place.lastChild.remove();
  blocks.forEach((block, index) => {
    const source = JSON.stringify(block);
    const old = place.children[index];
    if (old?.markdown === source) return;
    const made = render(block);
    made.markdown = source; // a property of the node, seen by nobody else
    if (old) old.replaceWith(made);
    else place.append(made);
  });
}

// Return the blocks of some lines, as { kind, ... }.
function cut(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, used] = nextBlock(lines, at);
    blocks.push(block);
    at += used;
  }
  return blocks;
}

function nextBlock(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return codeBlock(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", text: heading[1] }, 1];
  if (RULE.test(line)) return [{ kind: "rule" }, 1];
  if (QUOTE.test(line)) {
    const quoted = takeWhile(lines, at, (each) => QUOTE.test(each));
    return [{ kind: "quote", lines: quoted.map((each) => QUOTE.exec(each)[1]) }, quoted.length];
  }
  if (ITEM.test(line)) {
    const items = takeWhile(lines, at, (each) => ITEM.test(each) || /^\s{2,}\S/.test(each));
    return [{ kind: "list", lines: items }, items.length];
  }
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "")) {
    const rows = takeWhile(lines, at, (each) => each.includes("|"));
    return [{ kind: "table", lines: rows }, rows.length];
  }
  const text = [line, ...takeWhile(lines, at + 1, isPlain)];
  return [{ kind: "text", text: text.join("\n") }, text.length];
}

// A block of code goes to its fence, or to the end of what has come so far.
function codeBlock(lines, at, [, mark, language]) {
  const isEnd = (line) => line.trim().startsWith(mark) && !line.trim().slice(mark.length).trim();
  const code = takeWhile(lines, at + 1, (line) => !isEnd(line));
  const isClosed = at + 1 + code.length < lines.length;
  return [{ kind: "code", language, text: code.join("\n") }, code.length + (isClosed ? 2 : 1)];
}

const isPlain = (line) =>
  line.trim() && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((other) => other.test(line));

function takeWhile(lines, at, test) {
  let end = at;
  while (end < lines.length && test(lines[end])) end += 1;
  return lines.slice(at, end);
}

// What may be wider than its place takes the focus, to be scrolled by keys, and so needs a name.
// It is a group: as regions, the blocks of a long answer would crowd the page's landmarks.
const scrolls = (name) => ({ tabindex: "0", role: "group", "aria-label": name });

function render(block, depth = 0) {
  if (block.kind === "rule") return make("hr");
  if (block.kind === "code") {
    return make("pre", scrolls("Code"), make("code", {}, block.text));
  }
  if (block.kind === "quote") {
    const inner = depth < 4 ? cut(block.lines) : [{ kind: "text", text: block.lines.join("\n") }];
    return make("blockquote", {}, ...inner.map((each) => render(each, depth + 1)));
  }
  if (block.kind === "list") return list(block.lines);
  if (block.kind === "table") return table(block.lines);
  // A heading of an answer is none of the page: it must not take part in the page's outline.
  const made = make("p", { class: block.kind === "heading" && "heading", dir: "auto" });
  writeInline(made, block.text);
  return made;
}

// Lists within lists go by how far their items are set in.
function list(lines) {
  const [, indent, number] = ITEM.exec(lines[0]);
  const made = number ? make("ol", { start: number }) : make("ul");
  let at = 0;
  while (at < lines.length) {
    const [, , , text] = ITEM.exec(lines[at]);
    const isInner = (line) => (ITEM.exec(line)?.[1].length ?? Infinity) > indent.length;
    const inner = takeWhile(lines, at + 1, isInner);
    const item = make("li", { dir: "auto" });
    const more = takeWhile(inner, 0, (line) => !ITEM.test(line)).map((line) => line.trim());
    writeInline(item, [text, ...more].join("\n"));
    if (more.length < inner.length) item.append(list(inner.slice(more.length)));
    made.append(item);
    at += 1 + inner.length;
  }
  return made;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|");
  const row = (line, tag) => make("tr", {}, ...cells(line).map((text) => {
    const made = make(tag, { dir: "auto", scope: tag === "th" && "col" });
    writeInline(made, text.trim());
    return made;
  }));
  const [names, , ...rows] = lines;
  return make("div", { class: "scroll", ...scrolls("Table") }, make("table", {},
    make("thead", {}, row(names, "th")),
    make("tbody", {}, ...rows.map((line) => row(line, "td")))));
}
