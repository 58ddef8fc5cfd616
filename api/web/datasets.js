// Datasets: upload, the report on arrival, plots, and a training from one.

import { action, bytes, check, choice, confirmed, empty, field, h, number, paged, problem, say, table, tiles, when } from "./elements.js";
import { curves, evenTimes, heatMap, range, resampled } from "./plots.js";
import { ask, get, make, save, upload } from "./service.js";

const MANY = 16;

export async function datasetList(_, signal) {
  const { data: systems } = await get("/v1/systems", { signal });
  const list = paged((after) => get(`/v1/datasets?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`, { signal }), datasetTable);
  await list.load();
  return h("div", null,
    h("h1", null, "Datasets"),
    h("p", { class: "soft" }, "Trajectories of your simulator: what a surrogate learns from."),
    dropZone(signal),
    h("details", null, h("summary", null, "Or have one made of a built-in system"), builtIn(systems, signal)),
    h("h2", null, "In the store"), list.element);
}

function datasetTable(datasets) {
  if (!datasets.length) {
    return empty("No dataset yet", h("p", null, "Drop a file above. It needs ", h("code", null, "states"), " (trajectory, time, state) and ", h("code", null, "times"),
      ", or a table with a row for every sample."));
  }
  return table("Datasets", [["dataset"], ["trajectories", "n"], ["states", "n"], ["longest", "n"], ["decades", "n"], ["size", "n"], ["since"]],
    datasets.map((each) => [
      h("a", { href: `#/datasets/${each.id}` }, each.name || each.id),
      number(each.summary.trajectories), number(Object.keys(each.summary.states).length),
      `${number(each.summary.times.longest)} ${each.summary.times.unit}`, number(each.summary.times.decades, 2), bytes(each.size_bytes), when(each.created_at),
    ]));
}

function dropZone(signal) {
  const input = h("input", { type: "file", id: "file", accept: ".npz,.h5,.hdf5,.nc,.zip,.mat,.parquet,.csv" });
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const told = h("div", null);
  const zone = h("div", { class: "drop" },
    h("p", null, "Drop a file here, or ", h("label", { for: "file" }, "choose one"), input),
    h("p", { class: "soft" }, "npz, HDF5, netCDF, zipped Zarr, MATLAB, Parquet or CSV"), bar, told);
  let isBusy = false;
  async function send(file) {
    if (isBusy) return say("One file at a time");
    isBusy = true;
    guard(1);
    bar.hidden = false;
    bar.value = 0;
    told.replaceChildren(h("p", { role: "status" }, `Sending ${file.name} …`));
    try {
      const made = await upload(file, (sent, all) => {
        bar.value = sent / (all || 1);
        if (sent === all) told.replaceChildren(h("p", { role: "status" }, `Checking ${file.name} …`));
      });
      say(signal.aborted ? `${file.name} is uploaded and checked` : "Uploaded and checked");
      if (!signal.aborted) location.hash = `#/datasets/${made.id}`;
    } catch (error) {
      told.replaceChildren(problem(error));
      if (signal.aborted) await confirmed(`${file.name} was not taken: ${error.message}`, { label: "I see" });
    }
    guard(-1);
    bar.hidden = true;
    isBusy = false;
    input.value = "";
  }
  input.addEventListener("change", () => input.files[0] && send(input.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", kind === "dragover");
      if (kind !== "drop" || !event.dataTransfer.files[0]) return;
      const count = event.dataTransfer.files.length;
      if (count > 1) return told.replaceChildren(problem({ message: `found ${count} files; expected one: all trajectories of a dataset are in one file` }));
      const entry = event.dataTransfer.items[0].webkitGetAsEntry?.();
      if (entry && entry.isDirectory) told.replaceChildren(problem({ message: "found a folder; expected a file: a folder of Zarr is sent as a zip of it" }));
      else send(event.dataTransfer.files[0]);
    });
  }
  return zone;
}

let sending = 0;

/** Asks before the browser leaves the page while anything is being sent, from whichever view. */
function guard(change) {
  sending += change;
  if (sending) window.addEventListener("beforeunload", stay);
  else window.removeEventListener("beforeunload", stay);
}

const stay = (event) => event.preventDefault();

function builtIn(systems, signal) {
  const system = choice(systems.map((each) => [each.name, each.name.replaceAll("_", " ")]), systems[0].name);
  const count = h("input", { type: "number", min: 2, max: 100000, value: 100, required: true });
  const equations = h("p", { class: "soft" });
  const tell = () => (equations.textContent = systems.find((each) => each.name === system.value).equations);
  system.addEventListener("change", tell);
  tell();
  const begin = action("Make it", async () => {
    const job = await make("/v1/datasets", { system: system.value, trajectories: Number(count.value), seed: 0 });
    if (!signal.aborted) location.hash = `#/jobs/${job.id}`;
  });
  return h("div", { class: "card" }, h("div", { class: "row end" }, field("System", system), field("Trajectories", count), begin.button), equations, begin.place);
}

export async function datasetView([id], signal) {
  const [dataset, presets] = await Promise.all([get(`/v1/datasets/${id}`, { signal }), get("/v1/presets", { signal })]);
  const { summary } = dataset;
  const names = Object.keys(summary.states);
  const [few, most] = summary.samples_per_trajectory;
  const download = action("Download as npz", () => save(`/v1/datasets/${id}/data`, `${id}.npz`), { class: "quiet" });
  const remove = action("Delete", async () => {
    if (!(await confirmed("Delete this dataset for good? Versions trained on it stay.", { label: "Delete it" }))) return;
    await ask("DELETE", `/v1/datasets/${id}`);
    say(`${dataset.name || id} is deleted`);
    if (!signal.aborted) location.hash = "#/datasets";
  }, { class: "danger" });
  const rows = Object.entries(summary.states).map(([name, each]) => [name, each.unit, number(each.minimum), number(each.maximum),
    number(each.decades, 2), number(each.time_scale), each.normalisation, each.missing || ""]);
  const inputs = ["parameters", "controls"].flatMap((kind) => Object.entries(summary[kind] || {}).map(([name, each]) =>
    [name, kind.slice(0, -1), number(each.minimum), number(each.maximum)]));
  const states = table("States", [["state"], ["unit"], ["from", "n"], ["to", "n"], ["decades", "n"], ["time scale", "n"], ["scaling"], ["missing", "n"]], rows);
  return h("div", null,
    h("h1", null, dataset.name || "Dataset"), h("p", { class: "soft" }, h("code", null, id), " · ", when(dataset.created_at)),
    tiles([
      ["trajectories", number(summary.trajectories)],
      ["samples of each", few === most ? number(few) : `${number(few)} to ${number(most)}`],
      ["states", number(names.length)],
      ["longest time", `${number(summary.times.longest)} ${summary.times.unit}`],
      ["decades of time", number(summary.times.decades, 2)],
      ["stiffness, about", number(summary.stiffness, 2)],
      ["missing values", number(summary.missing)],
    ]),
    notes(summary),
    h("div", { class: "columns" }, h("section", null, h("h2", null, "Train a surrogate"), trainForm(dataset, presets.data, signal)),
      h("section", null, h("h2", null, "Trajectories"), trajectoryPlots(dataset, signal))),
    h("h2", null, "States"),
    rows.length > 20 ? h("details", null, h("summary", null, `All ${rows.length} states`), states) : states,
    inputs.length ? [h("h2", null, "Inputs"), table("Inputs", [["input"], ["kind"], ["from", "n"], ["to", "n"]], inputs)] : null,
    h("div", { class: "row" },
      download.button, remove.button), download.place, remove.place);
}

const sumOf = (terms) => Object.entries(terms).map(([name, factor]) => (factor === 1 ? name : `${number(factor, 4)} ${name}`)).join(" + ");

const unmoved = (what, names = []) => (names.length ? [`${what}: ${names.slice(0, 5).join(", ")}${names.length > 5 ? ", ..." : ""}`] : []);

function notes(summary) {
  const good = [...Object.entries(summary.conserved || {}).map(([name, terms]) => `conserved, as declared: ${name} = ${sumOf(terms)}`),
    ...(summary.sums_found || []).map((terms) => `constant along every trajectory: ${sumOf(terms)}`),
    ...(summary.positive ? ["the states are declared positive"] : [])];
  const bad = [...(summary.duplicates || []).slice(0, 5).map(([first, again]) => `trajectory ${again} repeats ${first}`),
    ...unmoved("the same in all samples", summary.constant), ...unmoved("changes between trajectories only, perhaps a parameter", summary.constant_along),
    ...(summary.unit_problems || [])];
  return [good.length ? h("ul", null, good.map((each) => h("li", null, each))) : null, bad.map((each) => h("div", { class: "notice" }, each))];
}

/** One trajectory at a time; up to 16 states as curves, more as a field. */
function trajectoryPlots(dataset, signal) {
  const last = dataset.summary.trajectories - 1;
  const which = h("input", { type: "number", min: 0, max: last, value: 0, class: "number" });
  const isWide = dataset.summary.times.decades > 3;
  const [timeBox, logTime] = check("logarithmic time", { checked: isWide });
  const place = h("div", { class: "grid" });
  let found = null, turn = 0;
  const draw = () => found && place.replaceChildren(...plotsOf(found, logTime.checked));
  async function show() {
    const mine = ++turn;
    which.value = Math.min(last, Math.max(0, Math.trunc(Number(which.value) || 0)));
    try {
      const read = await get(`/v1/datasets/${dataset.id}/trajectories/${which.value}`, { signal });
      if (mine !== turn) return;
      found = read;
      draw();
    } catch (error) {
      if (!signal.aborted && mine === turn) place.replaceChildren(problem(error));
    }
  }
  which.addEventListener("change", show);
  logTime.addEventListener("change", draw);
  show();
  return h("div", null, h("div", { class: "row end" }, field(`Trajectory, 0 to ${last}`, which), timeBox), h("br"), place);
}

function plotsOf(found, isLog) {
  const { names, times, states } = found;
  if (names.length > MANY && times.length > 1) {
    const wanted = evenTimes(isLog ? times[1] : times[0], times.at(-1), 300, isLog);
    return [heatMap(`Trajectory ${found.number}`, wanted, resampled(times, states, wanted), range(states))];
  }
  return names.map((name, at) => curves(name, [{ label: name, x: times, y: states.map((row) => row[at]), color: at }],
    { x: { label: "time", log: isLog }, height: 180 }));
}

function trainForm(dataset, presets, signal) {
  const name = h("input", { required: true, pattern: "[a-z0-9][a-z0-9_\\-]{0,63}", value: proposed(dataset), spellcheck: "false" });
  const about = h("small", { class: "soft" });
  const preset = choice(presets.map((each) => each.name), "auto");
  const tell = () => (about.textContent = presets.find((each) => each.name === preset.value).description);
  preset.addEventListener("change", tell);
  tell();
  // What the data show and nobody has declared: true by construction where it is ticked.
  const sums = (dataset.summary.sums_found || []).map((terms) => [terms, ...check(`Keep ${sumOf(terms)} exactly`)]);
  const allPositive = Object.values(dataset.summary.states).every((each) => each.positive);
  const [positiveBox, positive] = check("Keep the states positive");
  const seed = h("input", { type: "number", min: 0, value: 0 });
  const members = h("input", { type: "number", min: 1, max: 16, value: 1 });
  const limit = h("input", { type: "number", min: 1, placeholder: "none" });
  const iterations = h("input", { type: "number", min: 0, placeholder: "as the preset has it" });
  const [certifiedBox, certified] = check("Certified: all rollouts provably come together");
  const place = h("div", null);
  const button = h("button", null, "Train");
  return h("form", { onsubmit: async (event) => {
    event.preventDefault();
    const body = { kind: "training", dataset: dataset.id, model: name.value, preset: preset.value, seed: Number(seed.value) };
    if (Number(members.value) > 1) body.members = Number(members.value);
    if (certified.checked) body.certified = true;
    const kept = sums.filter(([, , box]) => box.checked);
    if (kept.length) body.surrogate = { conserved: Object.fromEntries(kept.map(([terms], at) => [`sum${at + 1}`, terms])) };
    if (positive.checked) body.surrogate = { ...body.surrogate, positive: true };
    if (iterations.value) body.training = { iterations: Number(iterations.value) };
    if (limit.value) body.training = { ...body.training, max_seconds: 60 * Number(limit.value) };
    button.disabled = true;
    try {
      const job = await make("/v1/jobs", body);
      if (!signal.aborted) location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      place.replaceChildren(problem(error));
    }
    button.disabled = false;
  } },
  field("Model", name, "Lower case letters, digits, - and _. A name that exists gets a new version."),
  sums.map(([, box]) => box), allPositive ? positiveBox : null,
  sums.length || allPositive ? h("p", { class: "soft" }, "What is ticked holds by construction, and rules polynomials out, which are often far more exact.") : null,
  h("details", null, h("summary", null, "Settings: auto decides them from the data"),
    h("div", null, field("Preset", preset), about, field("Iterations", iterations), field("At most, in minutes", limit),
      field("Members of an ensemble", members), field("Seed", seed), certifiedBox)),
  h("div", null, button), place);
}

function proposed(dataset) {
  const stem = (dataset.name || "").replace(/\.[^.]*$/, "").toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[^a-z0-9]+/, "");
  return stem.slice(0, 64) || "mine";
}
