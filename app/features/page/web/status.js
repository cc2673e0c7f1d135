// What the service does right now: charts drawn from /metrics, and the models' states.

import { show } from "./alert.js";
import { ask, askJson } from "./api.js";
import { Chart } from "./chart.js";
import { byId, make } from "./dom.js";
import { drawDrift } from "./drift.js";
import { duration, integer, number } from "./format.js";
import { compare, onModels, REQUEST as MODELS } from "./models.js";
import { Problem } from "./problem.js";
import { growth, parse, quantile, sum } from "./prometheus.js";
import { offer } from "./snippets.js";

const EVERY_MS = 2000;
const POINTS = 61; // two minutes
const METRICS = { method: "GET", path: "/metrics" };
const READY = { method: "GET", path: "/ready" };
// What machines and this page itself ask.
const NOT_COUNTED = new Set(["/metrics", "/health", "/ready", "/models", "/", "none"]);
const isCounted = ({ handler }) => !NOT_COUNTED.has(handler) && !handler.startsWith("/static");
const WAIT = "mlapi_wait_seconds";

const rate = (name, isMeant) => (before, now, seconds) => {
  const grown = growth(before, now, name, isMeant);
  return grown === null ? null : grown / seconds;
};

// Each reads [before, now, seconds between] into one value for each line.
const CHARTS = [
  { title: "Requests a second", format: number,
    read: (...between) => [rate("http_requests_total", isCounted)(...between)] },
  { title: "Time to a text's answer", format: duration, names: ["median", "95 %"],
    read: (before, now) => [0.5, 0.95].map((share) => quantile(share, before, now, WAIT)) },
  { title: "Waiting in queues", format: integer,
    read: (_, now) => [sum(now, "mlapi_queue_depth") + sum(now, "mlapi_generations_waiting")] },
  { title: "Texts in a batch", format: number,
    read: (before, now) => {
      const batches = growth(before, now, "mlapi_batch_size_count");
      return [batches ? growth(before, now, "mlapi_batch_size_sum") / batches : null];
    } },
  { title: "Tokens a second", format: number,
    read: (...between) => {
      // Counted as they are said; mlapi_tokens_total knows them at the end of an answer only.
      const [first, others] = ["time_to_first_token", "inter_token"].map((name) =>
        rate(`mlapi_${name}_seconds_count`)(...between));
      return [first === null || others === null ? null : first + others];
    } },
  { title: "Answers being generated", format: integer,
    read: (_, now) => [sum(now, "mlapi_generations_active")] },
];

// Return what is to be called when the tab is shown or hidden.
export function startStatus() {
  const charts = CHARTS.map((what) => ({ ...what, chart: new Chart({ ...what, size: POINTS }) }));
  byId("charts").append(...charts.map(({ chart }) => chart.node));
  offer(byId("status-copy"), METRICS, "metrics");
  onModels(drawModels);
  let isShown = false;
  let timer;
  let last = null;

  async function look() {
    clearTimeout(timer);
    if (!isShown || document.hidden) return;
    try {
      const now = await readMetrics();
      if (last) addPoints(charts, last, now);
      last = now;
      drawDrift(now.samples);
      await drawState();
      show(byId("status-problem"), null);
    } catch (failure) {
      if (!(failure instanceof Problem)) throw failure;
      last = null;
      said(failure.words, "bad");
      if (failure.code !== "unreachable") show(byId("status-problem"), failure);
    }
    timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", look);
  return (becomesShown) => {
    isShown = becomesShown;
    look();
  };
}

async function readMetrics() {
  const response = await ask(METRICS);
  return { samples: parse(await response.text()), at: performance.now() };
}

function addPoints(charts, last, now) {
  const seconds = (now.at - last.at) / 1000;
  for (const { chart, read } of charts) chart.add(read(last.samples, now.samples, seconds));
}

// /ready says what /models would, and isn't logged: it may be asked every few seconds.
async function drawState() {
  try {
    const { degraded, models } = await askJson(READY);
    compare(models);
    const parts = degraded.map((part) => part.replace(":", " "));
    said(parts.length ? `Ready, but degraded: ${parts.join(", ")}` : "Ready",
      parts.length ? "wary" : "good");
  } catch (failure) {
    if (failure.code !== "not_ready") throw failure;
    said(failure.detail, "wary");
  }
}

function said(text, kind) {
  const place = byId("status-said");
  if (place.textContent !== text) place.textContent = text; // the same again isn't said again
  place.className = `state ${kind}`;
}

const hasDevice = ({ device }) => device && device !== "none";
const KINDS = { ready: "good", failed: "bad" };

function drawModels({ models }) {
  if (!models.length) return;
  offer(byId("models-copy"), MODELS, "models");
  byId("models").replaceChildren(...models.map((model) => make("tr", {},
    make("th", { scope: "row" }, model.name),
    make("td", {}, make("span", { class: `state ${KINDS[model.state] ?? "wary"}` }, model.state),
      ...(model.reason ? [make("small", {}, model.detail ?? model.reason)] : [])),
    make("td", {}, model.task),
    make("td", {}, hasDevice(model) ? `${model.engine} on ${model.device}` : model.engine),
    make("td", {}, model.version ?? "–"),
    make("td", { class: "source" }, model.source ?? "–"))));
}
