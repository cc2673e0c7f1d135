// Which routes the service has: a tab is shown if there are routes and models for it, and what has
// no tab of its own, such as a task that was added, can be tried as JSON.

import { show } from "./alert.js";
import { askJson, isAbort } from "./api.js";
import { byId, make } from "./dom.js";
import { readDataUrl, takeFiles } from "./files.js";
import { duration } from "./format.js";
import { isServed, onModels } from "./models.js";
import { Problem } from "./problem.js";
import { pathOf, TASK as PYTHON } from "./python.js";
import { offer } from "./snippets.js";
import { TASKS } from "./tasks.js";

const OPENAPI = { method: "GET", path: "/openapi.json" };
// What a tab needs: models of a task, and routes where a service can be without them.
const TABS = {
  classify: { task: "text-classification" },
  chat: { task: "chat", routes: ["/chat/stream"] },
  search: { task: "embedding", routes: ["/search", "/embed-batch"] },
  python: { task: PYTHON },
  ...Object.fromEntries(TASKS.map(({ id, task, path }) => [id, { task, routes: [path] }])),
};
const OWN_PATHS = new Set(TASKS.map(({ path }) => path));
const HAS_TAB = /^\/(predict(-batch)?$|(chat|search|documents|embed-batch|jobs|keys|v[12])(-|\/|$))/;

const IMAGES = ["image", "images"]; // fields that chosen files are put into

let asked = new AbortController(); // the request whose answer is still wanted
let openapi = null; // the document as it was read last
let reading = null;
let routes = []; // of the tab More

// `use` is called with which tabs are of use here, `onDocument` with the OpenAPI document. It takes the
// service a moment the first time, so it is asked for behind the models.
export function startRoutes(use, onDocument) {
  const chosen = () => routes.find(({ path }) => path === byId("more-route").value);
  byId("more-route").addEventListener("change", () => begin(chosen()));
  byId("more-go").addEventListener("click", () => send(chosen()));
  takeFiles(byId("more"), byId("more-file"), (files) => putImages(chosen(), files));
  onModels(async ({ models, problem, wasDoubted }) => {
    if (problem) return;
    use(uses());
    // A class that was loaded anew may have another schema.
    const isNew = ({ task, name, state }) => task === PYTHON && state === "ready"
      && (wasDoubted || !(pathOf(name) in (openapi?.paths ?? {})));
    if ((!openapi || models.some(isNew)) && (await (reading ??= read()))) onDocument(openapi);
    if (!openapi) return;
    listRoutes();
    use(uses());
  });
}

// Return which tabs are of use. Before the document is read, its routes are taken to be there.
function uses() {
  const has = ({ task, routes: needed = [] }) =>
    isServed(task) && needed.every((path) => !openapi || path in openapi.paths);
  const tabs = Object.entries(TABS).map(([name, needs]) => [name, has(needs)]);
  return Object.fromEntries(openapi ? [...tabs, ["more", routes.length > 0]] : tabs);
}

async function read() {
  try {
    openapi = await askJson(OPENAPI);
    return true;
  } catch (failure) {
    if (!(failure instanceof Problem)) throw failure;
    return false; // whoever asks for a route is told why
  } finally {
    reading = null;
  }
}

function listRoutes() {
  const list = byId("more-route");
  const before = list.value;
  routes = withJson(openapi);
  list.replaceChildren(...routes.map(({ path }) => make("option", { value: path }, path)));
  list.value = routes.some(({ path }) => path === before) ? before : routes[0]?.path;
  if (list.value && list.value !== before) begin(routes.find(({ path }) => path === list.value));
}

// Return the routes without a tab that take JSON by POST and have a model that can answer, each with
// an example of its request.
function withJson({ paths, components }) {
  return Object.entries(paths).flatMap(([path, { post }]) => {
    const schema = post?.requestBody?.content?.["application/json"]?.schema;
    const tasks = post?.["x-tasks"];
    const isOwn = OWN_PATHS.has(path) || HAS_TAB.test(path) || isPython(path, tasks);
    if (!schema || isOwn || path.includes("{")) return [];
    if (tasks && !tasks.some(isServed)) return [];
    const { examples } = components.schemas[schema.$ref?.split("/").at(-1)] ?? schema;
    return [{ path, summary: post.summary ?? "", example: examples?.[0] ?? {} }];
  });
}

const isPython = (path, tasks) => tasks?.includes(PYTHON) && path.split("/").length === 3
  && path.startsWith(pathOf(""));

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
