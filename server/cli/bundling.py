"""A document of several local files as one: references to files beside it or below become references inside it."""

import json
from pathlib import Path
from typing import Any

from tools.importers.documents import parse_value
from tools.importers.frame import MAX_BYTES, SourceFault
from tools.json_schema import is_array, is_object

_FILES = "x-files"
_MOST_FILES = 1000


def read_bundled(path: Path) -> str:
    """The document's text, as it is where it refers to no other file. A file outside its folder is never read.

    Raises SourceFault, OSError.
    """
    text = _read(path)
    root = parse_value(text)
    if not any(_is_file(ref) for ref in _refs(root)):
        return text.decode("utf-8", "replace")
    folder = path.parent.resolve()
    files: dict[str, Any] = {}
    waiting = [("", root)]
    while waiting:
        name, value = waiting.pop()
        for node in _nodes(value):
            ref = node["$ref"]
            if _is_file(ref):
                file, _, place = ref.partition("#")
                target = (folder / name).parent / file if name else folder / file
                target = target.resolve()
                if not target.is_relative_to(folder):
                    continue  # told where it is used: it leaves the document
                key = target.relative_to(folder).as_posix()
                if key not in files and target == path.resolve():
                    node["$ref"] = "#" + place
                    continue
                if key not in files:
                    if len(files) >= _MOST_FILES:
                        raise SourceFault(f"the document has more than {_MOST_FILES} files")
                    files[key] = parse_value(_read(target))
                    waiting.append((key, files[key]))
                node["$ref"] = f"#/{_FILES}/{_escaped(key)}{place}"
            elif name and ref.startswith("#"):
                node["$ref"] = f"#/{_FILES}/{_escaped(name)}{ref[1:]}"
    root[_FILES] = files
    return json.dumps(root, default=str)


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise SourceFault(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    return path.read_bytes()


def _is_file(ref: str) -> bool:
    return not ref.startswith(("#", "/")) and "://" not in ref


def _refs(value: Any) -> list[str]:
    return [node["$ref"] for node in _nodes(value)]


def _nodes(value: Any) -> list[dict[str, Any]]:
    """Every object with a `$ref` that is text; shared ones once."""
    found: list[dict[str, Any]] = []
    todo = [value]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if not (is_object(node) or is_array(node)) or id(node) in seen:
            continue
        seen.add(id(node))
        if is_object(node) and isinstance(node.get("$ref"), str):
            found.append(node)
        todo.extend(node.values() if is_object(node) else node)
    return found


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1").replace("%", "%25")
