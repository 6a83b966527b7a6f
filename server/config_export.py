"""Integrations as a file that `apply` takes: what isn't a default, references to secrets and never values (rules A7)."""

import re
from collections.abc import Iterable
from typing import Any, cast

import yaml

from server.config_file import SCALARS
from tools.models import READ_ONLY_FIELDS, Integration, IntegrationResponse
from tools.secrets import MASK

_ODD_BREAKS = "\r\x85\u2028\u2029\ufeff"
"""YAML takes these for line breaks (or a mark at the beginning): only double quotes keep them."""


def export_all(integrations: Iterable[tuple[Integration, IntegrationResponse]], workspace: str) -> str:
    """One file with all of them, by name."""
    parts = ["integrations:\n"]
    for stored, shown in integrations:
        parts += [_comment(stored, workspace, shown), dump([as_entry(shown)])]
    return "".join(parts) if len(parts) > 1 else "integrations: []\n"


def export_one(stored: Integration, shown: IntegrationResponse, workspace: str) -> str:
    """A file of its own."""
    return _comment(stored, workspace, shown) + dump(as_entry(shown))


def as_entry(shown: IntegrationResponse) -> dict[str, Any]:
    """An integration as `create` takes it, without what is a default anyway."""
    fields = shown.model_dump(mode="json", exclude_defaults=True, exclude=set(READ_ONLY_FIELDS))
    return {name: escaped(fields.pop(name)) for name in ("name", "display_name")} | {
        k: escaped(v) for k, v in fields.items()
    }


def dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def escaped(value: Any) -> Any:
    """`${` is literal in what is stored, and a variable in a file."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {k: escaped(v) for k, v in cast("dict[str, Any]", value).items()}
        case list():
            return [escaped(v) for v in cast("list[Any]", value)]
        case _:
            return value


def _comment(stored: Integration, workspace: str, shown: IntegrationResponse) -> str:
    """How to give what isn't in the file."""
    lines: list[str] = []
    for path in stored.bindings:
        lines.append(f"# {stored.name} needs the secret {path}; its value isn't here. Where it isn't stored yet:\n")
        lines.append(f'#   printf %s "$VALUE" | integrations-mcp secrets set {path} --workspace {workspace}\n')
    headers = [shown.mcp_headers or {}, shown.mcp_env or {}, *(e.headers for e in shown.endpoints)]
    if any(value == MASK for named in headers for value in named.values()):
        lines.append(f"# {stored.name}: {MASK} keeps the header value that is stored; elsewhere, write it again.\n")
    return "".join(lines)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever our reader or a YAML 1.1 reader would not take for text, and writes lines as lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if any(c in text for c in _ODD_BREAKS):
        style = '"'
    elif "\n" in text and not any(line != line.rstrip() for line in text.split("\n")):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType] - PyYAML has half of its types


_Dumper.add_representer(str, _text)
for _tag, _pattern, _first in SCALARS:
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), [*_first])  # pyright: ignore[reportUnknownMemberType]
