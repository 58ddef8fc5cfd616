// A rollout as it is asked for: sliders, times, the reference, and the same as code.

import { check, copied, empty, field, h, number, paged, problem, table } from "./elements.js";
import { overlay, systemOf } from "./overlay.js";
import { curves, heatMap, range, resampled } from "./plots.js";
import { ask, get } from "./service.js";
import { asCurl, asJax, asPython } from "./snippets.js";

const MANY = 16;
const STEPS = 1000;

export async function rolloutView([model, version], signal) {
  if (!model) return chooser(signal);
  const base = `/v1/models/${encodeURIComponent(model)}/versions/${version}`;
  const [record, card] = await Promise.all([get(base, { signal }), get(`${base}/card`, { signal })]);
  const { signature } = record;
  const [datasets, system] = await Promise.all([usable(signature, card.dataset && card.dataset.id, signal), systemOf(signature, signal)]);
  return panel(record, datasets, system, signal);
}

async function chooser(signal) {
  const list = paged((after) => get(`/v1/models?${page(50, after)}`, { signal }), (models) => (models.length ? modelTable(models)
    : empty("No model yet", h("p", null, "A training makes one: choose a ", h("a", { href: "#/datasets" }, "dataset"), "."))));
  await list.load();
  const name = h("input", { required: true, spellcheck: "false" });
  const trouble = h("div", null);
  const named = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    trouble.replaceChildren();
    try {
      const found = await get(`/v1/models/${encodeURIComponent(name.value.trim())}`, { signal });
      const version = usual(found);
      if (!version) throw new Error(`${found.name} has no version; a training makes one`);
      location.hash = `#/rollout/${found.name}/${version}`;
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(problem(error));
    }
  } }, h("div", { class: "row end" }, field("A model by its name", name), h("button", { class: "quiet" }, "Roll it out")), trouble);
  return h("div", null, h("h1", null, "Rollout"), named, list.element);
}

const page = (limit, after) => new URLSearchParams({ limit, ...(after && { after }) });
const usual = (model) => model.aliases.champion || model.latest;

function modelTable(models) {
  return table("Models", [["model"], ["version"]], models.map((model) => (usual(model)
    ? [h("a", { href: `#/rollout/${model.name}/${usual(model)}` }, model.name), `${usual(model)}${model.aliases.champion ? ", the champion" : ", the newest"}`]
    : [model.name, h("span", { class: "soft" }, "none yet")])));
}

/** Datasets with the states of a model, the one that it was trained on first; older ones are read when asked for. */
async function usable({ states }, trainedOn, signal) {
  const fits = (each) => states.every((name) => name in each.summary.states);
  const read = (after) => get(`/v1/datasets?${page(100, after)}`, { signal });
  // What it was trained on may be an old one, or deleted.
  const [newest, own] = await Promise.all([read(null), trainedOn && get(`/v1/datasets/${encodeURIComponent(trainedOn)}`, { signal }).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  })]);
  const all = own ? [own] : [];
  let next = null;
  function take(found) {
    next = found.next;
    const fresh = found.data.filter((each) => fits(each) && !all.some(({ id }) => id === each.id));
    all.push(...fresh);
    return fresh;
  }
  take(newest);
  return {
    all, own,
    hasOlder: () => Boolean(next),
    /** The next that fit, of as many pages as it takes; a thousand datasets are looked at in one go. */
    async older() {
      let fresh = [];
      for (let pages = 0; next && !fresh.length && pages < 10; pages++) fresh = take(await read(next));
      return fresh;
    },
    async byId(id) {
      const known = all.find((each) => each.id === id);
      if (known) return known;
      const found = await get(`/v1/datasets/${encodeURIComponent(id)}`, { signal });
      const missing = states.filter((name) => !(name in found.summary.states));
      if (missing.length) throw new Error(`${found.name || id} has no ${missing.slice(0, 8).join(", ")}; expected a dataset with the states of the model`);
      all.push(found);
      return found;
    },
  };
}

function panel(record, datasets, system, signal) {
  const { signature } = record;
  const { domain } = signature;
  const sets = {
    x0: sliders(signature.states, signature.units, domain.lower, domain.upper),
    parameters: sliders(signature.parameters, [], domain.parameters_lower, domain.parameters_upper),
    controls: sliders(signature.controls, [], domain.controls_lower, domain.controls_upper),
  };
  const isField = signature.states.length > MANY;
  const first = firstTime(record, datasets.own);
  const stop = h("input", { value: domain.end, class: "number", inputmode: "decimal" });
  const count = h("input", { type: "number", value: 200, min: 2, max: 5000, class: "number" });
  const [logTimeBox, logTime] = check("logarithmic time", { checked: domain.end / first > 1e3 });
  const [logBox, logY] = check("logarithmic states", {});
  const [intervalBox, intervals] = check("prediction intervals, 80 %", {});
  const [spreadBox, spread] = check("spread of the members", {});
  const told = h("p", { class: "soft" }, "Asking …");
  const place = h("div", { class: "grid" });
  const trouble = h("div", null);
  const reference = overlay({ datasets, system, sets, signature, changed, drawn: () => draw(), signal });
  const code = h("pre", { tabindex: "0" });
  let kind = asPython, asked = null, answered = null, isBusy = false, isStale = false, knock = null;
  const tabs = [["Python", asPython], ["curl", asCurl], ["JAX", asJax]].map(([label, made]) =>
    h("button", { type: "button", "aria-pressed": String(made === kind), onclick: (event) => {
      kind = made;
      for (const tab of tabs) tab.setAttribute("aria-pressed", String(tab === event.target));
      code.textContent = asked ? kind(asked) : "";
    } }, label));

  function request() {
    const end = Number(stop.value);
    const times = logTime.checked
      ? { start: Math.min(first, end / 10), stop: end, count: Number(count.value), spacing: "log" }
      : { start: 0, stop: end, count: Number(count.value), spacing: "linear" };
    const body = { model: `${record.model}/${record.number}`, x0: sets.x0.values(), times };
    if (signature.parameters.length) body.parameters = sets.parameters.values();
    if (signature.controls.length) Object.assign(body, reference.controls() || { controls: [sets.controls.values()], control_times: [0] });
    if (intervals.checked) body.intervals = 0.8;
    if (spread.checked) body.spread = true;
    return body;
  }

  // One request at a time: what changes meanwhile is asked for when it has been answered.
  async function changed() {
    isStale = true;
    if (isBusy) return;
    isBusy = true;
    while (isStale && !signal.aborted) {
      isStale = false;
      asked = request();
      code.textContent = kind(asked);
      const began = performance.now();
      try {
        answered = await ask("POST", "/v1/rollout", asked, { signal });
        const took = Math.round(performance.now() - began);
        told.textContent = `${answered.x.length} times, answered in ${took} ms`;
        trouble.replaceChildren(...(answered.warnings || []).map((each) => h("div", { class: "notice" }, each)));
        place.classList.remove("old");
        draw();
        reference.follow(asked);
      } catch (error) {
        if (signal.aborted) return;
        trouble.replaceChildren(problem(error));
        told.textContent = answered ? "What is drawn is of the request before." : "";
        place.classList.add("old");
        clearTimeout(knock);
        if (error.retryAfter) knock = setTimeout(() => signal.aborted || changed(), 1000 * error.retryAfter);
      }
    }
    isBusy = false;
  }

  function draw() {
    const found = reference.shown(asked);
    if (isField) return drawFields(place, answered, found, signature);
    const x = { label: signature.time_unit ? `time, ${signature.time_unit}` : "time", log: logTime.checked };
    signature.states.forEach((name, at) => {
      const column = (rows) => rows.map((row) => row[at]);
      const each = [];
      if (answered.lower) each.push({ label: "80 %", x: answered.times, lower: column(answered.lower), upper: column(answered.upper), color: 0 });
      if (answered.spread) {
        const [mean, width] = [column(answered.x), column(answered.spread)];
        each.push({ label: "±2 deviations", x: answered.times, lower: mean.map((value, i) => value - 2 * width[i]), upper: mean.map((value, i) => value + 2 * width[i]), color: 2 });
      }
      each.push({ label: "surrogate", x: answered.times, y: column(answered.x), color: 0 });
      if (found) each.push({ label: "reference", x: found.times, y: column(found.states), dash: [5, 5], color: 1 });
      const figure = place.children[at];
      if (figure && figure.settings.x.log === x.log && figure.settings.y.log === logY.checked) return figure.change(each);
      const unit = (signature.units || [])[at];
      const settings = { x, y: { log: logY.checked }, height: 200 };
      const made = curves(unit ? `${name}, ${unit}` : name, each, settings);
      made.settings = settings;
      figure ? figure.replaceWith(made) : place.append(made);
    });
  }

  for (const set of Object.values(sets)) set.listen(changed);
  sets.controls.listen(() => {
    reference.leave();
    changed();
  });
  for (const control of [stop, count, logTime, intervals, spread]) control.addEventListener("change", changed);
  logY.addEventListener("change", () => answered && draw());
  reference.begin();
  return h("div", null,
    h("h1", null, `Rollout of ${record.model}/${record.number}`),
    h("p", null, h("a", { href: `#/models/${record.model}/${record.number}` }, "its errors and certificate")),
    h("div", { class: "columns" },
      h("div", null, h("form", { onsubmit: (event) => event.preventDefault() },
        reference.control,
        group("Initial condition", sets.x0), signature.parameters.length ? group("Parameters", sets.parameters) : null,
        signature.controls.length ? group("Controls: as in the reference, constant where you move them", sets.controls) : null,
        h("fieldset", null, h("legend", null, "Times"), field(`End; trained up to ${number(domain.end)} ${signature.time_unit}`, stop), field("How many", count), logTimeBox),
        isField ? null : h("fieldset", null, h("legend", null, "Shown"), logBox, signature.intervals ? intervalBox : null, signature.members > 1 ? spreadBox : null))),
      h("div", null, told, trouble, place, h("h2", null, "The same as code"),
        h("div", { class: "row" }, h("div", { class: "tabs", role: "group", "aria-label": "Language" }, tabs), copied(code)),
        h("p", { class: "soft" }, "The key comes from the environment's SPNODE_KEY. In the folder of a stack of your own: ",
          h("code", null, "SPNODE_KEY=$(cat .spnode/key) .venv/bin/python snippet.py")), code)));
}

function group(title, set) {
  return h("fieldset", null, h("legend", null, title), set.element);
}

/** From when on times are worth a look: as the data have it, or the model's own steps. */
function firstTime(record, dataset) {
  if (dataset) return dataset.summary.times.shortest_step;
  const steps = record.spec.steps && record.spec.steps.times;
  return steps && steps.length > 1 ? steps[1] : record.signature.domain.end / 1e3;
}

/** A slider and a number for each of up to 16 values, and all of them as text. */
function sliders(names, units, lower, upper) {
  let values = names.map((_, at) => (lower[at] + upper[at]) / 2);
  let told = () => {};
  const isMany = names.length > MANY;
  const rows = isMany ? [] : names.map((name, at) => {
    const [low, high] = [lower[at], upper[at]];
    const isLog = low > 0 && high / low > 100;
    const place = (value) => Math.round(STEPS * (isLog ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low || 1)));
    const slider = h("input", { type: "range", min: 0, max: STEPS, "aria-label": `${name}, slider` });
    const box = h("input", { class: "number", inputmode: "decimal" });
    const label = units && units[at] ? `${name}, ${units[at]}` : name;
    const trouble = h("div", null);
    const showNumber = () => {
      box.value = Number(values[at].toPrecision(6));
      slider.setAttribute("aria-valuetext", box.value);
      complain(box, trouble, null);
    };
    const showValue = () => {
      slider.value = place(values[at]) || 0;
      showNumber();
    };
    slider.addEventListener("input", () => {
      const part = slider.value / STEPS;
      values[at] = isLog ? low * (high / low) ** part : low + part * (high - low);
      showNumber();
      showText();
      told(true);
    });
    box.addEventListener("change", () => {
      const given = Number(box.value);
      if (box.value.trim() === "" || !Number.isFinite(given)) {
        return complain(box, trouble, `found ${box.value.trim() ? `'${box.value}'` : "nothing"}; expected a number`);
      }
      values[at] = given;
      showValue();
      showText();
      told(true);
    });
    return { showValue, element: h("div", { class: "slider" }, h("label", { for: (box.id = `value-${name}-${at}`) }, label), slider, box, trouble) };
  });
  const text = h("textarea", { rows: isMany ? 5 : 2, spellcheck: "false", "aria-label": `All ${names.length} values` });
  const wrong = h("div", null);
  const showText = () => {
    text.value = values.join(", ");
    complain(text, wrong, null);
  };
  const showAll = () => {
    for (const row of rows) row.showValue();
    showText();
  };
  text.addEventListener("change", () => {
    const given = text.value.split(/[\s,;]+/).filter(Boolean).map(Number);
    if (given.length !== names.length || given.some((value) => !Number.isFinite(value))) {
      return complain(text, wrong, `found ${given.length} values; expected ${names.length} numbers: ${names.slice(0, 8).join(", ")}${names.length > 8 ? ", …" : ""}`);
    }
    values = given;
    showAll();
    told(true);
  });
  showAll();
  return {
    element: [rows.map((row) => row.element), isMany
      ? [field(`${names.length} values`, text), wrong]
      : h("details", null, h("summary", null, "Paste them"), text, wrong)],
    values: () => [...values],
    set(given) {
      values = [...given];
      showAll();
    },
    listen(listener) { told = listener; },
  };
}

/** Say below a control what is wrong with its value; null takes that back. */
function complain(control, place, message) {
  if (message) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
  place.replaceChildren(...(message ? [problem({ message })] : []));
}

/** Fields of surrogate and reference at the same times, in the same colours. */
function drawFields(place, { times, x }, found, signature) {
  const reference = found && resampled(found.times, found.states, times);
  const bounds = range(reference ? [...x, ...reference] : x);
  const made = [heatMap(`Surrogate, ${signature.states.length} states`, times, x, bounds)];
  if (reference) made.push(heatMap("Reference", times, reference, bounds));
  place.replaceChildren(...made);
}
