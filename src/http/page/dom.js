// Making and changing elements. All text goes in as text: nothing that a message carries is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

/** Changes text only where it differs, so that a selection and a screen reader's place survive. */
export function put(element, text) {
  const wanted = String(text);
  if (element.firstChild?.nodeType === Node.TEXT_NODE && element.childNodes.length === 1) {
    if (element.firstChild.data !== wanted) element.firstChild.data = wanted;
  } else {
    element.textContent = wanted;
  }
}

/** Sets attributes where they differ; null removes one. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

/** A body of rows that are made once and used again: `make()` gives an element, `show(element, item)` changes it. */
export function rows(body, make, show) {
  return (items) => {
    while (body.children.length > items.length) body.lastElementChild.remove();
    while (body.children.length < items.length) body.append(make());
    items.forEach((item, at) => show(body.children[at], item, at));
  };
}

/** A row with a heading and cells of these classes. */
export function row(...classes) {
  return el(
    "tr",
    {},
    ...classes.map((name, at) => (at === 0 ? el("th", { scope: "row", class: name }) : el("td", { class: name }))),
  );
}

/** Puts a text into each cell of a row; undefined leaves a cell alone, null is not known. */
export function cells(tr, texts) {
  texts.forEach((text, at) => text !== undefined && put(tr.children[at], text ?? "–"));
}

/** Shows an explanation instead of a table, or the table again. */
export function explain(note, table, text) {
  note.hidden = text === null;
  table.hidden = text !== null;
  if (text !== null) put(note, text);
}

/** A button that copies what `text()` gives, and says so. */
export function copyButton(label, text) {
  const button = el("button", { type: "button", class: "copy" }, label);
  let timer = 0;
  button.addEventListener("click", async () => {
    put(button, (await copy(text())) ? "Copied" : "Select and copy by hand");
    clearTimeout(timer);
    timer = setTimeout(() => put(button, label), 2000);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Only secure origins have the clipboard's interface; a page over plain HTTP from elsewhere has the old command.
    const area = el("textarea", { class: "hidden", readonly: true, "aria-hidden": "true" });
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

/** One tooltip for all: shown by pointer and by keyboard, gone with Escape. */
export function tooltips() {
  const tip = byId("tip");
  let owner = null;
  const hide = () => {
    owner?.removeAttribute("aria-describedby");
    owner = null;
    tip.hidden = true;
  };
  const place = () => {
    const at = owner.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left), document.documentElement.clientWidth - tip.offsetWidth - 8);
    const fits = at.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${fits ? at.bottom + 6 : at.top - tip.offsetHeight - 6}px`;
  };
  const show = (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) {
      if (event.type === "pointerover" && event.target !== tip && owner !== document.activeElement) hide();
      return;
    }
    owner = target;
    put(tip, target.dataset.tip);
    tip.hidden = false;
    target.setAttribute("aria-describedby", "tip");
    place();
  };
  for (const kind of ["pointerover", "focusin", "click"]) document.addEventListener(kind, show);
  document.addEventListener("focusout", hide);
  // Focus itself scrolls: what it leads to must stay explained.
  document.addEventListener("scroll", () => owner && place(), { passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
