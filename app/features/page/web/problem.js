// Errors: what the service said of them, in plain words.

import { byId } from "./dom.js";

const WORDS = {
  unreachable: "The service does not answer. It may have stopped, or the network is down.",
  cut: "The connection broke before the answer was whole.",
  unauthorized: "This service asks for an API key.",
  forbidden: "This key may not do that.",
  rate_limited: "That was one request too many for now.",
  overloaded: "The service is busy.",
  not_ready: "The service is not ready yet.",
  model_not_ready: "The model is still loading.",
  deadline_exceeded: "It took too long, and the service gave up.",
  internal_error: "Something broke inside the service. Its log has this request id.",
  not_found: "This service does not have that function.",
};

export class Problem extends Error {
  request; // what was asked, where it is about a request

  constructor({ code, status = 0, title, detail, request_id, errors = [] }, retryAfterS) {
    super(detail ?? title ?? WORDS[code]);
    Object.assign(this, { code, status, requestId: request_id, fields: errors, retryAfterS });
    this.detail = detail;
  }

  // What went wrong, in sentences.
  get words() {
    if (this.code === "invalid_request" && this.fields.length) {
      return this.fields.slice(0, 5).map(fieldWords).join(" ");
    }
    if (this.code === "unauthorized" && byId("key").value) return "This API key is not valid.";
    const said = WORDS[this.code] ?? this.detail ?? this.message;
    return this.retryAfterS ? `${said} Try again in ${this.retryAfterS} s.` : said;
  }
}

// Return a problem of what was typed or chosen, in a sentence.
export const fault = (detail) => new Problem({ code: "input", detail });

// "max_tokens: Input should be greater than or equal to 1."
function fieldWords({ loc, msg }) {
  const where = loc.slice(1).join(".");
  return `${where ? `${where}: ` : ""}${msg}.`;
}

// Read the problem of an answer that failed; a proxy's page in between is none.
export async function problemOf(response) {
  const retryAfterS = Number(response.headers.get("Retry-After")) || undefined;
  const requestId = response.headers.get("X-Request-ID");
  try {
    const body = await response.json();
    if (typeof body.code === "string") return new Problem(body, retryAfterS);
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
  }
  const detail = `Something on the way to the service answered with status ${response.status}.`;
  return new Problem({ code: "foreign", status: response.status, detail, request_id: requestId });
}
