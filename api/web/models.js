// Models: names with their versions and aliases.

import { action, bytes, confirmed, empty, field, h, paged, percent, say, table, when } from "./elements.js";
import { ask, get, getRevision, Problem } from "./service.js";

/** What the gates of champion ask, which is little: services/gates.py. */
export const GATES = "Champion is what the bare name of a model means. It must have been evaluated here, with finite errors, and have a certificate. How large its errors may be is for you to judge.";

export async function modelList(_, signal) {
  const chosen = comparison("Choose at least two models");
  const list = paged((after) => get(`/v1/models?${page(after)}`, { signal }), (models) => modelTable(models, chosen));
  await list.load();
  return h("div", null, h("h1", null, "Models"), list.element);
}

const ALIAS_HINT = "Up to 64 lower case letters, digits, - and _, a letter or digit first.";
const page = (after) => new URLSearchParams({ limit: 50, ...(after && { after }) });

function modelTable(models, chosen) {
  if (!models.length) return empty("No model yet", h("p", null, "A training makes the first version of one: choose a ", h("a", { href: "#/datasets" }, "dataset"), "."));
  const box = (model) => {
    const version = model.aliases.champion || model.latest;
    return version ? chosen.box(`${model.name}/${version}`, `Compare ${model.name}/${version}`) : "";
  };
  const isMany = models.length > 1;
  const columns = [...(isMany ? [["compare"]] : []), ["model"], ["champion"], ["newest"], ["other aliases"], ["changed"], ["about"]];
  const made = table("Models", columns, models.map((model) => [
    ...(isMany ? [box(model)] : []), h("a", { href: `#/models/${model.name}` }, model.name),
    model.aliases.champion ? link(model.name, model.aliases.champion) : h("span", { class: "soft" }, "none"),
    model.latest ? link(model.name, model.latest) : "–",
    Object.keys(model.aliases).filter((alias) => alias !== "champion").join(", "), when(model.updated_at), model.description.slice(0, 80)]));
  return chosen.boxes.size > 1 ? h("div", null, made, h("p", null, chosen.button)) : made;
}

/** Boxes to choose versions by, kept when drawn anew, and the button that puts those side by side. */
function comparison(tooFew) {
  const boxes = new Map();
  const box = (version, label, checked = false) => {
    const made = h("input", { type: "checkbox", checked: boxes.get(version)?.checked ?? checked, "aria-label": label });
    boxes.set(version, made);
    return made;
  };
  const button = h("button", { type: "button", class: "quiet", onclick: () => {
    const versions = [...boxes].filter(([, each]) => each.checked).map(([version]) => version);
    if (versions.length < 2) return say(tooFew);
    location.hash = `#/compare/${versions.join(",")}`;
  } }, "Compare the chosen");
  return { boxes, box, button };
}

const link = (model, number) => h("a", { href: `#/models/${model}/${number}` }, `version ${number}`);

export async function modelView([name], signal) {
  const { found: model, etag } = await getRevision(`/v1/models/${encodeURIComponent(name)}`);
  const chosen = comparison("Choose at least two versions");
  const row = (version, at) => {
    const box = chosen.box(`${name}/${version.number}`, `Compare version ${version.number}`, at < 2);
    const named = Object.entries(model.aliases).filter(([, number]) => number === version.number).map(([alias]) => h("span", { class: "chip good" }, alias));
    return [box, link(name, version.number), h("span", { class: "row" }, named), percent(version.normalised_rmse), bytes(version.size_bytes),
      when(version.created_at), h("a", { href: `#/rollout/${name}/${version.number}` }, "Roll out")];
  };
  const columns = [["compare"], ["version"], ["aliases"], ["held-out error", "n"], ["size", "n"], ["since"], [""]];
  const list = paged((after) => get(`/v1/models/${encodeURIComponent(name)}/versions?${page(after)}`, { signal }), (versions) => (versions.length
    ? h("div", null, table("Versions", columns, versions.map(row)), versions.length > 1 && h("p", null, chosen.button))
    : empty("No version", h("p", null, "All have been deleted."))));
  await list.load();
  return h("div", null, h("h1", null, model.name), h("p", null, model.description || h("span", { class: "soft" }, "no description")),
    list.element, h("h2", null, "An alias"), aliasForm(model, signal), described(model, etag, signal));
}

function described(model, etag, signal) {
  const text = h("textarea", { rows: 3, maxlength: 10000 });
  text.value = model.description;
  const keep = action("Save", async () => {
    // As it was read: what another has changed meanwhile is not overwritten.
    await ask("PATCH", `/v1/models/${model.name}`, { description: text.value }, { more: { "if-match": etag } });
    say("Saved");
    if (!signal.aborted) again();
  }, { class: "quiet" });
  return h("details", null, h("summary", null, "Change the description"), field("Description", text), h("p", null, keep.button), keep.place);
}

function aliasForm(model, signal) {
  const alias = h("input", { required: true, value: "champion", pattern: "[a-z0-9][a-z0-9_\\-]{0,63}", spellcheck: "false", "aria-describedby": "alias-hint", title: ALIAS_HINT });
  const number = h("input", { type: "number", required: true, min: 1, value: model.latest || 1 });
  const move = action("Point it there", () => moveAlias(model, alias.value, Number(number.value), signal), { type: "submit" });
  const remove = action("Remove it", async () => {
    if (!alias.reportValidity()) return;
    if (!(await confirmed(`Remove the alias ${alias.value}? The versions stay.`, { label: "Remove the alias" }))) return;
    const path = aliasPath(model, alias.value);
    await ask("DELETE", path, undefined, { more: await asShown(model, alias.value, path) });
    say(`${alias.value} is removed`);
    if (!signal.aborted) again();
  }, { class: "quiet" });
  return h("form", { onsubmit: (event) => { event.preventDefault(); move.act(); } },
    h("div", { class: "row end" }, field("Alias", alias), field("Version", number), move.button, remove.button),
    h("p", { class: "soft", id: "alias-hint" }, ALIAS_HINT), h("p", { class: "soft" }, GATES), move.place, remove.place);
}

const aliasPath = (model, alias) => `/v1/models/${model.name}/aliases/${encodeURIComponent(alias)}`;

/** The header by which a change replaces an alias as `model` shows it and no other; one that has moved since is left alone. */
async function asShown(model, alias, path) {
  const { found, etag } = await getRevision(path);
  if (found.number !== model.aliases[alias]) {
    throw new Problem(412, { detail: `${alias} has moved meanwhile, to version ${found.number}; look again before you change it` });
  }
  return { "if-match": etag };
}

/**
 * Point an alias at a version; where the gates of champion refuse, ask for a reason.
 *
 * `model` is as the view shows it: an alias that has moved since is left alone.
 */
export async function moveAlias(model, alias, version, signal) {
  const path = aliasPath(model, alias);
  const more = Object.hasOwn(model.aliases, alias) ? await asShown(model, alias, path) : {};
  let moved;
  try {
    moved = await ask("PUT", path, { version }, { more });
  } catch (error) {
    if (error.code !== "gate_failed") throw error;
    const reason = await confirmed(`${error.message}. Do it all the same?`, { label: "Override", word: "Reason, for the history" });
    if (reason === null) throw error;
    moved = await ask("PUT", path, { version, override: reason }, { more });
  }
  say(`${alias} is version ${version} now`);
  const told = (moved.warnings || []).join(" ");
  if (told) await confirmed(`To know: ${told}`, { label: "I see" });
  if (!signal.aborted) again();
}

/** The same view anew. */
const again = () => window.dispatchEvent(new HashChangeEvent("hashchange"));
