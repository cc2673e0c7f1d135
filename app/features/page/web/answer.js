// One answer of the conversation: grows token by token, tells how quick it came and how it ended.

import { show } from "./alert.js";
import { make } from "./dom.js";
import { duration, number, plural } from "./format.js";
import { showMarkdown } from "./markdown.js";
import { offer } from "./snippets.js";

const ENDS = { stop: "", length: "cut at the limit of tokens", stopped: "stopped" };

export class Answer {
  #body = make("div", { class: "body" });
  #problem = make("div");
  #started = performance.now();
  #firstAt = null;
  #lastAt = null;
  #frame = null; // in which it is drawn next
  text = "";
  tokens = 0;

  // `onDraw` is called with the figures so far when what is shown has grown. They stand elsewhere:
  // under a text that grows they would jump with each line.
  constructor(onDraw) {
    this.onDraw = onDraw;
    this.node = make("article", { class: "message answer", "aria-label": "Answer" },
      this.#body, this.#problem);
  }

  add(token) {
    this.#lastAt = performance.now();
    this.#firstAt ??= this.#lastAt;
    this.text += token;
    this.tokens += 1;
    this.#frame ??= requestAnimationFrame(() => this.#draw()); // however quick the tokens are
  }

  // `reason` is the service's finish_reason, or "stopped"; `usage` its own count, if it has one.
  end({ reason, usage, model, request }) {
    this.#draw();
    this.tokens = usage?.completion_tokens ?? this.tokens;
    const said = [model, this.#speed(), plural(this.tokens, "token"), ENDS[reason] ?? reason];
    const copy = make("span", { class: "copy" });
    offer(copy, request, "chat");
    this.node.append(make("div", { class: "foot" },
      make("span", { class: "note" }, said.filter(Boolean).join(" · ")), copy));
    this.onDraw("");
  }

  fail(problem, retry) {
    this.#draw();
    show(this.#problem, problem, retry);
    this.onDraw("");
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    showMarkdown(this.#body, this.text);
    this.onDraw(this.#speed());
  }

  #speed() {
    if (this.#firstAt === null) return "";
    const first = `first token after ${duration((this.#firstAt - this.#started) / 1000)}`;
    const seconds = (this.#lastAt - this.#firstAt) / 1000;
    if (this.tokens < 2 || !seconds) return first;
    return `${first} · ${number((this.tokens - 1) / seconds)} tokens/s`;
  }
}
