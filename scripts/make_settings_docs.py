"""Write `docs/settings.md` and `.env.example` from the fields of the settings.

    python -m scripts.make_settings_docs

With `--check`, it writes nothing, and the exit status is 1 if a file is not current.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType

from app.config.groups.group import SettingsGroup
from app.config.secrets import is_secret
from app.config.settings import FIELDS, GROUPS

ROOT = Path(__file__).resolve().parent.parent
_WIDTH = 110

_PAGE_HEAD = """\
<!-- Written by `python -m scripts.make_settings_docs`. Change the fields in app/config/groups/ instead. -->

# Settings

Settings come from environment variables, or from a file `.env` in the working directory (copy
`.env.example`). If a setting is in both, the environment wins. Names may be written in lower case, and an
empty value counts as not set. A change takes effect when the service is started again.

- **A wrong value** stops the start with one line on stderr and exit status 2: `Wrong setting: TOP_K: Input
  should be less than or equal to 50 (it is '500')`. The values of secrets and of addresses are left out.
- **A misspelt name** in `.env` stops the start, too, if it is nearly the name of a setting, which would
  otherwise keep its default unnoticed. Other names in the file, and any in the environment, are ignored.
- **Secrets** never appear in logs, answers and errors, nor do the passwords in them:
  {secrets}.

`make doctor` checks whether the settings fit together, and whether what they name can be reached.
"""

_EXAMPLE_HEAD = """\
# Copy this file to .env, and remove the # in front of what you set. The values are the defaults.
# More about each setting is in docs/settings.md.
# Written by `python -m scripts.make_settings_docs`: change the fields in app/config/groups/ instead.
"""


def settings_page() -> str:
    """Return the text of `docs/settings.md`, with a table for each group."""
    *others, last = (f"`{name.upper()}`" for name, field in FIELDS.items() if is_secret(field))
    head = _PAGE_HEAD.format(secrets=f"{', '.join(others)} and {last}")
    return "\n".join([head, *(line for group in GROUPS.values() for line in _section(group))])


def env_example() -> str:
    """Return the text of `.env.example`, in which every setting is commented out."""
    lines = [_EXAMPLE_HEAD.rstrip()]
    for group in GROUPS.values():
        lines += [f"\n# --- {group.model_config['title']} ---\n"]
        for name, field in group.fields_by_setting().items():
            first, *_ = (field.description or "").replace("`", "").split(". ")
            lines += textwrap.wrap(
                f"{first.removesuffix('.')}.", _WIDTH, initial_indent="# ", subsequent_indent="# "
            )
            lines += [f"#{name.upper()}={_default(field)}"]
    return "\n".join(lines) + "\n"


def _section(group: type[SettingsGroup]) -> Iterator[str]:
    yield f"## {group.model_config['title']}\n"
    yield f"{group.__doc__}\n"
    yield "| setting | default | values | meaning |"
    yield "| --- | --- | --- | --- |"
    schema = group.model_json_schema()
    for name, field in group.fields_by_setting().items():
        default = f"`{value}`" if (value := _default(field)) else ""
        yield f"| `{name.upper()}` | {default} | {_values(schema, name)} | {field.description} |"
    yield ""


def _default(field: FieldInfo) -> str:
    """Return a default as it is written in the environment; empty if there is none, or if it is computed."""
    match field.get_default():
        case None | () | PydanticUndefinedType():
            return ""
        case bool(value):
            return str(value).lower()
        case Enum(value=value):
            return str(value)
        case SecretStr() as secret:
            return secret.get_secret_value()
        case value:
            return str(value)


def _values(schema: dict[str, Any], name: str) -> str:
    """Describe the allowed values, as far as the schema has them."""
    kind = schema["properties"][name]
    kind = kind.get("anyOf", [kind])[0]
    if "$ref" in kind:
        return ", ".join(f"`{value}`" for value in schema["$defs"][kind["$ref"].rpartition("/")[2]]["enum"])
    match kind:
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"minimum": low, "maximum": high}:
            return f"{low} to {high}"
        case {"minimum": low}:
            return f"at least {low}"
        case {"exclusiveMinimum": low}:
            return f"more than {low}"
    return ""


FILES = {ROOT / "docs" / "settings.md": settings_page, ROOT / ".env.example": env_example}


def main() -> int:
    """Write the files that are not current, or only name them; return the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/settings.md and .env.example.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, name the files that are not current"
    )
    check = parser.parse_args().check
    status = 0
    for path, write in FILES.items():
        text = write()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            print(f"{path.relative_to(ROOT)} is not current: run python -m scripts.make_settings_docs")
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"Wrote {path.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
