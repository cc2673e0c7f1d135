// Jobs: each is followed live until it ends, and can be cancelled on the way.

import { ask, linesOf } from "./api.js";
import { button, byId, make } from "./dom.js";
import { integer } from "./format.js";
import { Problem, show } from "./problem.js";

const OVER = new Set(["succeeded", "failed", "cancelled"]);
const PASSING = new Set(["unreachable", "cut", "not_ready"]); // as while the service restarts
const AGAIN_MS = 1000; // after a connection that broke
const TRIES = 5; // in a row

// Show a job in the list; resolves with it when it has ended.
export async function showJob(id, title) {
  const state = make("span", { class: "state wary" }, "queued");
  const bar = make("progress", { max: 1, value: 0, "aria-label": `Progress: ${title}` });
  const count = make("span", { class: "note count" });
  const problem = make("div");
  const cancel = button("Cancel", async () => {
    cancel.disabled = true;
    try {
      await ask({ method: "DELETE", path: `/jobs/${id}` });
    } catch (failure) {
      show(problem, failure);
    }
  });
  byId("jobs").prepend(make("li", {},
    make("div", { class: "job" }, make("bdi", { class: "title" }, title), state, bar, count, cancel),
    problem));
  try {
    for await (const job of follow(id)) {
      draw(job, { state, bar, count });
      if (job.status === "failed") show(problem, problemOf(job));
      if (OVER.has(job.status)) return job;
    }
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    show(problem, failure);
  } finally {
    cancel.remove();
  }
  return null;
}

function draw({ status, progress: { done, total, failed } }, { state, bar, count }) {
  state.textContent = status;
  state.className = `state ${{ succeeded: "good", failed: "bad" }[status] ?? "wary"}`;
  bar.max = total || 1;
  bar.value = done;
  count.textContent =
    `${integer(done)} of ${integer(total)}${failed ? `, ${integer(failed)} failed` : ""}`;
}

const problemOf = ({ error, request_id }) =>
  new Problem({ code: "job", detail: error?.detail || "The job failed.", request_id });

// Yield a job each time that it changes, to its end; a connection that breaks is opened again.
async function* follow(id) {
  for (let left = TRIES; ; left -= 1) {
    try {
      const request = { method: "GET", path: `/jobs/${id}/events` };
      const response = await ask(request, { accept: "text/event-stream" });
      let kind = "";
      for await (const line of linesOf(response)) {
        if (line.startsWith("event:")) kind = line.slice("event:".length).trim();
        if (!line.startsWith("data:")) continue;
        const said = JSON.parse(line.slice("data:".length));
        if (kind === "error") throw new Problem(said);
        left = TRIES;
        yield said;
        if (OVER.has(said.status)) return;
      }
    } catch (failure) {
      if (!PASSING.has(failure.code) || left <= 0) throw failure;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}
