"""Path templates: `/patients/{id}` parsed once; filled so that no value can add a segment, climb or reach another host (rules F4)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tools.errors import ArgumentFault

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9_.$-]{1,64}", re.ASCII)
_PCT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9_~-]+", re.ASCII)  # nothing that could climb, end a segment or need encoding
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """`parts` alternate literal (already encoded), name, literal, ...; `segments` is how many "/" the finished path has."""

    parts: tuple[str, ...]
    names: tuple[str, ...]
    segments: int

    def fill(self, values: Mapping[str, Any]) -> tuple[str, list[ArgumentFault]]:
        """The finished path, or what is wrong with the values; each becomes part of exactly one segment."""
        parts = self.parts
        if len(parts) == 1:
            return parts[0], []
        out = [parts[0]]
        faults: list[ArgumentFault] = []
        for i, name in enumerate(self.names):
            text = path_text(values.get(name))
            if text is None or not _PLAIN.fullmatch(text):
                if fault := value_fault(text):
                    faults.append(ArgumentFault(name, fault))
                    continue
                text = quote(text or "", safe="")
            out.append(text)
            out.append(parts[i + 1])
        if faults:
            return "", faults
        path = "".join(out)
        # Two values can make ".." together ({a}{b}), which no check of one value sees.
        if path.count("/") != self.segments or (("." in path or "%" in path) and _has_dots(path)):
            faults.append(ArgumentFault(self.names[0], "these values together would leave the path of this tool"))
        return path, faults


def _has_dots(path: str) -> bool:
    return any(unquote(segment) in (".", "..") for segment in path.split("/"))


def path_text(value: Any) -> str | None:
    """A scalar as it stands in a path; None for what can't stand there (null, arrays, objects)."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None


def value_fault(text: str | None) -> str | None:
    """Why a value can't be a path segment, in words for a model; None when it can."""
    if text is None:
        return "goes into the path and must be one text or number."
    if text == "":
        return "is empty; it goes into the path and must say which record is meant."
    decoded = unquote(text)
    # Servers that decode before they split would see further segments: "a/b" may be one identifier (GitLab's), but none that
    # would climb or leave a segment empty, however it is spelled.
    if any(_climbs(part) for spelling in (text, decoded) for part in re.split(r"[/\\]", spelling)):
        return f'"{text[:80]}" can\'t stand in a path; use the identifier exactly as another tool returned it.'
    if _CONTROL.search(text) or _CONTROL.search(decoded):
        return "has a line break or control character, which can't stand in a path."
    return None


def _climbs(segment: str) -> bool:
    """Empty, `.` or `..`, also before a path parameter (`..;x`)."""
    return segment.partition(";")[0] in ("", ".", "..")


def parse_path(path: str) -> PathTemplate:
    """Raises ValueError with a sentence that says what to change."""
    if _CONTROL.search(path):
        raise ValueError("a path has no line breaks or control characters")
    if "?" in _PLACEHOLDER.sub("", path):
        raise ValueError(
            'a path has no query: make an argument of it (x-fixed with a default for a constant), e.g. "/search" and "q"'
        )
    if "#" in _PLACEHOLDER.sub("", path):
        raise ValueError("a path has no fragment (#)")
    if "://" in path or path.startswith("//"):
        raise ValueError("a path is relative to base_url, like /patients/{id}; put the host into base_url")
    if "\\" in path:
        raise ValueError("a path uses / between segments, not \\")
    if _PCT.search(path):
        raise ValueError("a % in a path must be written %25")
    if path and not path.startswith("/"):
        path = "/" + path
    parts: list[str] = []
    names: list[str] = []
    at = 0
    for found in _PLACEHOLDER.finditer(path):
        name = found.group(1)
        if not _NAME.fullmatch(name):
            raise ValueError(f"{{{name}}} is not a path parameter: a name of A-Z a-z 0-9 _ . $ - in braces")
        if name in names:
            raise ValueError(f"{{{name}}} stands twice in the path")
        parts.append(_literal(path[at : found.start()]))
        names.append(name)
        at = found.end()
    parts.append(_literal(path[at:]))
    if any("{" in p or "}" in p for p in parts):
        raise ValueError("the path has a brace without its partner; a parameter is written {name}")
    literal = "x".join(parts)
    if any(unquote(s) in (".", "..") for s in literal.split("/")):
        raise ValueError("a path has no . or .. segment")
    return PathTemplate(tuple(parts), tuple(names), literal.count("/"))


def _literal(text: str) -> str:
    if "{" in text or "}" in text:
        return text
    return quote(text, safe="/:@!$&'()*+,;=~-._%")  # RFC 3986 3.3 pchar; existing %XX stay


def base_url_fault(url: str) -> str | None:
    """Why `url` can't be a base URL; None when it can: absolute http(s), no userinfo, query or fragment."""
    if _CONTROL.search(url) or " " in url or "\\" in url:
        return "a base URL has no blanks, backslashes or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        return f"not a URL: {e}"
    if parts.scheme.lower() not in ("http", "https"):
        return "a base URL begins with https:// or http://"
    if not parts.hostname:
        return "a base URL names a host, like https://api.example.com/v1"
    if "@" in parts.netloc:
        return "a base URL has no user or password; use auth"
    if "?" in url or "#" in url:
        return "a base URL has no query or fragment"
    if port == 0:
        return "port 0 can't be called"
    if "{" in url or "}" in url:
        return "a base URL has no parameters; they go into path"
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]%_-]+", parts.netloc):
        return "the host has characters that no host name has (write international names in their xn-- form)"
    if any(unquote(s) in (".", "..") for s in parts.path.split("/")):
        return "a base URL's path has no . or .. segment"
    return None


def origin_of(url: str) -> str:
    """scheme://host:port in lower case with the port always written (rules A1, F5)."""
    end = url.find("/", 8)  # behind "https://"; what comes after decides nothing, so that it can be remembered
    return _origin_of(url if end < 0 else url[:end])


@lru_cache(maxsize=4096)
def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{parts.port or (443 if scheme == 'https' else 80)}"
