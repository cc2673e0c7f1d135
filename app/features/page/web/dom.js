// Makes and finds elements. Text is only ever set as text: nothing here parses HTML.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A button that does something; `type` keeps it from sending a form.
export function button(text, action, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", action);
  return made;
}

// Say something to a screen reader, wherever its user is; the same words again are said again.
export function announce(text) {
  const place = byId("announce");
  place.textContent = "";
  requestAnimationFrame(() => (place.textContent = text));
}
