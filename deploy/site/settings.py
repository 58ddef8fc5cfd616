"""All settings in a table, from the class that reads them."""

import json
from pathlib import Path
from typing import Any

from deploy.site.markdown import sentence, table
from deploy.site.rest import kind


def section() -> str:
    """The table as Markdown, for the end of the page of settings."""
    from services.settings import PREFIX, Settings

    schema = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        rows.append(
            (
                f"[`{variable}`](#{variable.lower()})",
                kind(schema[name]),
                _shown(field.default),
                sentence(field.description or ""),
            )
        )
    heads = ("variable", "type", "default", "meaning")
    return f"## All of them\n\n{table(heads, rows)}\n"


def _shown(default: Any) -> str:
    if default == "":
        return ""
    value = str(default) if isinstance(default, Path) else default
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"
