"""Names and descriptions of a source as tools have them: cleaned, short, unique. Pure."""

import base64
import hashlib
import html
import re
from collections.abc import Collection

MAX_ENDPOINT_NAME = 64
_LONG = 800
_EMPTY = frozenset({"api", "the", "rest", "openapi", "swagger", "v1", "v2", "v3", "mcp", "server", "servers"})


def endpoint_name(text: str, taken: Collection[str] = ()) -> str:
    """snake_case within 64 characters, unlike those `taken`: `listPets` -> list_pets, `repos/get-all` -> repos_get_all."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text)
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words)
    name = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_").lower() or "call"
    if len(name) > MAX_ENDPOINT_NAME:
        head = name[: MAX_ENDPOINT_NAME - 7]
        head = head[: head.rfind("_")] if "_" in head else head
        name = f"{head}_{_digest(text)}"
    found, number = name, 2
    while found in taken:
        found = f"{name[: MAX_ENDPOINT_NAME - 4]}_{number}"
        number += 1
    return found


def name_of_operation(method: str, path: str) -> str:
    """For an operation without operationId: GET /pets/{id} -> get_pets_by_id."""
    words = re.sub(r"\{([^{}]*)\}", r"by_\1", path)
    return f"{method.lower()}_{words}"


def integration_name(title: str) -> str:
    """`^[a-z0-9][a-z0-9_-]*[a-z0-9]$` from a title; words like API say nothing."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    kept = [w for w in words if w not in _EMPTY] or words
    name = "_".join(kept)[:24].strip("_")
    return name if len(name) >= 2 else "imported"


def plain_text(text: object, limit: int = _LONG) -> str:
    """A description without markup in one paragraph, cut behind a whole sentence where there is one, else a whole word."""
    if not isinstance(text, str):
        return ""
    clean = text[:20_000]
    clean = re.sub(r"```.*?(```|$)", " ", clean, flags=re.DOTALL)
    clean = re.sub(r"<[^<>]{1,200}>", " ", clean)
    clean = re.sub(r"!?\[([^\[\]]{0,200})\]\([^()\s]{0,500}\)", r"\1", clean)
    clean = html.unescape(re.sub(r"[*_]{2,}|`|^\s*#+\s*|^\s*[|>]+", "", clean, flags=re.MULTILINE))
    clean = " ".join(clean.split())
    if not clean.isprintable():
        clean = " ".join("".join(c if c.isprintable() else " " for c in clean).split())
    if len(clean) <= limit:
        return clean
    cut = clean[:limit]
    sentence = max(cut.rfind(". "), cut.rfind("! "), cut.rfind("? "))
    if sentence > limit // 3:
        return cut[: sentence + 1]
    return cut[: max(cut.rfind(" "), 1)].rstrip(" ,;:") + "…" if " " in cut else cut[: limit - 1] + "…"


def _digest(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()).decode()[:6].lower()
