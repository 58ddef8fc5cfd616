// A version: how wrong it is, what is proved, its spectrum; and several side by side.

import { action, bytes, confirmed, h, number, percent, plain, say, table, tiles, when } from "./elements.js";
import { GATES, moveAlias } from "./models.js";
import { lossCurve } from "./loss.js";
import { curves } from "./plots.js";
import { ask, get, picture, save } from "./service.js";

const at = (model, version) => `/v1/models/${encodeURIComponent(model)}/versions/${version}`;
const heldOut = (evaluation) => evaluation.test || evaluation.validation || {};
const middle = (bin) => (bin.from > 0 ? Math.sqrt(bin.from * bin.to) : bin.to / 2);

export async function versionView([model, number_], signal) {
  const [version, card, record] = await Promise.all([
    get(at(model, number_), { signal }), get(`${at(model, number_)}/card`, { signal }), get(`/v1/models/${encodeURIComponent(model)}`, { signal })]);
  const found = heldOut(version.evaluation);
  const named = Object.entries(record.aliases).filter(([, each]) => each === version.number).map(([alias]) => alias);
  const promote = action("Make it champion", () => moveAlias(record, "champion", version.number, signal));
  promote.button.hidden = named.includes("champion");
  const download = action("Download the artifact", () => save(`${at(model, version.number)}/artifact`, `${model}-${version.number}.spnode`), { class: "quiet" });
  const remove = action("Delete", async () => {
    if (!(await confirmed(`Delete ${model}/${version.number} for good?`, { label: "Delete it" }))) return;
    await ask("DELETE", at(model, version.number));
    say(`${model}/${version.number} is deleted`);
    if (!signal.aborted) location.hash = `#/models/${model}`;
  }, { class: "danger" });
  return h("div", null,
    h("h1", null, `${model}/${version.number}`),
    h("p", { class: "row" }, named.map((alias) => h("span", { class: "chip good" }, alias)), h("span", { class: "soft" }, when(version.created_at)),
      h("a", { href: `#/models/${model}` }, "all versions"), version.job_id && h("a", { href: `#/jobs/${version.job_id}` }, "its training"),
      card.dataset && h("a", { href: `#/datasets/${card.dataset.id}` }, "its data")),
    h("div", { class: "row" }, h("a", { class: "button", href: `#/rollout/${model}/${version.number}` }, "Roll out"), promote.button,
      download.button, remove.button),
    named.includes("champion") ? null : h("p", { class: "soft" }, GATES), promote.place, download.place, remove.place,
    tiles([
      ["error on held-out data", percent(found.normalised_rmse)],
      ["worst state", found.worst_state ? `${found.worst_state.name}: ${percent(found.worst_state.normalised_rmse)}` : "–"],
      ["from later samples", percent((found.mid_trajectory || {}).normalised_rmse)],
      ["scaled MSE", number(found.scaled_mse)],
      ["latent variables", number(version.signature.latent)],
      ["size", bytes(version.size_bytes)],
    ]),
    h("p", { class: "soft" }, "Errors are root mean squares over the standard deviation of each state, on trajectories that the training never saw."),
    list(found.warnings || (version.evaluation.train || {}).warnings).map((each) => h("div", { class: "notice" }, each)),
    h("h2", null, "Certificate"), claims(version.certificate),
    h("div", { class: "grid" }, errorPlot([[`${model}/${version.number}`, version]]), spectrum([[`${model}/${version.number}`, version]]), lossCurve(list(card.history))),
    pictures(model, version.number, card.plots, signal),
    h("h2", null, "Errors by state"), errors(found, version.signature),
    list(card.equations).length ? [h("h2", null, "Equations found"), h("pre", null, card.equations.join("\n"))] : null,
    list(card.joined).length ? h("p", null, "It joins ", list(card.joined).flatMap((each, i) => [i > 0 && ", ",
      h("a", { href: `#/models/${model}/${Number(each.version)}` }, `${model}/${Number(each.version)}`)]), ", as far as they are still there.") : null,
    list(card.choices).length ? [h("h2", null, "What was chosen, and why"),
      table("Choices", [["what"], ["chosen"], ["why", "wrap"]], card.choices.map((each) => [each.what, plain(each.value), each.why]))] : null,
    h("details", null, h("summary", null, "The card"), h("pre", null, JSON.stringify(card, (name, value) => (name === "history" ? undefined : value), 2))));
}

// A card may come from anybody.
const list = (value) => (Array.isArray(value) ? value : []);

const PICTURES = {
  trajectories: "Held-out trajectories: surrogate and reference, of median and of worst error",
  errors: "Error over time, on each part of the data",
  loss: "Loss over the iterations of each stage",
  spectrum: "Eigenvalues of A",
};

/** What the worker drew when it trained the version; trajectories are shown at once. */
function pictures(model, number_, listed, signal) {
  const names = Array.isArray(listed) ? listed.filter((each) => typeof each === "string") : [];
  if (!names.length) return null;
  const shown = (name) => {
    const path = `${at(model, number_)}/plots/${encodeURIComponent(name)}`;
    const image = h("img", { alt: PICTURES[name] || name, class: "picture" });
    const keep = action("Download", () => save(path, `${model}-${number_}-${name}.png`), { class: "quiet", "aria-label": `Download the picture of ${name}` });
    const figure = h("figure", { class: "plot" }, image, h("figcaption", { class: "row soft" }, PICTURES[name] || name, keep.button, keep.place));
    picture(path, signal).then((address) => { image.src = address; }, (error) => { if (error.name !== "AbortError") image.replaceWith(h("p", { class: "soft" }, error.message)); });
    return figure;
  };
  const others = h("details", null, h("summary", null, "More pictures"));
  const rest = names.filter((name) => name !== "trajectories");
  others.addEventListener("toggle", () => others.append(h("div", { class: "grid" }, rest.map(shown))), { once: true });
  return [h("h2", null, "Pictures of the training"), names.includes("trajectories") ? shown("trajectories") : null, rest.length ? others : null];
}

function claims(certificate) {
  const all = Object.entries(certificate).filter(([, each]) => each && typeof each === "object" && "statement" in each);
  if (!all.length) return h("p", { class: "soft" }, "Nothing was certified: the artifact was made elsewhere.");
  // True, and so far above what it bounds that nobody can use it.
  const isVacuous = (each) => each.is_vacuous === true;
  const item = ([name, each]) => h("li", { class: each.holds && !isVacuous(each) ? "holds" : null },
    h("strong", { class: each.holds && !isVacuous(each) ? "good" : "soft" }, !each.holds ? "Not proved: " : isVacuous(each) ? "Proved, and vacuous: " : "Proved: "), each.statement,
    h("small", null, name.replaceAll("_", " "), each.assumptions && each.assumptions.length ? `, if ${each.assumptions.join("; ")}` : ""));
  const [proved, others] = [all.filter(([, each]) => each.holds && !isVacuous(each)), all.filter(([, each]) => !each.holds || isVacuous(each))];
  return h("div", null, h("ul", { class: "claims" }, proved.map(item)),
    others.length ? h("details", null, h("summary", null, `What is not proved, or says nothing (${others.length}); for most systems that is usual`), h("ul", { class: "claims" }, others.map(item))) : null);
}

/** In the order of the signature: JSON that was kept has its names by the alphabet. */
function errors(found, signature) {
  const baselines = Object.entries(found.baselines || {});
  const states = found.states || {};
  const names = [...new Set([...(signature.states || []), ...Object.keys(states)])].filter((name) => name in states);
  const rows = names.map((name) => [name, states[name]]).map(([name, each]) => [name, percent(each.normalised_rmse), number(each.rmse), percent(each.max_abs_scaled),
    ...baselines.map(([, base]) => percent((base.states || {})[name]))]);
  const heads = [["state"], ["error", "n"], ["RMSE", "n"], ["largest, of largest value", "n"], ...baselines.map(([name]) => [`${name.replaceAll("_", " ")} instead`, "n"])];
  const all = table("Errors by state", heads, rows);
  return rows.length > 20 ? h("details", null, h("summary", null, `All ${rows.length} states`), all) : all;
}

function errorPlot(versions) {
  const each = versions.map(([label, version]) => {
    const bins = heldOut(version.evaluation).over_time || [];
    return { label, x: bins.map(middle), y: bins.map((bin) => bin.normalised_rmse) };
  });
  const isWide = each.some(({ x }) => x.length > 2 && x.at(-1) / x[0] > 1e3);
  return curves("Held-out error over time", each, { x: { label: "time", log: isWide }, y: { label: "error", log: true } });
}

/** Eigenvalues of A: the imaginary part over the decay rate, which spans decades. */
function spectrum(versions) {
  const each = versions.flatMap(([label, version]) => {
    const claim = version.certificate.spectral_abscissa || {};
    // Of an ensemble each member has its own.
    const found = claim.members || [claim];
    return found.map(({ eigenvalues }, at) => ({
      label: found.length > 1 ? `${label}, member ${at + 1}` : label, values: eigenvalues || [], x: [], y: [], points: true,
    }));
  });
  const all = each.flatMap(({ values }) => values);
  if (!all.length) return h("figure", { class: "plot" }, h("h3", null, "Spectrum of A"), h("p", { class: "soft" }, "Not known: the version was made before eigenvalues were kept, or is too large."));
  const isStable = all.every(([real]) => real < 0);
  for (const one of each) {
    const points = one.values.map(([real, imaginary]) => [isStable ? -real : real, imaginary]).sort((a, b) => a[0] - b[0]);
    one.x = points.map(([x]) => x);
    one.y = points.map(([, y]) => y);
  }
  const [slow, fast] = [Math.max(...all.map(([real]) => real)), Math.min(...all.map(([real]) => real))];
  return curves("Spectrum of A", each, {
    x: { label: isStable ? "decay rate −Re λ" : "Re λ", log: isStable },
    y: { label: "Im λ", range: all.every(([, imaginary]) => imaginary === 0) ? [-1, 1] : null },
    said: `${all.length} eigenvalues with real parts from ${number(fast)} to ${number(slow)}`,
  });
}

/** More columns than this are no comparison that anybody reads. */
const MOST = 8;

export async function compareView([asked], signal) {
  const [named, left] = [asked.split(",").slice(0, MOST), asked.split(",").slice(MOST)];
  const versions = await Promise.all(named.map(async (label) => {
    const path = at(...label.split("/"));
    return [label, ...await Promise.all([get(path, { signal }), get(`${path}/card`, { signal })])];
  }));
  const row = (title, value) => [title, ...versions.map(([, version, card]) => value(version, heldOut(version.evaluation), card.dataset || {}))];
  const isOfOne = new Set(versions.map(([, , card]) => (card.dataset || {}).digest)).size === 1;
  const proved = (name) => (version) => {
    const claim = version.certificate[name];
    return claim ? h("span", { class: claim.holds ? "good" : "soft", title: claim.statement }, claim.holds ? "proved" : "not proved") : "–";
  };
  const certified = [...new Set(versions.flatMap(([, version]) => Object.keys(version.certificate)))];
  return h("div", null, h("h1", null, "Versions side by side"),
    left.length ? h("div", { class: "notice" }, `${MOST} stand side by side at most; left out: ${left.join(", ")}.`) : null,
    isOfOne ? null : h("div", { class: "notice" }, "These errors are of different data. On the same data: ",
      h("code", null, `./spnode models compare ${versions.map(([label]) => label).join(" ")} --dataset FILE`)),
    table("Versions side by side", [["", "head"], ...versions.map(([label]) => [label])], [
      row("", (version) => h("a", { href: `#/models/${version.model}/${version.number}` }, "look at it")),
      row("data", (_, __, dataset) => (dataset.id ? h("a", { href: `#/datasets/${dataset.id}` }, dataset.id.slice(0, 3) + "…" + dataset.id.slice(-6)) : "–")),
      row("error on held-out data", (_, found) => percent(found.normalised_rmse)),
      row("worst state", (_, found) => (found.worst_state ? `${found.worst_state.name} ${percent(found.worst_state.normalised_rmse)}` : "–")),
      row("from later samples", (_, found) => percent((found.mid_trajectory || {}).normalised_rmse)),
      row("scaled MSE", (_, found) => number(found.scaled_mse)),
      row("latent variables", (version) => number(version.signature.latent)),
      row("linear part", (version) => version.spec.linear.kind), row("nonlinear part", (version) => version.spec.nonlinear.kind),
      row("integrator", (version) => version.spec.integrator), row("size", (version) => bytes(version.size_bytes)),
      ...certified.map((name) => row(name.replaceAll("_", " "), proved(name))),
      row("trained", (version) => when(version.created_at)),
    ]),
    h("br"), h("div", { class: "grid" }, errorPlot(versions), spectrum(versions)));
}
