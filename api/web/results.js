// What jobs made, as tables: a ranking, estimates, a comparison, chunks of rows.

import { action, bytes, h, number, percent, plain, table } from "./elements.js";
import { get, save } from "./service.js";

const MOST = 200;
const version = (model, number_) => h("a", { href: `#/models/${model}/${number_}` }, `${model}/${number_}`);
const between = ([low, high]) => `${number(low, 4)} to ${number(high, 4)}`;

/** What a job that has succeeded made; rows of a rollout job are asked for. */
export function resultOf(job, signal) {
  const show = { sweep: ranking, calibration: estimates, evaluation: comparison, rollout: chunks }[job.kind];
  return show ? show(job.result, job, signal) : [];
}

function ranking(result) {
  const fields = [...new Set(result.ranking.flatMap((each) => Object.keys(each.settings)))];
  const heads = [["version"], ...fields.map((each) => [each]), ["validation", "n"], ["test", "n"], ["seconds", "n"], ["outcome", "wrap"]];
  const rows = result.ranking.map((each) => [
    each.version ? version(result.model, each.version) : h("a", { href: `#/jobs/${each.job}` }, "its job"),
    ...fields.map((field) => (field in each.settings ? plain(each.settings[field]) : "–")),
    percent(each.validation), percent(each.test), number(each.seconds), each.error ? each.error.detail : each.state,
  ]);
  return [h("h2", null, "Ranking"), h("p", { class: "soft" }, "By the largest error of a state on the validation part, from starts or from later samples, over its standard deviation."),
    table("Ranking", heads, rows), ...(result.warnings || []).map((each) => h("div", { class: "notice" }, each)), ...(result.ensemble ? [joined(result.model, result.ensemble)] : [])];
}

function joined(model, ensemble) {
  const members = ensemble.members.flatMap((each, i) => [i > 0 && ", ", version(model, each)]);
  return h("p", null, version(model, ensemble.version), " is the ensemble of ", members,
    `: ${percent(ensemble.validation)} on the validation part, ${percent(ensemble.test)} on the test part.`);
}

function estimates(result) {
  const level = percent(result.coverage);
  const heads = [["unknown"], ["value", "n"], ["standard error", "n"], [`${level} interval`], [`${level}, all at once`], ["", "wrap"]];
  const rows = result.estimates.map((each) => [
    each.control_interval === null ? `${each.field}: ${each.name}` : `${each.field}: ${each.name}, interval ${each.control_interval}`,
    number(each.value, 5), number(each.standard_error), between(each.interval), between(each.simultaneous),
    [!each.is_identifiable && "not told by the observations", each.at_bound && `at its ${each.at_bound} bound`].filter(Boolean).join("; "),
  ]);
  return [h("h2", null, "Estimates"), (result.warnings || []).map((each) => h("div", { class: "notice" }, each)), table("Estimates", heads, rows),
    h("p", { class: "soft" }, `${number(result.converged)} of ${number(result.starts)} searches converged.`)];
}

function comparison(result) {
  const all = Object.entries(result.surrogates);
  const heads = [["version"], ["error", "n"], ["from starts", "n"], ["worst state"], ["from later samples", "n"], ["against the first", "wrap"]];
  const rows = all.map(([name, each]) => {
    const [model, number_] = name.split("/");
    const paired = (result.paired || {})[name];
    return [number_ ? version(model, number_) : name, percent(each.error), percent(each.normalised_rmse),
      each.worst_state ? `${each.worst_state.name} ${percent(each.worst_state.normalised_rmse)}` : "–",
      percent((each.mid_trajectory || {}).normalised_rmse), paired ? paired.verdict : "–"];
  });
  return [h("h2", null, "Comparison"), h("p", { class: "soft" }, `On the same ${number(result.trajectories)} trajectories, over the standard deviation of each state.`),
    (result.warnings || []).map((each) => h("div", { class: "notice" }, each)), table("Comparison", heads, rows)];
}

function chunks(result, job, signal) {
  const place = h("p", { class: "soft" }, "…");
  get(`/v1/jobs/${job.id}/result`, { signal }).then((index) => place.replaceWith(files(index, job)), (error) => { if (!signal.aborted) place.textContent = error.message; });
  return [h("h2", null, "Rows"), place];
}

function files(index, job) {
  const rows = index.chunks.slice(0, MOST).map((each) => {
    const keep = action("Download", () => save(`/v1/jobs/${job.id}/result/${each.number}`, `${job.id}-${each.number}.npz`), { class: "quiet", "aria-label": `Download rows from ${each.start}` });
    return [`${number(each.start)} to ${number(each.start + each.rows - 1)}`, bytes(each.size_bytes), number(each.failed), number(each.outside), [keep.button, keep.place]];
  });
  return h("div", null,
    h("p", null, version(index.model, index.version), `: ${index.shape.map((each) => number(each)).join(" × ")} numbers, ${bytes(index.size_bytes)}. `,
      "All rows as one file: ", h("code", null, `./spnode jobs result ${job.id} --output rows.npz`)),
    table("Chunks", [["rows"], ["size", "n"], ["left the finite range", "n"], ["outside the domain", "n"], [""]], rows),
    index.chunks.length > MOST ? h("p", { class: "soft" }, `${index.chunks.length - MOST} more chunks are not shown.`) : null);
}
