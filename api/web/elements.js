// Elements of the page, made without markup in strings: nothing that the service sends
// is ever read as HTML.

/** An element; attributes that are functions are listeners. */
export function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else made.setAttribute(name, value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A number as a person would write it. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** Anything else that the service sends, in a line. */
export function plain(value) {
  return value !== null && typeof value === "object" ? JSON.stringify(value) : number(value);
}

export function percent(value) {
  if (value === null || value === undefined) return "–";
  const whole = Math.round(100 * value);
  return `${number(whole >= 100 ? whole : 100 * value, 2)} %`;
}

export function bytes(value) {
  for (const unit of ["B", "kB", "MB"]) {
    if (value < 1000) return `${number(value, 3)} ${unit}`;
    value /= 1000;
  }
  return `${number(value, 3)} GB`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${number(seconds / 3600, 2)} h`;
}

/** When something was, with the exact instant in its title; it is kept up to date. */
export function when(text) {
  return text ? h("time", { datetime: text, title: text }, ago(text)) : "–";
}

function ago(text) {
  const past = (Date.now() - new Date(text)) / 1000;
  return past < 5 ? "just now" : `${duration(past)} ago`;
}

setInterval(() => {
  for (const time of document.querySelectorAll("time")) time.textContent = ago(time.dateTime);
}, 5000);

/** A table that scrolls sideways by itself; a column is [title, kind]. */
export function table(label, columns, rows) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((row) => h("tr", null, row.map((cell, at) => h("td", { class: columns[at][1] }, cell))));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", null, h("thead", null, h("tr", null, head)), h("tbody", null, body)),
  );
}

/** Facts, large and side by side. */
export function tiles(facts) {
  return h("dl", { class: "tiles" }, facts.map(([name, value]) => h("div", { class: "tile" }, h("dt", null, name), h("dd", null, value))));
}

let labels = 0;

/** A control under its label. */
export function field(label, control, hint) {
  control.id ||= `field-${++labels}`;
  const said = hint && h("small", { class: "soft", id: `${control.id}-hint` }, hint);
  if (said) control.setAttribute("aria-describedby", said.id);
  return h("div", null, h("label", { for: control.id }, label), control, said);
}

export function check(label, attributes) {
  const control = h("input", { type: "checkbox", ...attributes });
  return [h("label", { class: "check" }, control, label), control];
}

export function choice(options, chosen) {
  return h("select", null, options.map((option) => {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    return h("option", { value, selected: value === chosen }, text);
  }));
}

/** An error as the service words it, with the places in the request that it names. */
export function problem(error) {
  const more = (error.errors || []).filter((each) => each.pointer);
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", null, error.message),
    more.length > 1 && h("ul", null, more.map((each) => h("li", null, h("code", null, each.pointer), ` ${each.detail}`))),
    error.requestId && h("div", { class: "soft" }, `request ${error.requestId}`),
  );
}

/**
 * Run what a button does: disabled meanwhile, and its error beside it.
 *
 * Of a button that submits a form, the form's own listener calls `act`.
 */
export function action(label, run, attributes = {}) {
  const place = h("div", null);
  async function act() {
    const hadFocus = document.activeElement === button;
    button.disabled = true;
    place.replaceChildren();
    try {
      await run();
    } catch (error) {
      place.replaceChildren(problem(error));
    } finally {
      button.disabled = false;
      // Which it lost by that; a keyboard would begin anew at the top.
      if (hadFocus && document.activeElement === document.body) button.focus({ preventScroll: true });
    }
  }
  const button = h("button", { type: "button", ...attributes, onclick: attributes.type === "submit" ? null : act }, label);
  return { button, place, act };
}

/** Items a page at a time: `draw` makes what shows those that are there so far. */
export function paged(ask, draw) {
  const place = h("div", null);
  const trouble = h("div", null);
  let items = [], next = null, turn = 0, failures = 0, drawnText = null;
  const older = h("button", { type: "button", class: "quiet", onclick: () => more() }, "Older ones");
  function show() {
    older.hidden = !next;
    trouble.replaceChildren();
    const text = JSON.stringify(items);
    if (text === drawnText) return;
    drawnText = text;
    // What had the focus has it again, and the table stays where it was pushed to.
    const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const left = place.querySelector(".scroll")?.scrollLeft;
    place.replaceChildren(draw(items));
    if (left) place.querySelector(".scroll")?.scrollTo({ left });
    if (focused) place.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }
  async function load() {
    const mine = ++turn;
    const page = await ask(null);
    if (mine !== turn) return;
    [items, next, failures] = [page.data, page.next, 0];
    show();
  }
  async function quietly(act, most = 0) {
    try {
      await act();
    } catch (error) {
      if (error.name !== "AbortError" && (++failures > most || error.status >= 400)) trouble.replaceChildren(problem(error));
    }
  }
  const more = () => quietly(async () => {
    const [mine, from] = [++turn, next];
    const page = await ask(from);
    if (mine !== turn || from !== next) return;
    [items, next] = [[...items, ...page.data], page.next];
    show();
  });
  /**
   * The newest again, before those that are there.
   *
   * What lies behind the last of them is kept, and with it how far was read. Where that one
   * is not known, as after more than a page of new ones, there would be a gap: all is anew.
   */
  const refresh = () => quietly(async () => {
    const mine = turn;
    const page = await ask(null);
    if (mine !== turn) return;
    const last = page.next ? items.findIndex((each) => each.id === page.data.at(-1).id) : -1;
    const kept = last < 0 ? [] : items.slice(last + 1);
    if (!kept.length) next = page.next;
    [items, failures] = [[...page.data, ...kept], 0];
    show();
    // By itself: a moment without an answer is no news.
  }, 1);
  const element = h("div", null, trouble, place, h("p", null, older));
  return { element, load, again: () => quietly(load), refresh };
}

export function empty(title, ...children) {
  return h("div", { class: "empty" }, h("h2", null, title), children);
}

/** Say something in passing, to screen readers too. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => place.classList.remove("shown"), 3000);
}

/** Ask before something that cannot be undone, or for a word; null is no. */
export function confirmed(question, { label = "Yes", word = null } = {}) {
  return new Promise((resolve) => {
    const input = word && h("input", { required: true, maxlength: 1000 });
    const dialog = h("dialog", { "aria-label": question, onclose: () => {
      resolve(dialog.returnValue === "yes" ? (input ? input.value : "yes") : null);
      dialog.remove();
    } },
      h("form", { method: "dialog" },
        h("p", null, question),
        input && field(word, input),
        h("div", { class: "row" },
          h("button", { value: "yes", class: word ? null : "danger" }, label),
          h("button", { value: "no", class: "quiet", formnovalidate: true, autofocus: !input }, "Cancel"))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

const STATES = { queued: "soft", running: "warn", succeeded: "good", failed: "bad", cancelled: "soft" };

export function state(text) {
  return h("span", { class: `chip ${STATES[text] || "soft"}` }, text);
}

/** The text of a place to be copied, and the button that does it. */
export function copied(place, label = "Copy") {
  return h("button", { type: "button", class: "quiet", onclick: async () => {
    try {
      await navigator.clipboard.writeText(place.textContent);
      say("Copied");
    } catch {
      // Browsers have no clipboard for pages without TLS, but for this machine's own.
      getSelection().selectAllChildren(place);
      say("Selected: copy it by Ctrl-C");
    }
  } }, label);
}
