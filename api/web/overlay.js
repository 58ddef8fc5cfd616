// What is drawn beside a rollout: a trajectory of a dataset, or what a known system does from the same start.

import { action, check, choice, field, h, number, problem, say } from "./elements.js";
import { ask, get } from "./service.js";

/** The built-in system that has the states of a model, and nothing else; null where there is none. */
export async function systemOf({ states, parameters, controls }, signal) {
  if (parameters.length || controls.length) return null;
  const { data } = await get("/v1/systems", { signal });
  return data.find((each) => each.states.length === states.length && states.every((name) => each.states.includes(name))) || null;
}

/** Trajectories of a dataset to start from and to compare with; from other starts what a known system does. */
export function overlay({ datasets, system, sets, signature, changed, drawn, signal }) {
  const { all, own } = datasets;
  let found = null, turn = 0;
  const which = h("input", { type: "number", min: 0, value: 0, class: "number" });
  const labelled = (each) => [each.id, each.name || each.id];
  const dataset = choice([["", "none"], ...all.map(labelled)], own ? own.id : "");
  const offer = (each) => dataset.append(h("option", { value: each.id }, labelled(each)[1]));
  const older = action("Older ones", async () => {
    const fresh = await datasets.older();
    fresh.forEach(offer);
    older.button.hidden = !datasets.hasOlder();
    say(fresh.length ? `${fresh.length} more in the list of datasets` : `None of ${datasets.hasOlder() ? "a thousand older" : "the older"} ones has these states`);
  }, { class: "quiet", hidden: !datasets.hasOlder() });
  const named = h("input", { spellcheck: "false", autocomplete: "off", placeholder: "ds_…" });
  named.addEventListener("change", async () => {
    const id = named.value.trim();
    if (!id) return;
    try {
      const each = await datasets.byId(id);
      if (![...dataset.options].some((option) => option.value === each.id)) offer(each);
      [dataset.value, named.value] = [each.id, ""];
      load();
    } catch (error) {
      if (!signal.aborted) note.replaceChildren(problem(error));
    }
  });
  const note = h("div", { class: "soft" });
  const isSame = (set, values) => set.values().every((value, at) => value === values[at]);
  const isHere = () => found && !found.isLeft && isSame(sets.x0, found.x0) && isSame(sets.parameters, found.parameters);

  // A dataset that a job has made is of a built-in system.
  const solver = system && solverOf(system, signature, { isOn: Boolean(own && own.job_id), changed, drawn, signal });

  async function load() {
    const mine = ++turn;
    found = null;
    note.replaceChildren();
    if (!dataset.value) return changed();
    const { summary } = all.find((each) => each.id === dataset.value);
    which.value = Math.min(summary.trajectories - 1, Math.max(0, Math.trunc(Number(which.value) || 0)));
    try {
      const read = await get(`/v1/datasets/${dataset.value}/trajectories/${which.value}?samples=2000`, { signal });
      if (mine !== turn) return;
      found = ordered(read, signature);
      sets.x0.set(found.x0);
      const { missing, switches, control_times: held } = found;
      if (missing.length) {
        found.isLeft = true;
        note.textContent = `It has no ${missing.slice(0, 8).join(", ")}${missing.length > 8 ? ", …" : ""}, which the model takes: the trajectory gives the start alone, and the reference is not drawn.`;
        return changed();
      }
      sets.parameters.set(found.parameters);
      if (switches === held.length) {
        note.textContent = `${summary.trajectories} trajectories; the reference shows while the start is its own.`;
      } else {
        // Rolled out with other controls than its own it would look like an error.
        found.isLeft = true;
        note.textContent = `Its controls change ${number(switches)} times and this view holds ${number(held.length)} changes: they are constant here, and the reference is not drawn. The whole is for a rollout job or Python.`;
      }
    } catch (error) {
      if (signal.aborted || mine !== turn) return;
      note.replaceChildren(problem(error));
    }
    changed();
  }
  which.addEventListener("change", load);
  dataset.addEventListener("change", load);
  return {
    begin: load,
    leave() { if (found) found.isLeft = true; },
    /** What is drawn beside the answer to a request. */
    shown: (asked) => (isHere() ? found : solver && solver.shown(asked)),
    follow(asked) { if (solver) solver.follow(isHere() ? null : asked); },
    controls: () => (isHere() && found.controls.length ? { controls: found.controls, control_times: found.control_times } : null),
    control: h("fieldset", null, h("legend", null, "Reference"), field("Dataset", dataset), older.button, older.place, field("Or another by its id", named), field("Trajectory to start from", which), note, solver && solver.control),
  };
}

/** A trajectory with its columns in the order of a model's names, and which of its inputs are `missing`. */
function ordered(read, signature) {
  const columns = (names, all) => names.map((name) => all.indexOf(name));
  const absent = (names, all) => names.filter((name) => !all.includes(name));
  const [states, controls] = [columns(signature.states, read.names), columns(signature.controls, read.control_names)];
  const rows = read.states.map((row) => states.map((at) => row[at]));
  return {
    ...read, states: rows, x0: rows[0],
    missing: [...absent(signature.parameters, read.parameter_names), ...absent(signature.controls, read.control_names)],
    parameters: columns(signature.parameters, read.parameter_names).map((at) => read.parameters[at]),
    controls: signature.controls.length ? read.controls.map((row) => controls.map((at) => row[at])) : [],
  };
}

/** Solutions of a built-in system from where rollouts begin, one after another: the last that was asked for counts. */
function solverOf(system, signature, { isOn, changed, drawn, signal }) {
  const [box, wanted] = check(`solve ${system.name} from any other start`, { checked: isOn });
  const trouble = h("div", null);
  const places = system.states.map((name) => signature.states.indexOf(name));
  const named = ({ x0, times }) => JSON.stringify([x0, times]);
  let solved = null, next = null, isBusy = false;

  async function follow(asked) {
    next = wanted.checked ? asked : null;
    if (!next) trouble.replaceChildren();
    if (isBusy) return;
    isBusy = true;
    while (next && !signal.aborted) {
      const begun = next;
      next = null;
      try {
        const { times, x } = await ask("POST", `/v1/systems/${system.name}/reference`, { x0: places.map((at) => begun.x0[at]), times: begun.times }, { signal });
        solved = { name: named(begun), times, states: x.map((row) => signature.states.map((name) => row[system.states.indexOf(name)])) };
        trouble.replaceChildren();
        if (!next) drawn();
      } catch (error) {
        if (signal.aborted) return;
        trouble.replaceChildren(problem(error));
      }
    }
    isBusy = false;
  }
  wanted.addEventListener("change", () => {
    trouble.replaceChildren();
    changed();
  });
  return {
    control: [box, trouble],
    shown: (asked) => (wanted.checked && solved && solved.name === named(asked) ? solved : null),
    follow,
  };
}
