// Many texts, classified in batches: a list or a table comes in, a table and its CSV come out.

import { show } from "./alert.js";
import { askJson, isAbort, onKey } from "./api.js";
import { drawBars } from "./bars.js";
import { delimiterOf, download, even, isBlank, looksLikeTable, numberColumns, parse, textColumn,
  write } from "./csv.js";
import { byId, make } from "./dom.js";
import { readText, takeFiles } from "./files.js";
import { integer, percent, plural, score as written } from "./format.js";
import { modelField } from "./models.js";
import { Problem } from "./problem.js";
import { offer } from "./snippets.js";

const MAX_TEXTS = 256; // of one request, as the service has it
const MAX_BATCH_BYTES = 400_000; // well under the service's default bound of a body
const MAX_FILE_MB = 5;
const MAX_ROWS = 500; // shown; the CSV has all
const TABLE_NAME = /\.(csv|tsv)$/i;
const ANSWER_COLUMNS = ["label", "score", "error", "truncated"];

const NOTHING = { texts: [], records: [], names: null, column: 0 };

let input = NOTHING; // what stands in the field, read
let run = null; // what is classified of it: { input, results, stop }
let shown = null; // the run whose answers stand in the table

export function startMany() {
  const field = byId("many-text");
  field.addEventListener("input", () => {
    byId("many-format").value = looksLikeTable(field.value) ? "table" : "lines";
    read({ choosesColumn: true });
  });
  byId("many-format").addEventListener("change", () => read({ choosesColumn: true }));
  byId("many-header").addEventListener("change", () => read({ choosesColumn: true }));
  byId("many-column").addEventListener("change", () => read({ choosesColumn: false }));
  byId("many-go").addEventListener("click", classify);
  byId("many-stop").addEventListener("click", () => run.stop.abort());
  byId("many-download").addEventListener("click", () => download("classified.csv", asCsv(shown)));
  byId("classify-model").addEventListener("change", forget);
  onKey(() => show(byId("many-problem"), null));
  takeFiles(byId("many"), byId("many-file"), takeFile);
}

async function takeFile([file]) {
  try {
    const text = await textOf(file);
    show(byId("many-problem"), null);
    byId("many-text").value = text;
    byId("many-format").value = TABLE_NAME.test(file.name) ? "table" : "lines";
    read({ choosesColumn: true });
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    show(byId("many-problem"), failure);
  }
}

function textOf(file) {
  if (file.size <= MAX_FILE_MB * 1_000_000) return readText(file);
  const detail = `A page is too small for files over ${MAX_FILE_MB} MB; use /predict-batch.`;
  throw new Problem({ code: "file", detail });
}

// Read the field as what it is said to be.
function read({ choosesColumn }) {
  const text = byId("many-text").value;
  const isTable = byId("many-format").value === "table";
  byId("many-column-field").hidden = byId("many-header-field").hidden = !isTable;
  byId("many-wide").textContent = "";
  input = isTable ? readTable(text, choosesColumn) : readLines(text);
  forget();
}

// What was answered, or is being asked, is of another input or model.
function forget() {
  run?.stop?.abort();
  run = null;
  name();
}

// A blank line has its place among the answers too; the end of the last line begins no other.
function readLines(text) {
  const lines = text.split(/\r\n|\n|\r/);
  if (!lines.at(-1)) lines.pop();
  const records = lines.map((line) => [line]);
  return { texts: lines.map(toClassify), records, names: ["text"], column: 0 };
}

// What there is to classify in a cell: nothing, where it is blank.
const toClassify = (cell) => (cell?.trim() ? cell : "");

function readTable(text, choosesColumn) {
  const uneven = parse(text, delimiterOf(text));
  while (uneven.length && isBlank(uneven[0])) uneven.shift(); // before the names, or the first row
  if (!uneven.length) return NOTHING;
  warnOfWide(uneven);
  const records = even(uneven);
  const hasNames = byId("many-header").checked;
  const column = byId("many-column");
  if (choosesColumn) {
    column.replaceChildren(...records[0].map((cell, place) =>
      make("option", { value: place }, nameOf(hasNames ? cell : "", place))));
    column.value = textColumn(records, hasNames);
  }
  const names = hasNames ? records.shift().map(nameOf) : null;
  const texts = records.map((record) => toClassify(record[column.value]));
  return { texts, records, names, column: Number(column.value) };
}

const nameOf = (cell, place) => (cell.trim() ? cell : `column ${place + 1}`);

// A text whose delimiters aren't in quotes is cut at them, which only its author can see.
function warnOfWide([first, ...others]) {
  const wide = others.filter((record) => record.length > first.length).length;
  byId("many-wide").textContent = wide
    ? `${plural(wide, "row has", "rows have")} more cells than the first row: a text with commas ` +
      "needs quotes around it." : "";
}

// Say on the button what it would do.
function name() {
  const left = input.texts.length - (run?.results.length ?? 0);
  byId("many-go").disabled = !left || isRunning();
  const isRest = run?.results.length && left;
  byId("many-go").textContent = !input.texts.length ? "Classify"
    : isRest ? `Classify the other ${integer(left)}`
    : `Classify ${plural(input.texts.length, "text")}`;
  byId("many-stop").hidden = !isRunning();
}

const isRunning = () => run?.stop != null;

async function classify() {
  run ??= { input, results: [], stop: null };
  const mine = run;
  mine.stop = new AbortController();
  show(byId("many-problem"), null);
  name();
  try {
    while (mine.results.length < mine.input.texts.length && mine === run) await nextBatch(mine);
  } catch (failure) {
    if (failure instanceof Problem) show(byId("many-problem"), failure);
    else if (!isAbort(failure)) throw failure;
  } finally {
    mine.stop = null;
    name();
  }
}

async function nextBatch(mine) {
  const texts = batchOf(mine.input.texts, mine.results.length);
  const request = { path: "/predict-batch", body: { texts, ...modelField("classify-model") } };
  const answer = await askJson(request, { signal: mine.stop.signal });
  if (mine !== run) return;
  mine.results.push(...answer.results);
  mine.isRegression = answer.problem_type === "regression";
  offer(byId("many-copy"), request, "batch");
  draw(mine);
}

// As many of the next texts as one request takes.
function batchOf(texts, start) {
  const encoder = new TextEncoder();
  let bytes = 0;
  let end = start;
  while (end < texts.length && end < start + MAX_TEXTS) {
    bytes += encoder.encode(JSON.stringify(texts[end])).length + 1;
    if (bytes > MAX_BATCH_BYTES && end > start) break;
    end += 1;
  }
  return texts.slice(start, end);
}

function draw(mine) {
  shown = mine;
  const { input: { texts }, results } = mine;
  byId("many-said").textContent = results.length < texts.length
    ? `${integer(results.length)} of ${integer(texts.length)}`
    : `${plural(texts.length, "text")} classified${cutWords(results)}`;
  byId("many-result").hidden = false;
  drawBars(byId("many-bars"), distribution(results));
  byId("many-rows").replaceChildren(...results.slice(0, MAX_ROWS).map((result, place) =>
    row(place, texts[place], result, mine.isRegression)));
  byId("many-more").textContent = results.length > MAX_ROWS
    ? `The first ${integer(MAX_ROWS)} are shown; the CSV has all ${integer(results.length)}.` : "";
}

function cutWords(results) {
  const cut = results.filter(({ truncated }) => truncated).length;
  return cut ? `; of ${integer(cut)} only the beginning was read` : "";
}

// Return how many texts have which label, the most frequent first.
function distribution(results) {
  const counts = new Map();
  for (const { label } of results) {
    const name = label ?? "not classified";
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].sort(([, a], [, b]) => b - a).map(([label, count]) => {
    const share = count / results.length;
    return { label, share, text: `${integer(count)} (${percent(share)})` };
  });
}

function row(place, text, { label, score, error, truncated }, isRegression) {
  const cut = truncated ? [" ", make("small", { class: "state wary" }, "text cut")] : [];
  const answer = error
    ? [make("td", { class: "bad" }, error.detail), make("td")]
    : [make("td", {}, make("bdi", {}, label), ...cut),
      make("td", { class: "number" }, written(score, isRegression))];
  return make("tr", {},
    make("td", { class: "number" }, integer(place + 1)),
    make("td", { class: "text", dir: "auto" }, text),
    ...answer);
}

function asCsv({ input: { records, names, column }, results }) {
  const rows = results.map(({ label = "", score = "", error, truncated = "" }, place) =>
    [...records[place], label, score, error?.code ?? "", truncated]);
  const columns = names ?? records[0].map((_, place) => nameOf("", place));
  const numbers = numberColumns(records);
  numbers.delete(column); // what was classified is text, whatever it looks like
  return write([...columns, ...ANSWER_COLUMNS], rows, numbers);
}
