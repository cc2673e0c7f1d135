// The tab of Python models and graphs: a form made of the schema of the model that is chosen.

import { drawJson } from "./drawings.js";
import { SchemaForm } from "./form.js";
import { onModels } from "./models.js";
import { Panel } from "./panel.js";

export const TASK = "python";
export const pathOf = (name) => `/predict/${name}`;

// Return a schema as text, with all that it refers to: a reference stays the same when it changes.
function written(schema, schemas, seen = new Set()) {
  return JSON.stringify(schema, (key, value) => {
    if (key !== "$ref" || seen.has(value)) return value;
    seen.add(value);
    return written(schemas[value.split("/").at(-1)], schemas, seen);
  });
}

// Return what is to be called with the OpenAPI document, each time that it was read.
export function startPython() {
  const panel = new Panel({
    id: "python", tab: "Your models", title: "Ask a model of your own", task: TASK, action: "Send",
  });
  let openapi = { paths: {}, components: {} };
  let shown; // the schema that the form was made of

  function begin() {
    const path = pathOf(panel.models.value);
    const schema = openapi.paths[path]?.post.requestBody.content["application/json"].schema;
    const whole = schema && written(schema, openapi.components.schemas);
    if (!schema || whole === shown) return;
    shown = whole;
    const form = new SchemaForm(schema, { id: "python", schemas: openapi.components.schemas });
    // One that isn't loaded has no form, and is asked all the same: the service says why.
    const request = (sent) => ({ path: pathOf(panel.models.value), body: sent });
    panel.begin({ form, request, draw: drawJson });
  }

  panel.models.addEventListener("change", begin);
  onModels(begin); // which one is chosen may have changed
  return (read) => {
    openapi = read;
    begin();
  };
}
