// Texts of one's own: added as documents, embedded by a job, then searched.

import { show } from "./alert.js";
import { askJson, isAbort, onKey } from "./api.js";
import { batches, fromFiles, pasted } from "./documents.js";
import { byId, make } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { readText, takeFiles } from "./files.js";
import { integer, plural } from "./format.js";
import { findJobs, showJob } from "./jobs.js";
import { onModels } from "./models.js";
import { showPassage } from "./passage.js";
import { Problem } from "./problem.js";
import { offer } from "./snippets.js";

const MAX_NAMED = 5; // of the files that can't be added

let asked = new AbortController(); // the search whose answer is still wanted
let isAdding = false; // by one of the buttons

// Return what is to be called when the tab is shown or hidden.
export function startSearch() {
  let isShown = false;
  byId("add-text").addEventListener("input", nameButtons);
  byId("add-go").addEventListener("click", addTyped);
  byId("add-example").addEventListener("click", () => addOnce(fromFiles(EXAMPLES)));
  onKey(() => {
    for (const id of ["add-problem", "search-problem"]) show(byId(id), null);
    if (isShown) find();
  });
  onModels(({ isBack }) => {
    if (isShown && isBack) find();
  });
  takeFiles(byId("add"), byId("add-files"), addFiles);
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  return (becomesShown) => {
    isShown = becomesShown;
    if (isShown) find();
  };
}

function nameButtons() {
  byId("add-go").disabled = isAdding || !byId("add-text").value.trim();
  byId("add-example").disabled = isAdding;
}

async function addTyped() {
  const field = byId("add-text");
  const text = field.value;
  const isAdded = await addOnce(pasted(text));
  if (isAdded && field.value === text) field.value = ""; // not what was typed meanwhile
  nameButtons();
}

// Add documents, which a second click doesn't do again.
async function addOnce(documents) {
  isAdding = true;
  nameButtons();
  try {
    return await add(documents);
  } finally {
    isAdding = false;
    nameButtons();
  }
}

async function find() {
  try {
    await findJobs();
    show(byId("jobs-problem"), null);
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    // A key that may only search has no jobs.
    show(byId("jobs-problem"), failure.code === "forbidden" ? null : failure);
  }
}

// Add those of the files that are text, and tell which aren't.
async function addFiles(files) {
  const read = await Promise.allSettled(files.map(async (file) =>
    ({ name: file.name, text: await readText(file) })));
  const failures = read.flatMap(({ reason }) => reason ?? []);
  const strange = failures.find((failure) => !(failure instanceof Problem));
  if (strange) throw strange;
  const full = read.flatMap(({ value }) => (value?.text.trim() ? value : []));
  if (full.length && !(await add(fromFiles(full)))) return;
  const said = failures.slice(0, MAX_NAMED).map(({ words }) => words);
  if (failures.length > MAX_NAMED) said.push(`And ${integer(failures.length - MAX_NAMED)} more.`);
  if (!full.length && !said.length) said.push("There is no text in these files.");
  if (said.length) show(byId("add-problem"), new Problem({ code: "file", detail: said.join(" ") }));
}

// Store documents and have them embedded; return whether they were taken.
async function add(documents) {
  show(byId("add-problem"), null);
  try {
    const ids = await store(documents);
    const request = { path: "/embed-batch", body: { doc_ids: ids } };
    const { job_id: id } = await askJson(request);
    offer(byId("job-copy"), request, "job");
    byId("add-done").hidden = false;
    const [first] = documents;
    const title = documents.length === 1 ? first.metadata.title : plural(documents.length, "text");
    byId("add-said").textContent = `Embedding ${title}`;
    showJob(id, title);
    return true;
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    show(byId("add-problem"), failure);
    return false;
  }
}

async function store(documents) {
  const ids = [];
  for (const batch of batches(documents)) {
    byId("add-said").textContent =
      `Storing ${integer(ids.length + batch.length)} of ${plural(documents.length, "text")}`;
    const request = { path: "/documents", body: { documents: batch } };
    ids.push(...(await askJson(request)).ids);
    offer(byId("add-copy"), request, "documents");
  }
  return ids;
}

async function search() {
  const query = byId("search-query").value.trim();
  if (!query) return;
  const body = { query, top_k: Number(byId("search-top_k").value) };
  const request = { path: "/search", body };
  asked.abort();
  asked = new AbortController();
  const { signal } = asked;
  show(byId("search-problem"), null);
  try {
    const { results } = await askJson(request, { signal });
    if (signal.aborted) return;
    byId("search-results").replaceChildren(...results.map(result));
    byId("search-said").textContent = results.length
      ? plural(results.length, "result")
      : "Nothing found. Texts can be found once their job has succeeded.";
    offer(byId("search-copy"), request, "search");
  } catch (failure) {
    if (signal.aborted || isAbort(failure)) return;
    if (!(failure instanceof Problem)) throw failure;
    byId("search-results").replaceChildren();
    byId("search-said").textContent = "";
    show(byId("search-problem"), failure);
  }
}

function result({ id, score, text, metadata, passage }) {
  const title = metadata?.title ?? metadata?.name ?? id;
  return make("li", {},
    make("div", { class: "result-head" },
      make("bdi", { class: "title" }, String(title)),
      make("span", { class: "note" }, score.toFixed(3))),
    passage ? showPassage(text, passage) : make("p", { class: "passage", dir: "auto" }, text));
}
