// REST as the service describes it: every route, what it takes and what it answers.

import { field, h, table } from "./elements.js";
import { get } from "./service.js";

export async function referenceView(_, signal) {
  const described = await get("/openapi.json", { signal });
  const routes = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => entry(described, method.toUpperCase(), path, operation)));
  const search = h("input", { type: "search", spellcheck: "false" });
  search.addEventListener("input", () => {
    for (const { text, element } of routes) element.hidden = !text.includes(search.value.toLowerCase());
  });
  return h("div", null, h("h1", null, "REST"),
    h("p", null, "Every call takes a key: ", h("code", null, "Authorization: Bearer spn_…"), ". Errors are RFC 9457 problems. The whole as ",
      h("a", { href: "/openapi.json" }, "OpenAPI"), "."),
    field("Find", search), h("br"), routes.map(({ element }) => element));
}

function entry(described, method, path, operation) {
  const parameters = (operation.parameters || []).filter((each) => each.in !== "path");
  const bodies = Object.entries((operation.requestBody || {}).content || {});
  const element = h("details", { class: "card" },
    h("summary", null, h("strong", null, method), " ", h("code", null, path), ` · ${operation.summary}`),
    h("p", null, operation.description),
    parameters.length ? table(`Parameters of ${method} ${path}`, [["parameter"], ["in"], ["type"], ["default"], ["about", "wrap"]],
      parameters.map((each) => [each.name, each.in, kind(each.schema), String(each.schema?.default ?? ""), each.description || ""])) : null,
    bodies.map(([type, { schema, example }]) => [h("p", { class: "soft" }, `Body: ${type}`), fields(described, schema),
      example ? h("pre", { tabindex: "0" }, JSON.stringify(example, null, 2)) : null]),
    Object.entries(operation.responses).map(([status, { description }]) => h("p", null, h("code", null, status), ` ${description}`)));
  return { text: `${method} ${path} ${operation.summary}`.toLowerCase(), element };
}

/** The fields of a body that is one schema, or one of several. */
function fields(described, schema) {
  const named = (each) => described.components.schemas[(each.$ref || "").split("/").at(-1)] || each;
  return (schema.oneOf || [schema]).map(named).filter((each) => each.properties).map((each) =>
    table(`Fields of ${each.title}`, [[each.title], ["type"], ["default"], ["about", "wrap"]], Object.entries(each.properties).map(([name, found]) => [
      (each.required || []).includes(name) ? h("strong", null, name) : name, kind(found), found.default === undefined ? "" : JSON.stringify(found.default), found.description || ""])));
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
