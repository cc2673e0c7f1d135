// Texts of one's own: added as documents, embedded by a job, then searched.

import { askJson, isAbort } from "./api.js";
import { batches, fromFiles, pasted } from "./documents.js";
import { byId, make, readText, takeFiles } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { integer, plural } from "./format.js";
import { showJob } from "./jobs.js";
import { showPassage } from "./passage.js";
import { Problem, show } from "./problem.js";
import { offer } from "./snippets.js";

let asked = new AbortController(); // the search whose answer is still wanted

export function startSearch() {
  const text = byId("add-text");
  const name = () => { byId("add-go").disabled = !text.value.trim(); };
  text.addEventListener("input", name);
  byId("add-go").addEventListener("click", async () => {
    if (await add(pasted(text.value))) text.value = "";
    name();
  });
  byId("add-example").addEventListener("click", () => add(fromFiles(EXAMPLES)));
  takeFiles(byId("add"), byId("add-files"), addFiles);
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
}

async function addFiles(files) {
  const read = [];
  for (const file of files) read.push({ name: file.name, text: await readText(file) });
  const full = read.filter(({ text }) => text.trim());
  if (full.length) return add(fromFiles(full));
  const detail = "There is no text in these files.";
  return show(byId("add-problem"), new Problem({ code: "empty", detail }));
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
    follow(id, title);
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

// Show the job's progress; others may be added meanwhile.
async function follow(id, title) {
  byId("add-said").textContent = `Embedding ${title}`;
  const job = await showJob(id, title);
  if (job) byId("add-said").textContent = `${title}: ${job.status}`;
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
