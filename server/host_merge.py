"""Our entry put into a host's own file: everything else in it stays, and a file that doesn't parse is left alone.

JSON is written again; TOML and YAML are changed as text, so that comments stay, and the result is parsed and compared with what
it must be before anything is written.
"""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml

from server.connections import KEY
from server.host_files import Format, HostFile, Target


class HostFileError(ValueError):
    """A host's file can't be changed safely; the message says what to do by hand."""


def write_entry(host: HostFile, target: Target, path: Path) -> Path | None:
    """Writes our entry; returns the backup of what was there, None for a new file. Raises HostFileError: nothing was changed."""
    real = path.resolve()  # dotfiles are often links
    before = real.read_text("utf-8") if real.exists() else ""
    after = merged(host, target, before)
    backup = None
    real.parent.mkdir(parents=True, exist_ok=True)
    if before:
        backup = real.with_name(f"{real.name}.backup-{datetime.now():%Y%m%d-%H%M%S}")
        backup.touch(mode=0o600)
        backup.write_text(before, "utf-8")
    handle, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")  # mode 0600: it may hold the key
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(after)
        os.replace(name, real)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return backup


def merged(host: HostFile, target: Target, before: str) -> str:
    """The file's text with our entry in place of an older one of ours. Raises HostFileError."""
    data = _parse(host, before)
    section: Any = {} if data.get(host.section) is None else data[host.section]
    if not isinstance(section, dict):
        raise HostFileError(f"{host.section} isn't an object in {host.title}'s file: put this in by hand")
    entry = host.entry(target)
    wanted = {**data, host.section: {**cast("dict[str, Any]", section), KEY: entry}}
    for name, items in host.more(target).items():
        old = [i for i in data.get(name, []) if i.get("id") not in {n["id"] for n in items}]
        wanted[name] = [*old, *items]
    match host.format:
        case "json":
            after = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
        case "toml":
            after = _toml_with(before, host.section, entry)
        case "yaml":
            after = _yaml_with(before, host.section, entry)
    if _parse(host, after) != wanted:
        raise HostFileError(
            f"{host.title}'s file is written in a way that can't be changed safely: put this in by hand"
        )
    return after


def shown(host: HostFile, target: Target) -> str:
    """What to paste into an empty file."""
    return merged(host, target, "")


def entry_in(host: HostFile, text: str) -> dict[str, Any] | None:
    """Our entry in a host's file, if there is one. Raises HostFileError where the file doesn't parse."""
    section: Any = _parse(host, text).get(host.section)
    entry: Any = cast("dict[str, Any]", section).get(KEY) if isinstance(section, dict) else None
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else None


def _parse(host: HostFile, text: str) -> dict[str, Any]:
    try:
        data = _read(host.format, text)
    except (ValueError, yaml.YAMLError) as e:
        raise HostFileError(
            f"{host.title}'s file doesn't parse ({str(e).splitlines()[0]}): put this in by hand"
        ) from None
    if not isinstance(data, dict):
        raise HostFileError(f"{host.title}'s file doesn't hold an object: put this in by hand")
    return cast("dict[str, Any]", data)


def _read(format: Format, text: str) -> Any:
    match format:
        case "json":
            return json.loads(text) if text.strip() else {}
        case "toml":
            return tomllib.loads(text)
        case "yaml":
            return yaml.safe_load(text) or {}


def _toml_with(before: str, section: str, entry: Mapping[str, Any]) -> str:
    """Our tables cut out, and put at the end: a table of TOML can stand anywhere."""
    ours = re.compile(rf"^\[\s*{re.escape(section)}\s*\.\s*\"?{KEY}\"?\s*(?:\.[^\]]*)?\]")
    kept: list[str] = []
    inside = False
    for line in before.splitlines(keepends=True):
        if line.startswith("["):
            inside = bool(ours.match(line))
        if not inside:
            kept.append(line)
    head = "".join(kept).rstrip("\n")
    lines = [f"[{section}.{KEY}]", *(f"{k} = {_toml(v)}" for k, v in entry.items() if not isinstance(v, dict))]
    for name, table in entry.items():
        if isinstance(table, dict):
            items = cast("dict[str, Any]", table).items()
            lines += ["", f"[{section}.{KEY}.{name}]", *(f"{k} = {_toml(v)}" for k, v in items)]
    return (head + "\n\n" if head else "") + "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Strings, numbers, booleans and lists of them are written alike in JSON and TOML (but for DEL, which JSON lets pass)."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _yaml_with(before: str, section: str, entry: Mapping[str, Any]) -> str:
    lines = before.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    block = yaml.safe_dump({KEY: dict(entry)}, sort_keys=False, allow_unicode=True).splitlines(keepends=True)
    root = cast("Any", yaml.compose(before, Loader=yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType] - PyYAML has half of its types
    pairs = cast("list[Any]", root.value) if root is not None else []
    found: Any = next((pair for pair in pairs if pair[0].value == section), None)
    if found is None:
        return "".join([*lines, f"{section}:\n", *(f"  {line}" for line in block)])
    children = cast("list[Any]", found[1].value) if isinstance(found[1], yaml.MappingNode) else []
    indent = " " * (children[0][0].start_mark.column if children else 2)
    at = found[0].start_mark.line + 1
    for key, value in children:
        if key.value == KEY:
            end = cast("int", value.end_mark.line)  # the next thing that YAML sees; comments before that are others'
            while end > key.start_mark.line + 1 and lines[end - 1].strip()[:1] in ("", "#"):
                end -= 1
            del lines[key.start_mark.line : end]
    if not children:
        lines[at - 1] = f"{section}:\n"
    return "".join([*lines[:at], *(f"{indent}{line}" for line in block), *lines[at:]])
