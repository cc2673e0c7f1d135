// The fields of a form: each is { node, read, write }, made of a JSON Schema's part.

import { make } from "./dom.js";
import { readDataUrl } from "./files.js";
import { Problem, fault } from "./problem.js";

const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// Return a field for a schema. `widget` in it, which JSON Schema doesn't know, asks for a special one.
export function makeField(schema, { id, name, isRequired, label = schema.title ?? name }) {
  const one = { schema, id, name, isRequired, label };
  return (WIDGETS[schema.widget] ?? widgetOf(schema))(one);
}

function widgetOf({ type, format, enum: values, items }) {
  if (values) return choice;
  if (type === "boolean") return check;
  if (type === "integer" || type === "number") return numeral;
  if (type === "string") return format === "base64url" ? bytes : line;
  if (type === "array" && items?.type === "string" && !items.enum && !items.format) return lines;
  return json;
}

// A label with its control; `note` says more of it.
function labelled({ id, label, schema: { description } }, control, { isWide = false } = {}) {
  return make("div", { class: isWide ? "field wide" : "field" },
    make("label", { for: id }, label), control,
    ...(description ? [make("small", { class: "note", id: `${id}-note` }, description)] : []));
}

function area(one, rows, { parse, print, ...attributes }) {
  const { id, schema, isRequired } = one;
  const control = make("textarea", { id, rows, dir: "auto", ...attributes });
  const read = () => (control.value.trim() || isRequired ? parse(control.value, one) : undefined);
  const write = (value) => (control.value = value == null ? "" : print(value));
  write(schema.default);
  return { node: labelled(one, control, { isWide: true }), read, write };
}

const text = (one) => area(one, 4, { parse: (typed) => typed, print: (value) => value });

const lines = (one) => area({ ...one, label: `${one.label}, one a line` }, 4,
  { parse: linesOf, print: (value) => value.join("\n") });

const json = (one) => area({ ...one, label: `${one.label}, as JSON` }, 3, {
  spellcheck: "false",
  parse: (typed, { label }) => {
    try {
      return JSON.parse(typed);
    } catch {
      throw fault(`${label}: this is no JSON.`);
    }
  },
  print: (value) => JSON.stringify(value),
});

function input(one, attributes, { parse = (typed) => typed, isWide = false } = {}) {
  const { id, schema, isRequired } = one;
  const control = make("input", { id, dir: "auto", autocomplete: "off", ...attributes });
  const read = () => (control.value || isRequired ? parse(control.value) : undefined);
  const write = (value) => (control.value = value ?? "");
  write(schema.default);
  return { node: labelled(one, control, { isWide }), read, write };
}

const line = (one) => input(one, { type: "text" });
const wide = (one) => input(one, { type: "text" }, { isWide: true });

function numeral(one) {
  const { minimum: min, maximum: max, type } = one.schema;
  const step = type === "integer" ? "1" : "any";
  // What is empty but needed is sent as null, and the service says that it is no number.
  const parse = (typed) => (typed === "" ? null : Number(typed));
  return input(one, { type: "number", min, max, step }, { parse });
}

function check(one) {
  const control = make("input", { id: one.id, type: "checkbox" });
  const write = (value) => (control.checked = value === true);
  write(one.schema.default);
  const node = make("label", { class: "inline" }, control, one.label);
  return { node, read: () => control.checked, write };
}

function choice(one) {
  const { id, schema, isRequired } = one;
  const values = isRequired || schema.default !== undefined ? schema.enum : ["", ...schema.enum];
  const options = values.map((value, index) => make("option", { value: index }, String(value)));
  const control = make("select", { id }, ...options);
  const write = (value) => (control.selectedIndex = Math.max(0, values.indexOf(value)));
  write(schema.default);
  const read = () => {
    const value = values[control.selectedIndex];
    return value === "" && !schema.enum.includes("") ? undefined : value;
  };
  return { node: labelled(one, control), read, write };
}

// Files as `data:` URLs, dropped or chosen.
function files(one, { accept, multiple, show, give }) {
  let chosen = [];
  let failure = null; // of reading them
  const { id } = one;
  const control = make("input", { id, type: "file", accept, multiple });
  const shown = make("div", { class: "pictures" });
  async function take(list) {
    failure = null;
    try {
      chosen = await Promise.all([...list].slice(0, multiple ? undefined : 1).map(readDataUrl));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      [chosen, failure] = [[], problem];
    }
    shown.replaceChildren(...chosen.map(show));
  }
  control.addEventListener("change", () => take(control.files));
  const node = labelled(one, make("div", { class: "stack" }, control, shown), { isWide: true });
  const read = () => {
    if (failure) throw failure;
    if (!chosen.length && one.isRequired) throw fault(`${one.label}: choose a file first.`);
    return chosen.length ? give(chosen) : undefined;
  };
  return { node, read, write() {}, take };
}

const picture = (url, index) => make("img", { src: url, alt: `Image ${index + 1}` });
const image = (one) =>
  files(one, { accept: "image/*", multiple: false, show: picture, give: ([url]) => url });
const images = (one) =>
  files(one, { accept: "image/*", multiple: true, show: picture, give: (urls) => urls });

// Bytes cross as base64 in the alphabet for addresses.
const bytes = (one) => files(one, {
  multiple: false,
  show: (url) => make("small", { class: "note" }, `${url.length} characters in base64`),
  give: ([url]) => url.slice(url.indexOf(",") + 1).replaceAll("+", "-").replaceAll("/", "_"),
});

const WIDGETS = { text, wide, lines, image, images };
