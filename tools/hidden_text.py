"""Characters of an upstream's text that a person doesn't see and a model or a terminal may obey: taken out before anything is shown. Pure.

Taken out are control characters (C0 but tab and line ends, DEL, C1: what terminals run), tag characters (ASCII that only a model
reads), overrides of the direction, and what carries hidden bytes: variation selectors that vary no ideograph or stand in a row, and
invisible characters in a row. One joiner, mark or selector alone is how scripts and emoji are written, and stays.
"""

import json
import re
from typing import Any, Final

from tools.json_values import is_array, is_object, write_json

_CONTROLS: Final = bytes([*range(9), 11, 12, *range(14, 32), 127])
_PLAIN = re.compile(
    "[\t\n\r\x20-\x7e\xa0-\u200a\u200e-\u202c\u202f-\u205f\u2065-\ufdff\ufe10-\ufefe\uff00-\U000dffff]*+"
)
"""A quick sieve: a text of only these holds nothing to take out."""
_INVISIBLE = "\u200b-\u200d\u2060-\u2064\ufeff"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NEVER = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\U000e0000-\U000e007f"
_GONE: Final = object()
_HIDDEN = re.compile(  # begins with one set of characters, which re skips to fast
    f"[{_NEVER}{_INVISIBLE}{_SELECTORS}]"
    f"(?:(?<=[{_NEVER}])|(?<=[{_INVISIBLE}]{{2}})|(?<=[{_SELECTORS}]{{2}})"
    f"|(?<=[\U000e0100-\U000e01ef])(?<![{_IDEOGRAPHS}].))",
    re.DOTALL,
)


def visible(text: str) -> str:
    """The text without hidden characters; the same object where there are none. On the path of every call: 2 us for 2,000 characters."""
    if text.isascii():
        plain = text.encode()
        kept = plain.translate(None, _CONTROLS)
        return text if len(kept) == len(plain) else kept.decode()
    if _PLAIN.fullmatch(text):
        return text
    while (kept := _HIDDEN.sub("", text)) != text:  # again: what stood between two of them may be gone
        text = kept
    return text


def visible_value(value: Any) -> Any:
    """A JSON value as it reads once its JSON text is `visible`: there, control characters are escapes that hide nothing, and stay."""
    if isinstance(value, str):
        return visible(value)
    text = write_json(value)
    kept = visible(text)
    return value if len(kept) == len(text) else json.loads(kept)


def visible_texts(value: Any) -> Any:
    """A JSON value with each text in it `visible`, names of fields too: for what hosts read as texts and not as JSON. The same
    object where nothing was hidden."""
    if isinstance(value, str):
        return visible(value)
    if is_object(value):
        fields = {visible(k): visible_texts(v) for k, v in value.items()}
        return value if all(fields.get(k, _GONE) is v for k, v in value.items()) else fields
    if is_array(value):
        items = [visible_texts(v) for v in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value
