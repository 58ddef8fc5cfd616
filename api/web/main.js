// Which view stands at which address, the key, and the theme.

import { check, empty, field, h, problem, say } from "./elements.js";
import { isDark } from "./plots.js";
import { get, key, stored } from "./service.js";
import { datasetList, datasetView } from "./datasets.js";
import { healthView } from "./health.js";
import { jobList, jobView } from "./jobs.js";
import { modelList, modelView } from "./models.js";
import { compareView, versionView } from "./versions.js";
import { referenceView } from "./reference.js";
import { rolloutView } from "./rollout.js";

const VIEWS = [
  [/^\/datasets$/, datasetList],
  [/^\/datasets\/([^/]+)$/, datasetView],
  [/^\/jobs$/, jobList],
  [/^\/jobs\/([^/]+)$/, jobView],
  [/^\/models$/, modelList],
  [/^\/models\/([^/]+)$/, modelView],
  [/^\/models\/([^/]+)\/(\d+)$/, versionView],
  [/^\/compare\/([^/]+\/\d+(?:,[^/]+\/\d+)*)$/, compareView],
  [/^\/rollout(?:\/([^/]+)\/(\d+))?$/, rolloutView],
  [/^\/health$/, healthView],
  [/^\/reference$/, referenceView],
];

const content = document.getElementById("content");
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const address = decoded(location.hash.slice(1)) || "/";
  if (address.startsWith("key=")) {
    key.set(address.slice(4), false);
    history.replaceState(null, "", "#/");
    return show();
  }
  const [path] = address.split("?");
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = path.startsWith(link.getAttribute("href").slice(1));
    isHere ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  content.setAttribute("aria-busy", "true");
  let found;
  try {
    found = await viewAt(path, signal);
  } catch (error) {
    if (signal.aborted) return;
    found = error.status === 401 ? keyForm(error)
      : h("div", null, h("h1", null, "This did not work"), problem(error), h("p", null, h("button", { type: "button", onclick: () => show() }, "Try again")));
  }
  if (signal.aborted) return;
  content.replaceChildren(found);
  content.removeAttribute("aria-busy");
  const title = content.querySelector("h1");
  document.title = title ? `${title.textContent} · spnode` : "spnode";
  if (show.isLater) content.focus({ preventScroll: true });
  show.isLater = true;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function viewAt(path, signal) {
  if (path === "/") return start(signal);
  for (const [pattern, view] of VIEWS) {
    const match = path.match(pattern);
    if (match) return view(match.slice(1), signal);
  }
  return empty("There is no such view", h("p", null, h("a", { href: "#/" }, "To the start")));
}

/** Models where there are any; else what to do first. */
async function start(signal) {
  const [models, jobs] = await Promise.all([get("/v1/models?limit=1", { signal }), get("/v1/jobs?limit=1", { signal })]);
  if (models.data.length) return modelList([], signal);
  if (jobs.data.length) return jobList([], signal);
  return datasetList([], signal);
}

function keyForm(error) {
  const input = h("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const [box, keep] = check("Keep it on this computer");
  const trouble = h("div", null, key.get() && error ? problem(error) : null);
  return h("div", null,
    h("h1", null, "An API key"),
    h("p", null, "The service answers those who have a key. ", h("code", null, "./spnode up"), " and ", h("code", null, "./spnode status"),
      " print a link that has it, and where its file lies; ", h("code", null, "./spnode keys create"), " makes others."),
    trouble,
    h("form", { onsubmit: (event) => {
      event.preventDefault();
      const given = input.value.trim();
      const fault = key.fault(given);
      if (fault) return trouble.replaceChildren(problem({ message: fault }));
      key.forget();
      key.set(given, keep.checked);
      show();
    } }, field("Key", input, "It begins with spn_"), box,
      h("div", { class: "row" }, h("button", null, "Use it"), key.get() && h("button", { type: "button", class: "quiet", onclick: () => {
        key.forget();
        show();
      } }, "Forget the one that is kept"), error ? null : h("button", { type: "button", class: "quiet", onclick: () => show() }, "Cancel"))));
}

document.getElementById("key").addEventListener("click", () => {
  leaving.abort();
  content.removeAttribute("aria-busy");
  content.replaceChildren(keyForm(null));
  content.querySelector("input").focus();
});

// What follows # is the view: the link to the content must not change it.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});

const themes = document.getElementById("theme");
const named = () => (themes.textContent = isDark() ? "Light" : "Dark");
themes.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  stored(() => localStorage.setItem("spnode-theme", theme));
  named();
  say(`${theme === "dark" ? "Dark" : "Light"} theme`);
  document.dispatchEvent(new Event("themechange"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  named();
  document.dispatchEvent(new Event("themechange"));
});
named();
// A link to the view that is shown changes no address, and asks for it anew.
document.querySelector("nav").addEventListener("click", (event) => {
  if (event.target.hash && event.target.hash === location.hash) show();
});
// A file that misses its place would take the browser away from the page.
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
}
window.addEventListener("hashchange", show);
show();
