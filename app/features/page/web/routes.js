// Which routes the service has: a tab whose route is missing is hidden, and what has no tab of its
// own, such as a task that was added, can be tried as JSON.

import { show } from "./alert.js";
import { askJson, isAbort } from "./api.js";
import { byId, make } from "./dom.js";
import { readDataUrl, takeFiles } from "./files.js";
import { duration } from "./format.js";
import { onModels } from "./models.js";
import { Problem } from "./problem.js";
import { offer } from "./snippets.js";

const OPENAPI = { method: "GET", path: "/openapi.json" };
const OF_TABS = { "tab-chat": ["/chat/stream"], "tab-search": ["/search", "/embed-batch"] };
// Not `/predict/NAME` of a Python model: its request is as its class says.
const HAS_TAB = /^\/(predict(-batch)?$|(chat|search|documents|embed-batch|jobs|keys|v[12])(-|\/|$))/;

const IMAGES = ["image", "images"]; // fields that chosen files are put into

let asked = new AbortController(); // the request whose answer is still wanted

// `hide` is called with the tabs that are of no use here. The document takes the service a moment the
// first time, so it is asked for behind the models.
export function startRoutes(hide) {
  let isAsked = false;
  onModels(() => {
    if (!isAsked) read(hide);
    isAsked = true;
  });
}

async function read(hide) {
  let document;
  try {
    document = await askJson(OPENAPI);
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    return; // whoever asks for a route is told why
  }
  const routes = withJson(document);
  const lacks = (tab) => OF_TABS[tab].some((path) => !(path in document.paths));
  hide([...Object.keys(OF_TABS).filter(lacks), ...(routes.length ? [] : ["tab-more"])].map(byId));
  const list = byId("more-route");
  list.replaceChildren(...routes.map(({ path }) => make("option", { value: path }, path)));
  const chosen = () => routes.find(({ path }) => path === list.value);
  list.addEventListener("change", () => begin(chosen()));
  byId("more-go").addEventListener("click", () => send(chosen()));
  takeFiles(byId("more"), byId("more-file"), (files) => putImages(chosen(), files));
  if (routes.length) begin(chosen());
}

// Return the routes without a tab that take JSON by POST, each with an example of its request.
function withJson({ paths, components }) {
  return Object.entries(paths).flatMap(([path, { post }]) => {
    const schema = post?.requestBody?.content?.["application/json"]?.schema;
    if (!schema || HAS_TAB.test(path) || path.includes("{")) return [];
    const { examples } = components.schemas[schema.$ref?.split("/").at(-1)] ?? schema;
    return [{ path, summary: post.summary ?? "", example: examples?.[0] ?? {} }];
  });
}

function begin({ summary, example }) {
  asked.abort();
  byId("more-summary").textContent = summary;
  byId("more-body").value = JSON.stringify(example, null, 2);
  byId("more-images").hidden = !imageField(example);
  show(byId("more-problem"), null);
  draw(null);
}

const imageField = (example) => IMAGES.find((name) => name in example);

// Put files into the request as `data:` URLs, in place of the images that it has.
async function putImages({ example }, files) {
  const field = imageField(example);
  if (!field) return;
  try {
    const images = await Promise.all(files.map(readDataUrl));
    const body = { ...parsed(example), [field]: field === "images" ? images : images[0] };
    byId("more-body").value = JSON.stringify(body, null, 2);
    show(byId("more-problem"), null);
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    show(byId("more-problem"), failure);
  }
}

// Return the request as it stands, or the example where that is no object in JSON.
function parsed(example) {
  try {
    return { ...example, ...JSON.parse(byId("more-body").value) };
  } catch {
    return example;
  }
}

function draw(answer, milliseconds) {
  byId("more-answer").hidden = answer === null;
  byId("more-answer").textContent = answer === null ? "" : JSON.stringify(answer, null, 1);
  byId("more-took").textContent = answer === null ? "" : duration(milliseconds / 1000);
}

async function send({ path }) {
  asked.abort();
  asked = new AbortController();
  let body;
  try {
    body = JSON.parse(byId("more-body").value);
  } catch {
    show(byId("more-problem"), { words: "This is no JSON." });
    return;
  }
  const request = { path, body };
  offer(byId("more-copy"), request, path);
  const began = performance.now();
  try {
    const answer = await askJson(request, { signal: asked.signal });
    draw(answer, performance.now() - began);
    show(byId("more-problem"), null);
  } catch (failure) {
    if (isAbort(failure)) return;
    if (!(failure instanceof Problem)) throw failure;
    draw(null);
    show(byId("more-problem"), failure);
  }
}
