"""What a tool's text may hold that isn't for people: hidden characters, look-alikes, and instructions to the model. Pure.

A finding is a reason to look, not a proof: legitimate texts are found too, and a clever one isn't. Operators choose whether such
tools are only reported or also withheld (the setting `suspicious_tools`).
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tools.json_values import is_array, is_object

MAX_TEXT: Final = 100_000
"""Characters of one tool that are looked at."""
MAX_FOUND: Final = 10

_JOINERS = "\u200c\u200d"
# Cyrillic and Greek letters that a reader takes for Latin ones.
_LOOK_ALIKES = "аеорсухіјѕһԁԛԝАВЕКМНОРСТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ"
_WORD = re.compile(r"\w+")
_LATIN, _LOOKS_LATIN = re.compile("[A-Za-z]"), re.compile(f"[{_LOOK_ALIKES}]")
_SUSPECT = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\xac\xae-\u05ff\u0900-\u180d\u1e00-\u1fff]")
"""A quick sieve: only what isn't in these plain ranges needs its category looked up."""
_INSTRUCTIONS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), what)
    for pattern, what in (
        (
            r"\b(?:ignore|disregard|forget|override|bypass)\b.{0,40}\b(?:previous|prior|above|earlier|all|other|your|system|safety)\b"
            r".{0,30}\b(?:instruction|prompt|rule|message|guideline|restriction)s?\b",
            "tells the model to ignore its instructions",
        ),
        (
            r"</?\s*(?:important|system|instructions?|secret|hidden|admin|assistant|critical)\b[^<>]{0,60}>",
            "has markup that is addressed to a model",
        ),
        (
            r"\b(?:do not|don't|never|without)\b[^.;:]{0,30}\b(?:tell|mention|inform|reveal|notify|alert)(?:ing)?\b[^.;:]{0,30}"
            r"\b(?:user|human|anyone|operator|person)\b",
            "tells the model to keep something from the user",
        ),
        (
            r"~/\.(?:ssh|aws|config|cursor|env|kube|gnupg)\b|\bid_(?:rsa|ed25519)\b|/etc/(?:passwd|shadow)\b|\bmcp\.json\b",
            "names files with credentials",
        ),
        (r"\b(?:system prompt|developer message|hidden instruction)s?\b", "speaks of the model's own prompt"),
        (
            r"\b(?:send|forward|bcc|post|upload|append|include|pass)\b.{0,60}"
            r"\b(?:conversation|chat history|context window|private keys?|api keys?|credentials|environment variables?)\b",
            "asks for the conversation or for credentials",
        ),
        (
            r"\b(?:instead of|rather than)\b.{0,30}\b(?:any |all |every |the )?other\b.{0,20}\btools?\b"
            r"|\b(?:don't|do not|never)\b.{0,20}\b(?:use|call)\b.{0,20}\b(?:any |the )?other tools?\b",
            "keeps the model from other tools",
        ),
    )
)


def suspicions(text: str) -> list[str]:
    """What is suspicious in a text, each in some words; empty for most."""
    text = text[:MAX_TEXT]
    found: list[str] = []
    hidden = (
        sorted({c for i, c in enumerate(text) if _SUSPECT.match(c) and _hides(text, i)})
        if _SUSPECT.search(text)
        else []
    )
    if hidden:
        listed = ", ".join(f"U+{ord(c):04X}" for c in hidden[:5])
        found.append(f"holds hidden characters ({listed}{', ...' if len(hidden) > 5 else ''})")
    plain = text if text.isascii() else _read(text)
    if not text.isascii() and (mixed := _mixed(text)) is not None:
        found.append(f"has letters that look like others ({mixed[:40]!a})")
    found += [what for pattern, what in _INSTRUCTIONS if pattern.search(plain)]
    return found


def suspicions_of_tool(entry: Mapping[str, Any]) -> list[str]:
    """The same of all that a model reads of a tool's entry, each with its place; at most MAX_FOUND."""
    found: list[str] = []
    name = entry.get("name")
    if isinstance(name, str) and not name.isascii():
        found.append(f"name: has letters that look like others ({name[:40]!a})")
    left = MAX_TEXT
    for place, text in _texts(entry):
        left -= len(text)
        if left < 0:
            found.append(f"{place}: more than {MAX_TEXT:,} characters, which nobody reads")
            break
        found += [f"{place}: {what}" for what in suspicions(text)]
        if len(found) >= MAX_FOUND:
            break
    return found[:MAX_FOUND]


def _mixed(text: str) -> str | None:
    """The first word of Latin letters and of others that look like them. Word by word: one pattern for both takes time by the cube."""
    words = (word[0] for word in _WORD.finditer(text))
    return next((w for w in words if not w.isascii() and _LOOKS_LATIN.search(w) and _LATIN.search(w)), None)


def _hides(text: str, at: int) -> bool:
    """Format, control, private and tag characters; a joiner within a script that needs it doesn't hide anything."""
    c = text[at]
    if c in _JOINERS:
        around = text[at - 1 : at] + text[at + 1 : at + 2]
        return len(around) < 2 or around.isascii()
    return unicodedata.category(c) in ("Cf", "Cc", "Co", "Cs") or 0xE0100 <= ord(c) <= 0xE01EF


def _read(text: str) -> str:
    """As a model reads it: tag characters are ASCII to it, width and style are nothing."""
    tags = "".join(chr(ord(c) - 0xE0000) if 0xE0020 <= ord(c) <= 0xE007E else c for c in text)
    plain = unicodedata.normalize("NFKC", tags)
    return "".join(c for c in plain if unicodedata.category(c) != "Cf")


def _texts(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("title", "description"):
        if isinstance(text := entry.get(field), str):
            yield field, text
    annotations = entry.get("annotations")
    if is_object(annotations) and isinstance(title := annotations.get("title"), str):
        yield "annotations.title", title
    for field in ("inputSchema", "outputSchema"):
        yield from _words(field, entry.get(field))


def _words(place: str, schema: Any) -> Iterator[tuple[str, str]]:
    """Every text of a schema, names of arguments too: a model reads them all."""
    todo: list[tuple[str, Any]] = [(place, schema)]
    while todo:
        where, value = todo.pop()
        if isinstance(value, str):
            yield where, value
        elif is_object(value):
            for key, below in value.items():
                if not key.isascii():
                    yield f"{where}.{ascii(key)[:40]}", key
                todo.append((f"{where}.{key[:40]}", below))
        elif is_array(value):
            todo.extend((where, below) for below in value)
