"""An OpenAPI document as a value: JSON or YAML read, its version, and what its references point at."""

import json
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

import yaml

from tools.importers.frame import MAX_BYTES, SourceFault
from tools.json_schema import is_array, is_object

Version = Literal["2.0", "3.0", "3.1"]

_MAX_CHAIN = 32
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RefFault(ValueError):
    """A `$ref` that leads nowhere or may not be followed."""


class _TextLoader(_Loader):
    """YAML as JSON knows it: dates stay text."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag != "tag:yaml.org,2002:timestamp"]
    for first, rows in _Loader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """`root` is the whole document; it may be faulty in any place but its first level."""

    root: dict[str, Any]
    version: Version

    def target(self, ref: Any) -> Any:
        """What a reference points at. Raises RefFault."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise RefFault(f"the reference {str(ref)[:120]} leaves the document, which isn't followed")
        found: Any = self.root
        for part in ref[1:].split("/")[1:]:
            step = unquote(part).replace("~1", "/").replace("~0", "~")
            if is_object(found) and step in found:
                found = found[step]
            elif is_array(found) and step.isascii() and step.isdigit() and int(step[:6]) < len(found):
                found = found[int(step[:6])]
            else:
                raise RefFault(f"the reference {ref[:120]} points at nothing")
        return found

    def object(self, value: Any, what: str) -> dict[str, Any]:
        """`value` with its references followed. Raises RefFault where that isn't an object."""
        for _ in range(_MAX_CHAIN):
            if not is_object(value):
                raise RefFault(f"{what} is not an object")
            if "$ref" not in value:
                return value
            value = self.target(value["$ref"])
        raise RefFault(f"the references of {what} never end")


def read_document(data: bytes) -> Document:
    """From JSON or YAML bytes. Raises SourceFault with what is wrong."""
    if len(data) > MAX_BYTES:
        raise SourceFault(f"the document has {len(data)} bytes; at most {MAX_BYTES} are read")
    return document_of(parse_value(data))


def parse_value(data: bytes) -> Any:
    """The value of JSON or YAML bytes. Raises SourceFault."""
    text = data.decode("utf-8-sig", "replace").strip()
    if text.startswith(("{", "[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as e:
            problem = f"not JSON: {e}"
    else:
        problem = ""
    try:
        return _as_json(yaml.load(text, _TextLoader))  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        words = " ".join(str(e).split())[:300]
        raise SourceFault(problem or f"neither JSON nor YAML: {words}") from None


def document_of(root: Any) -> Document:
    """Raises SourceFault where it isn't an OpenAPI document of a version that is known."""
    if not is_object(root):
        raise SourceFault("an OpenAPI document is an object; this is not one")
    said = str(root.get("openapi") or root.get("swagger") or "")
    for version in ("2.0", "3.0", "3.1"):
        if said == version or said.startswith(version + ".") or (said == "2" and version == "2.0"):
            return Document(root, version)
    if said.startswith("3."):
        return Document(root, "3.1")
    raise SourceFault(
        f"OpenAPI {said[:20]} is not known: 2.0, 3.0 and 3.1 are"
        if said
        else "no OpenAPI document: it says neither openapi nor swagger and a version"
    )


def _as_json(value: Any) -> Any:
    """YAML keys that aren't text (status codes, mostly) become text; shared nodes (aliases) stay shared. In place."""
    todo: list[Any] = [value]
    seen: set[int] = set()
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        if is_object(node):
            seen.add(id(node))
            for key in [k for k in node if not isinstance(k, str)]:  # pyright: ignore[reportUnnecessaryIsInstance] - YAML
                node[str(key)] = node.pop(key)
            todo.extend(node.values())
        elif is_array(node):
            seen.add(id(node))
            todo.extend(node)
    return value
