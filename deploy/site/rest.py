"""The REST reference: every route, schema and problem, from the application itself."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.folder import ROOT
from deploy.site.markdown import cell, sentence, table

_REFERENCE = "#/components/schemas/"
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "`{}`",
}
_DOORS = ("UM-Bridge", "Open Inference Protocol", "Tesseract")


def page() -> str:
    """The reference as Markdown."""
    from api.app import create_app
    from services.settings import Settings

    described = create_app(Settings()).openapi()
    groups = {tag["name"]: tag["description"] for tag in described["tags"]}
    lines = [
        # Headings of routes and schemas are too many for the sidebar of every page.
        "---\ntocdepth: 2\n---\n\n# REST",
        described["info"]["description"],
        "A key goes into `Authorization: Bearer`, `X-API-Key`, or the password of "
        "Basic; [keys](../keys.md) says which scopes there are. A running gateway "
        "has the same as `/openapi.json`, and as a view of the [page](../page.md) at "
        "`/docs`.",
    ]
    by_tag: dict[str, list[str]] = {}
    rows = []
    for path, item in described["paths"].items():
        for method, operation in item.items():
            section = by_tag.setdefault(operation["tags"][0], [])
            section.extend(_operation(method.upper(), path, operation))
            route = f"{method.upper()} {path}"
            rows.append((f"[`{route}`](#{anchor(route)})", operation["summary"]))
    lines.append(table(("route", "what it does"), rows))
    for tag in sorted(by_tag, key=lambda each: each in _DOORS):
        lines += [f"## {tag[0].upper()}{tag[1:]}", groups.get(tag, ""), *by_tag[tag]]
    lines += ["## Schemas"]
    for name, schema in sorted(described["components"]["schemas"].items()):
        lines += _schema(name, schema)
    return "\n\n".join([line for line in (*lines, *_problems()) if line]) + "\n"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    from api.auth import OPEN, needed_scope

    scope = "none" if OPEN.match(path) else f"`{needed_scope(method, path)}`"
    yield f"({anchor(f'{method} {path}')})=\n### `{method} {path}`"
    yield f"**{operation['summary']}.** Scope: {scope}."
    yield operation["description"]
    parameters = operation.get("parameters", ())
    if parameters:
        yield table(
            ("parameter", "in", "type", "meaning"),
            [
                (
                    f"`{each['name']}`"
                    + (", required" if each.get("required") else ""),
                    each["in"],
                    kind(each["schema"]),
                    sentence(each.get("description", "")),
                )
                for each in parameters
            ],
        )
    yield from _body(operation.get("requestBody", {}).get("content", {}))
    yield table(
        ("status", "answer"),
        [_answer(*each) for each in operation["responses"].items()],
    )


def _body(content: Mapping[str, Any]) -> Iterator[str]:
    for media, body in content.items():
        said = f"Body `{media}`: {kind(body['schema'])}."
        yield f"{said} {sentence(body.get('description', ''))}".rstrip()
        if "example" in body:
            yield _json(body["example"])


def _answer(status: str, response: Mapping[str, Any]) -> tuple[str, str]:
    forms = [
        f"`{media}`: {kind(each.get('schema', {}))}"
        for media, each in response.get("content", {}).items()
    ]
    meaning = response["description"].replace("Successful Response", "")
    return status, "; ".join(filter(None, (sentence(meaning).rstrip("."), *forms)))


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"(schema-{name.lower()})=\n### {name}"
    yield sentence(schema.get("description", ""))
    required = schema.get("required", ())
    if schema.get("properties"):
        yield table(
            ("field", "type", "default", "meaning"),
            [
                (
                    f"`{field}`",
                    kind(each),
                    "required" if field in required else _default(each),
                    sentence(each.get("description", "")),
                )
                for field, each in schema["properties"].items()
            ],
        )
    else:
        yield kind(schema)
    for example in schema.get("examples", ()):
        yield _json(example)


def anchor(route: str) -> str:
    """The place of a route on the page."""
    return "-".join(re.findall("[a-z0-9]+", route.lower()))


def kind(schema: Mapping[str, Any]) -> str:
    """The type of a schema in words, with its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REFERENCE)
        return f"[{name}](#schema-{name.lower()})"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(kind(each) for each in schema[union]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    name = schema.get("type", "any")
    if name == "array":
        name = f"array of {kind(schema.get('items', {}))}"
    elif name == "string" and "format" in schema:
        name = str(schema["format"])
    bounds = [
        text.format(_number(schema[key]))
        for key, text in _BOUNDS.items()
        if key in schema
    ]
    return ", ".join([name, *bounds])


def _number(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _default(schema: Mapping[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"


def _problems() -> Iterator[str]:
    from api.errors import status_of
    from services import errors

    kinds = [errors.ServiceError, *errors.subclasses()]
    yield "## Problems"
    yield (
        "A refusal is a [ProblemOut](#schema-problemout) of the type "
        "`urn:spnode:problem:` and its code. Codes are stable. A client may rely on "
        "the code, and shows `detail` to people."
    )
    yield table(
        ("status", "code", "meaning"),
        sorted(
            (str(status_of(each)), f"`{each.default_code}`", cell(summary(each)))
            for each in kinds
        ),
    )
    yield "Narrower codes, with the status of their kind:"
    rows = {
        (str(status_of(getattr(errors, name))), f"`{code}`")
        for code, name in narrow_codes()
        if hasattr(errors, name)
    }
    yield table(("status", "code"), sorted(rows))
    yield "What a failed job has as `error.code`: [jobs](../jobs.md#why-a-job-failed)."


def summary(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return sentence((thing.__doc__ or "").split("\n\n")[0])


def narrow_codes() -> set[tuple[str, str]]:
    """Each ``code="…"`` in the sources, with every class that is called with it."""
    return {
        found
        for package in ("api", "services")
        for path in (ROOT / package).rglob("*.py")
        for found in _codes_in(path)
    }


def _codes_in(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        for keyword in node.keywords:
            if keyword.arg != "code":
                continue
            value = keyword.value
            either = (value.body, value.orelse) if isinstance(value, ast.IfExp) else ()
            for each in either or (value,):
                if isinstance(each, ast.Constant):
                    yield str(each.value), name
