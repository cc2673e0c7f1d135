// One text, classified as it is typed.

import { show } from "./alert.js";
import { askJson, isAbort, onKey } from "./api.js";
import { drawBars } from "./bars.js";
import { button, byId } from "./dom.js";
import { duration, integer, length, score } from "./format.js";
import { isReady, labelsOf, maxCharsOf, modelField, onModels } from "./models.js";
import { Problem } from "./problem.js";
import { offer } from "./snippets.js";

const DEBOUNCE_MS = 250;
const MAX_BARS = 5;
const CUT = "Only the beginning was read: the text is longer than the model's window";
// Problems that are over when the model is ready.
const PASSING = new Set(["unreachable", "cut", "not_ready", "model_not_ready"]);
const EXAMPLES = [
  "A film that stays with you for days.",
  "It broke after a week, and nobody answered my mails.",
];

let asked = new AbortController(); // the request whose answer is still wanted
let timer;
let trouble = null; // the problem that is shown

export function startClassify() {
  const text = byId("classify-text");
  text.addEventListener("input", () => later(DEBOUNCE_MS));
  byId("classify-model").addEventListener("change", () => later(0));
  byId("classify-examples").append("Try ", ...EXAMPLES.map((example, index) =>
    button(index ? "a complaint" : "praise", () => {
      text.value = example;
      later(0);
    })));
  onKey(askAgain);
  onModels(({ problem, isBack }) => {
    count();
    if (!text.value.trim()) drawEmpty(problem);
    else if (problem && problem.code !== trouble?.code) showTrouble(problem);
    else if (!problem && trouble && (isBack || isOver(trouble))) askAgain();
  });
  count();
}

// What was wrong is right again, it seems; what is shown stays until there is an answer.
function askAgain() {
  if (!trouble) return;
  trouble = null;
  later(0);
}

const isOver = ({ code }) => PASSING.has(code) && isReady("classify-model");

// Classify what stands there when typing has paused; what was asked before is of no use any more.
function later(delayMs) {
  clearTimeout(timer);
  asked.abort();
  const isOver = count();
  if (!byId("classify-text").value.trim() || isOver) {
    drawEmpty();
    return;
  }
  asked = new AbortController();
  timer = setTimeout(classify, delayMs, asked.signal);
}

// Show how long the text is, and return whether that is too long for the model.
function count() {
  const most = maxCharsOf("classify-model");
  const chars = length(byId("classify-text").value);
  const isOver = chars > most;
  const place = byId("classify-count");
  place.textContent = `${integer(chars)} of ${integer(most)} characters`;
  place.classList.toggle("bad", isOver);
  byId("classify-text").setAttribute("aria-invalid", isOver);
  return isOver;
}

async function classify(signal) {
  const body = { text: byId("classify-text").value, top_k: MAX_BARS, ...modelField("classify-model") };
  const request = { path: "/predict", body };
  const started = performance.now();
  let answer;
  try {
    answer = await askJson(request, { signal });
    if (signal.aborted) return;
  } catch (failure) {
    if (isAbort(failure)) return;
    if (!(failure instanceof Problem)) throw failure;
    drawEmpty(failure);
    return;
  }
  showTrouble(null);
  const isRegression = answer.problem_type === "regression";
  // Bars of numbers of any size are compared with the largest.
  const whole = isRegression ? Math.max(...answer.scores.map((one) => Math.abs(one.score))) || 1 : 1;
  drawBars(byId("classify-bars"), answer.scores.map((one) => ({
    label: one.label,
    share: Math.abs(one.score) / whole,
    text: score(one.score, isRegression),
  })));
  byId("classify-took").textContent =
    `${answer.model}, ${duration((performance.now() - started) / 1000)}`;
  const cut = answer.truncated ? CUT : "";
  byId("classify-cut").textContent = cut;
  byId("classify-said").textContent = [`${answer.label}, ${score(answer.score, isRegression)}`, cut]
    .filter(Boolean).join(". ");
  offer(byId("classify-copy"), request, "classification");
}

// The bars' places before there is an answer, so that the first one moves nothing.
function drawEmpty(problem = null) {
  const labels = labelsOf("classify-model").slice(0, MAX_BARS);
  drawBars(byId("classify-bars"), labels.map((label) => ({ label, share: 0, text: "–" })));
  for (const id of ["classify-took", "classify-cut", "classify-said", "classify-copy"]) byId(id).textContent = "";
  showTrouble(problem);
}

function showTrouble(problem) {
  trouble = problem;
  show(byId("classify-problem"), problem);
}
