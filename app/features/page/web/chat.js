// The conversation: sends it whole each time, shows the answer as it comes, and can stop it.

import { show } from "./alert.js";
import { ask, isAbort, linesOf, onKey, told } from "./api.js";
import { Answer } from "./answer.js";
import { button, byId, make } from "./dom.js";
import { modelField, onModels } from "./models.js";
import { Problem } from "./problem.js";

const NUMBERS = ["max_tokens", "temperature", "top_p", "seed"];
const EXAMPLES = ["What is the capital of France?", "Write a short poem about the sea."];
const WIDE = "(min-width: 60rem)"; // as in narrow.css
const NEAR_PX = 40; // from the end, within which the view follows the answer

let exchanges = []; // pairs of a question and its answer, as the service takes them
let running = null; // the AbortController of the answer that is coming
let isFollowing = true; // the end of the conversation, unless its reader has scrolled up

export function startChat() {
  const text = byId("chat-text");
  byId("chat-options").open = matchMedia(WIDE).matches;
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sendTyped();
  });
  text.addEventListener("keydown", (event) => {
    // A key that chooses a character in an input method sends nothing.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    sendTyped();
  });
  byId("chat").addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  byId("chat-stop").addEventListener("click", stop);
  byId("chat-new").addEventListener("click", startAnew);
  byId("chat-examples").append(...EXAMPLES.map((example) => button(example, () => send(example))));
  // Where models are known the list says that nobody answers, and a question that is asked does.
  onModels(({ models, problem }) => show(byId("chat-problem"), models.length ? null : problem));
  onKey(() => show(byId("chat-problem"), null));
  const place = byId("chat-messages");
  place.addEventListener("scroll", () => {
    isFollowing = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_PX;
  });
}

function stop() {
  if (!running) return;
  running.abort(); // the service notices, and ends the generation
  byId("chat-text").focus();
}

function startAnew() {
  stop();
  exchanges = [];
  byId("chat-messages").replaceChildren(byId("chat-empty"));
  byId("chat-empty").hidden = false;
  byId("chat-text").focus();
}

function sendTyped() {
  const text = byId("chat-text").value.trim();
  if (!text || running) return;
  byId("chat-text").value = "";
  send(text);
}

async function send(text) {
  if (running) return;
  const asked = { role: "user", content: text };
  const request = { path: "/chat/stream", body: bodyOf([...exchanges.flat(), asked]), streams: true };
  const question = make("article", { class: "message question", "aria-label": "You", dir: "auto" },
    text);
  const answer = new Answer(follow);
  const model = byId("chat-model").value;
  begin(question, answer.node);
  let end = { reason: "stopped" };
  let failure = null;
  try {
    end = await read(request, answer, running.signal);
  } catch (thrown) {
    if (thrown instanceof Problem) failure = thrown;
    else if (!isAbort(thrown)) throw thrown;
  } finally {
    running = null;
    showBusy(false);
  }
  if (!question.isConnected) return; // a new chat has begun meanwhile
  const exchange = [asked, { role: "assistant", content: answer.text }];
  if (answer.text) exchanges.push(exchange);
  byId("chat-said").textContent = failure ? "" : `Answer: ${answer.text}`;
  if (!failure) {
    answer.end({ ...end, model, request });
    return;
  }
  answer.fail(failure, button("Try again", () => {
    if (running) return;
    exchanges = exchanges.filter((each) => each !== exchange);
    question.remove();
    answer.node.remove();
    send(text);
  }));
}

function begin(...nodes) {
  running = new AbortController();
  isFollowing = true;
  showBusy(true);
  byId("chat-said").textContent = "The model is answering.";
  byId("chat-empty").hidden = true;
  byId("chat-messages").append(...nodes);
  follow("Waiting for the first token");
  byId("chat-text").focus();
}

// Hand the tokens to the answer; return how it ended.
async function read(request, answer, signal) {
  const response = await ask(request, { signal, accept: "application/x-ndjson" });
  for await (const line of linesOf(response, request)) {
    const said = JSON.parse(line);
    if (said.error) throw told(new Problem(said.error), request);
    if (said.token) answer.add(said.token); // it is empty in heartbeats and in the last line
    if (said.done) return { reason: said.finish_reason, usage: said.usage };
  }
  throw told(new Problem({ code: "cut" }), request);
}

function bodyOf(conversation) {
  const system = byId("chat-system").value.trim();
  const messages = system ? [{ role: "system", content: system }, ...conversation] : conversation;
  const body = { messages, ...modelField("chat-model") };
  for (const name of NUMBERS) {
    const { valueAsNumber } = byId(`chat-${name}`);
    if (!Number.isNaN(valueAsNumber)) body[name] = valueAsNumber;
  }
  const end = byId("chat-stop_text").value;
  if (end) body.stop = end;
  return body;
}

function showBusy(isBusy) {
  byId("chat-send").hidden = isBusy;
  byId("chat-stop").hidden = !isBusy;
  byId("chat-help").hidden = isBusy;
  byId("chat-live").hidden = !isBusy;
}

// The answer has grown: tell its figures, and keep its end in view.
function follow(figures) {
  byId("chat-live").textContent = figures;
  const place = byId("chat-messages");
  if (isFollowing) place.scrollTop = place.scrollHeight;
}
