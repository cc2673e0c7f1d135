// Tables as text: read with commas, semicolons or tabs between cells, written with commas.

const SAMPLE_CHARS = 20_000;
const SAMPLE_RECORDS = 20;
const DELIMITERS = [",", ";", "\t"];
const TEXT_NAMES = /^(text|texts|review|comment|content|sentence|message|body|description)$/i;
// What a spreadsheet runs as a formula, as in app/features/prediction_log/cells.py: also after blanks,
// quotes and invisible characters, which some programs strip.
const BREAK = /^[\t\r\n]/;
const FORMULA = /^[\s\p{Cc}\p{Cf}\p{Z}"']*[=+\-@\u2212]/u;
const NUMBER = /^\s*[+-]?(\d+([.,]\d+)*|[.,]\d+)(e[+-]?\d+)?\s*%?\s*$/i;

// Return the records; a quote opens a cell that may hold delimiters, line ends and "" for ".
// Without a delimiter the records have one cell each. A blank line is a record too.
export function parse(text, delimiter) {
  const records = [];
  const ends = [delimiter, "\\r\\n", "\\n", "\\r", "$"].filter(Boolean).join("|");
  const cell = new RegExp(
    `(?:"([^"]*(?:""[^"]*)*)"?|)([^${delimiter ?? ""}\\r\\n]*)(${ends})`, "y");
  let record = [];
  while (cell.lastIndex < text.length || record.length) {
    const [, inQuotes, plain, end] = cell.exec(text);
    record.push(inQuotes === undefined ? plain : inQuotes.replaceAll('""', '"') + plain);
    if (end !== delimiter) {
      records.push(record);
      record = [];
    }
  }
  return records;
}

// Return what the shape of a table can be told from, without reading all of it.
function firstRecords(text, delimiter) {
  const records = parse(text.slice(0, SAMPLE_CHARS), delimiter);
  if (text.length > SAMPLE_CHARS && records.length > 1) records.pop(); // the cut went through it
  return records.filter((record) => !isBlank(record)).slice(0, SAMPLE_RECORDS);
}

export const isBlank = (record) => record.every((cell) => !cell.trim());

// Return the delimiter that cuts the first record into the most cells, or null: names seldom have
// commas in them, texts often.
export function delimiterOf(text) {
  const widths = DELIMITERS.map((delimiter) => firstRecords(text, delimiter)[0]?.length ?? 0);
  const most = Math.max(...widths);
  return most > 1 ? DELIMITERS[widths.indexOf(most)] : null;
}

// Return the records with as many cells each as the widest has.
export function even(records) {
  const width = records.reduce((most, record) => Math.max(most, record.length), 0);
  return records.map((record) => [...record, ...Array(width - record.length).fill("")]);
}

// Whether pasted text is a table rather than lines that happen to have a comma each.
export function looksLikeTable(text) {
  const delimiter = delimiterOf(text);
  if (delimiter === null) return false;
  const records = firstRecords(text, delimiter);
  const [names] = records;
  if (records.some((record) => record.length !== names.length)) return false;
  return delimiter === "\t" || names.some((name) => TEXT_NAMES.test(name.trim()));
}

// Return the place of the column that holds the texts: by its name, else the one with the most.
export function textColumn(records, hasNames) {
  const [names] = records;
  const named = hasNames ? names.findIndex((name) => TEXT_NAMES.test(name.trim())) : -1;
  if (named >= 0) return named;
  const chars = names.map((_, place) =>
    records.slice(hasNames ? 1 : 0, 50).reduce((sum, r) => sum + (r[place] ?? "").length, 0));
  return chars.indexOf(Math.max(...chars));
}

// Return which columns of a table hold numbers and nothing else.
export function numberColumns(records) {
  return new Set((records[0] ?? []).map((_, place) => place).filter((place) =>
    records.every((record) => !record[place].trim() || NUMBER.test(record[place]))));
}

// The wide and small forms of East Asian input count as the plain ones.
const startsFormula = (text) => BREAK.test(text) || FORMULA.test(text.normalize("NFKC"));

// Return the records as CSV that is safe to open in a spreadsheet. Cells of `numbers`, which are
// columns that hold nothing else, stay as they are.
export function write(names, records, numbers = new Set()) {
  const cell = (value, isNumber = false) => {
    const isFormula = !isNumber && typeof value === "string" && startsFormula(value);
    const text = isFormula ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const line = (cells) => `${cells.join(",")}\r\n`;
  const row = (record) => line(record.map((value, place) => cell(value, numbers.has(place))));
  return line(names.map((name) => cell(name))) + records.map(row).join("");
}

// Let the browser save a text as a file.
export function download(name, text) {
  // A spreadsheet takes UTF-8 for something else without the mark.
  const blob = new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
