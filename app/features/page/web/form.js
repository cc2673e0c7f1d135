// A form made of a JSON Schema: a field for each property, or one for a body that is no object.

import { make } from "./dom.js";
import { makeField } from "./fields.js";

export class SchemaForm {
  #fields = new Map(); // by their names; one without a name is the whole body

  // `schemas` are the document's components, which references lead to; `id` begins the fields' ids.
  constructor(schema, { id, schemas = {} }) {
    const whole = plain(schema, schemas);
    const properties = whole.type === "object" ? Object.entries(whole.properties ?? {}) : [];
    for (const [name, part] of properties) {
      const isRequired = whole.required?.includes(name) ?? false;
      this.#fields.set(name, makeField(plain(part, schemas), { id: `${id}-${name}`, name, isRequired }));
    }
    if (!properties.length) {
      const alone = whole.type === "string" && !whole.enum && !whole.format
        ? { widget: "text", ...whole } : whole;
      this.#fields.set(null, makeField(alone, { id: `${id}-body`, name: "Request", isRequired: true }));
    }
    const nodes = [...this.#fields.values()].map(({ node }) => node);
    this.node = make("div", { class: "form" }, ...nodes);
    this.fill(schema.examples?.[0] ?? whole.examples?.[0]);
  }

  // Put an example's values into the fields; those that it hasn't stay as they are.
  fill(example) {
    if (example === undefined) return;
    if (this.#fields.has(null)) this.#fields.get(null).write(example);
    else for (const [name, value] of Object.entries(example)) this.#fields.get(name)?.write(value);
  }

  // Return the request's body. Throws a Problem where a field can't be read.
  read() {
    if (this.#fields.has(null)) return this.#fields.get(null).read();
    const values = [...this.#fields].map(([name, field]) => [name, field.read()]);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  }

  // Take files that were dropped, where a field is for them.
  take(files) {
    [...this.#fields.values()].find((field) => field.take)?.take(files);
  }
}

// Return a schema whose reference is followed, and that may be null no more: an empty field is left
// out instead.
function plain(schema, schemas) {
  if (schema.$ref) {
    const { $ref, ...own } = schema;
    return plain({ ...schemas[$ref.split("/").at(-1)], ...own }, schemas);
  }
  const { anyOf, ...own } = schema;
  const others = anyOf?.filter(({ type }) => type !== "null") ?? [];
  return others.length === 1 ? plain({ ...others[0], ...own }, schemas) : schema;
}
