// Jobs: each is followed live until it is over, and can be cancelled on the way.

import { show } from "./alert.js";
import { ask, askJson, linesOf, told } from "./api.js";
import { button, byId, make } from "./dom.js";
import { integer, plural } from "./format.js";
import { Problem } from "./problem.js";

const OVER = new Set(["succeeded", "failed", "cancelled"]);
// As while the service restarts, or is asked by too many.
const PASSING = new Set(["unreachable", "cut", "foreign", "not_ready", "overloaded",
  "rate_limited", "database_unavailable"]);
const GONE = "job_not_found"; // deleted: it is over too
const AGAIN_MS = 1000; // after a connection that broke
const TRIES = 60; // in a row
const MAX_FOLLOWED = 3; // at once: browsers open few connections to one host, often six
const MAX_ERRORS = 5; // shown of a job
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

const rows = new Map(); // by the job's id
const places = { free: MAX_FOLLOWED, waiting: [] }; // of jobs that are followed

// Show a job in the list, and follow it; `job` is how it was a moment ago, if that is known.
export function showJob(id, title, job) {
  if (!rows.has(id)) rows.set(id, new Row(id));
  const row = rows.get(id);
  row.entitle(title);
  if (job) row.draw(job);
  row.follow();
}

// Show the jobs that aren't over, as after the page was loaded again.
export async function findJobs() {
  const found = await Promise.all(["running", "queued"].map((status) =>
    askJson({ method: "GET", path: `/jobs?status=${status}` })));
  byId("jobs-more").textContent = found.some(({ next }) => next) ? "Older jobs aren't shown." : "";
  for (const row of rows.values()) row.follow(); // which may have been given up
  // The newest comes last, and to the top.
  for (const job of found.flatMap(({ jobs }) => jobs).reverse()) {
    if (rows.has(job.id)) continue;
    showJob(job.id, `${plural(job.progress.total, "text")} of ${timeOf(job)}`, job);
  }
}

const timeOf = ({ created_at: at }) => clock.format(new Date(at));

class Row {
  #title = make("bdi", { class: "title" });
  #state = make("span", { class: "state wary" }, "queued");
  #bar = make("progress", { max: 1, value: 0 });
  #count = make("span", { class: "note count" });
  #problem = make("div");
  #cancel = button("Cancel", () => this.#end());
  #isFollowed = false;
  #isOver = false;

  constructor(id) {
    this.id = id;
    byId("jobs").prepend(make("li", {},
      make("div", { class: "job" },
        this.#title, this.#state, this.#bar, this.#count, this.#cancel),
      this.#problem));
  }

  entitle(title) {
    this.#title.textContent = title;
    this.#bar.setAttribute("aria-label", `Progress: ${title}`);
  }

  async follow() {
    if (this.#isFollowed || this.#isOver) return;
    this.#isFollowed = true;
    const leave = await enter();
    try {
      for await (const job of changes(this.id, () => this.#wait())) this.draw(job);
    } catch (failure) {
      if (!(failure instanceof Problem)) throw failure;
      if (failure.code === GONE) this.#close();
      show(this.#problem, failure,
        ...(this.#isOver ? [] : [button("Follow again", () => this.follow())]));
    } finally {
      this.#isFollowed = false;
      leave();
    }
  }

  draw(job) {
    const { status, progress: { done, total, failed } } = job;
    if (this.#isOver) return; // as an answer to Cancel may have said before
    this.#state.textContent = status;
    this.#state.className = `state ${{ succeeded: "good", failed: "bad" }[status] ?? "wary"}`;
    this.#bar.max = total || 1;
    this.#bar.value = done + failed;
    this.#count.textContent =
      `${integer(done)} of ${integer(total)}${failed ? `, ${integer(failed)} failed` : ""}`;
    show(this.#problem, null);
    if (!OVER.has(status)) return;
    this.#close();
    byId("add-said").textContent = `${this.#title.textContent}: ${status}`;
    if (status === "failed") this.#explain(job);
  }

  #close() {
    this.#isOver = true;
    this.#cancel.remove();
  }

  #explain({ error, request_id, result }) {
    const errors = result?.errors ?? [];
    const detail = errors.length ? `${plural(result.failed, "text")} failed.`
      : error?.detail || "The job failed.";
    show(this.#problem, new Problem({ code: "job", detail, request_id }));
    if (errors.length) this.#problem.firstChild.append(listOf(errors, result.failed));
  }

  #wait() {
    this.#state.textContent = "unknown";
    this.#state.className = "state wary";
    if (this.#problem.querySelector(".waiting")) return; // the same isn't said again
    this.#problem.replaceChildren(make("p", { class: "note waiting", role: "status" },
      "Waiting for the service. The job isn't lost."));
  }

  async #end() {
    this.#cancel.disabled = true;
    try {
      this.draw(await askJson({ method: "DELETE", path: `/jobs/${this.id}` }));
    } catch (failure) {
      if (!(failure instanceof Problem)) throw failure;
      show(this.#problem, failure);
    } finally {
      this.#cancel.disabled = false;
    }
  }
}

function listOf(errors, failed) {
  const items = errors.slice(0, MAX_ERRORS).map(({ id, error }) =>
    make("li", {}, make("bdi", {}, id), `: ${error}`));
  const others = failed - items.length;
  if (others > 0) items.push(make("li", {}, `and ${integer(others)} more`));
  return make("ul", { class: "errors" }, ...items);
}

// Wait until one more may be followed; return what ends that.
async function enter() {
  if (places.free) places.free -= 1;
  else await new Promise((resolve) => places.waiting.push(resolve));
  return () => {
    const next = places.waiting.shift();
    if (next) next();
    else places.free += 1;
  };
}

// Yield a job each time that it changes, to its end; a connection that breaks is opened again,
// after `onBreak` was called.
async function* changes(id, onBreak) {
  for (let left = TRIES; ; left -= 1) {
    try {
      for await (const job of events(id)) {
        left = TRIES;
        yield job;
        if (OVER.has(job.status)) return;
      }
    } catch (failure) {
      if (!PASSING.has(failure.code) || left <= 0) throw failure;
      onBreak();
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

async function* events(id) {
  const request = { method: "GET", path: `/jobs/${id}/events`, streams: true };
  const response = await ask(request, { accept: "text/event-stream" });
  let kind = "";
  for await (const line of linesOf(response, request)) {
    if (line.startsWith("event:")) kind = line.slice("event:".length).trim();
    if (!line.startsWith("data:")) continue;
    const said = JSON.parse(line.slice("data:".length));
    if (kind === "error") throw told(new Problem(said), request);
    yield said;
  }
}
