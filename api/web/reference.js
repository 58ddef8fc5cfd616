// REST as the service describes it: every route, what it takes, answers and refuses.

import { field, h, table } from "./elements.js";
import { get } from "./service.js";

export async function referenceView(_, signal) {
  const described = await get("/openapi.json", { signal });
  const routes = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => entry(described, method.toUpperCase(), path, operation)));
  const schemas = Object.values(described.components.schemas).filter((each) => each.properties).sort((a, b) => (a.title < b.title ? -1 : 1));
  const refusals = problems(described);
  const named = schemas.map((each) => card(each.title, h("code", null, each.title), [h("p", null, each.description), fieldsOf(each)]));
  const all = [...routes, refusals, ...named];
  const search = h("input", { type: "search", spellcheck: "false" });
  search.addEventListener("input", () => {
    for (const { text, element } of all) element.hidden = !text.includes(search.value.toLowerCase());
  });
  return h("div", null, h("h1", null, "REST"),
    h("p", null, "Every call takes a key: ", h("code", null, "Authorization: Bearer spn_…"), ". Errors are RFC 9457 problems. The whole as ",
      h("a", { href: "/openapi.json" }, "OpenAPI"), "."),
    field("Find", search, "A path, a word of what a call does, a type or a code"), h("br"), routes.map(({ element }) => element),
    h("h2", null, "What is refused"), refusals.element, h("h2", null, "Types"), named.map(({ element }) => element));
}

/** What unfolds, and the text by which it is found. */
function card(text, title, children) {
  return { text: text.toLowerCase(), element: h("details", { class: "card" }, h("summary", null, title), children) };
}

function entry(described, method, path, operation) {
  const parameters = (operation.parameters || []).filter((each) => each.in !== "path");
  const bodies = Object.entries((operation.requestBody || {}).content || {});
  return card(`${method} ${path} ${operation.summary}`, [h("strong", null, method), " ", h("code", null, path), ` · ${operation.summary}`], [
    h("p", null, operation.description),
    parameters.length ? table(`Parameters of ${method} ${path}`, [["parameter"], ["in"], ["type"], ["default"], ["about", "wrap"]],
      parameters.map((each) => [each.name, each.in, kind(each.schema), String(each.schema?.default ?? ""), each.description || ""])) : null,
    bodies.map(([type, { schema, example }]) => [h("p", { class: "soft" }, `Body: ${type}`), fields(described, schema),
      example ? h("pre", { tabindex: "0" }, JSON.stringify(example, null, 2)) : null]),
    Object.entries(operation.responses).flatMap(([status, response]) => answer(described, status, response)),
  ]);
}

/** What comes back; the fields of refusals are the same everywhere, and stand once. */
function answer(described, status, { description, content = {} }) {
  const isRefusal = /XX$/.test(status);
  const forms = Object.entries(content).map(([type, { schema }]) => [type, schema || {}]);
  const said = [description === "Successful Response" ? "" : description, ...forms.map(([type, schema]) => (schema.type || schema.$ref ? `${type}: ${kind(schema)}` : type))];
  return [h("p", null, h("code", null, status), ` ${said.filter(Boolean).join("; ")}`),
    ...isRefusal ? [] : forms.flatMap(([, schema]) => fields(described, schema))];
}

/** The fields of what is one schema or one of several; of a page those of its items too. */
function fields(described, schema) {
  const named = (each) => described.components.schemas[(each.$ref || "").split("/").at(-1)] || each;
  return (schema.oneOf || [schema]).map(named).filter((each) => each.properties).flatMap((each) => {
    const items = each.properties.data?.items?.$ref && named(each.properties.data.items);
    return items && items.properties ? [fieldsOf(each), fieldsOf(items)] : [fieldsOf(each)];
  });
}

function fieldsOf(schema) {
  return table(`Fields of ${schema.title}`, [[schema.title], ["type"], ["default"], ["about", "wrap"]], Object.entries(schema.properties).map(([name, found]) => [
    (schema.required || []).includes(name) ? h("strong", null, name) : name, kind(found), found.default === undefined ? "" : JSON.stringify(found.default), found.description || ""]));
}

/** Every code that a refusal may have. */
function problems(described) {
  const codes = described["x-problems"] || [];
  return card(`problems ${codes.map(({ code }) => code).join(" ")}`, `A problem and its ${codes.length} codes`, [
    h("p", null, "Codes are stable: a program may rely on them, and shows the detail to people."),
    fieldsOf(described.components.schemas.ProblemOut),
    table("Codes of problems", [["status", "n"], ["code"], ["meaning", "wrap"]], codes.map(({ status, code, means }) => [String(status), h("code", null, code), means]))]);
}

const BOUNDS = [
  ["minimum", "at least"], ["exclusiveMinimum", "above"], ["maximum", "at most"], ["exclusiveMaximum", "below"],
  ["minLength", "at least this long:"], ["maxLength", "at most this long:"], ["minItems", "items, at least"], ["maxItems", "items, at most"],
];

/** What a value may be, in a line. */
function kind(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const several = schema.anyOf || schema.oneOf;
  if (several) return several.map(kind).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(", ");
  const what = schema.type === "array" ? `list of ${kind(schema.items)}` : schema.type || "any";
  return [what, ...BOUNDS.filter(([name]) => schema[name] !== undefined).map(([name, word]) => `${word} ${schema[name]}`)].join(", ");
}
