"""What an upstream's answer is: the raw value of a success (semantics, stage 1), or the error that its status means."""

import base64
import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from tools.errors import (
    CallError,
    CredentialRejected,
    InvalidResponse,
    OutcomeUnknown,
    ProbablyDone,
    ResponseTooLarge,
    UpstreamStatus,
    UpstreamUnavailable,
)
from tools.json_values import TooManyValues, ValueTooDeep, read_json
from tools.masking import NOTHING_TO_HIDE, Masker
from tools.upstream import Answer, Request

Kind = Literal["json", "text", "empty", "image", "audio", "blob"]
_TEXT_TYPES = (
    "text/",
    "application/xml",
    "application/javascript",
    "application/yaml",
    "application/x-yaml",
    "application/graphql",
)
# By name, and none else: Python knows "punycode" too, which takes hours for 10 MB, and remembers each unknown name for ever.
_CHARSET = re.compile(
    r"utf-?(8|16|32)([_-]?[lb]e)?|(us-)?ascii|iso[_-]?8859-[0-9]{1,2}|latin-?[0-9]{1,2}|(windows-|cp)(125[0-9]|874|932|949)|gbk|gb2312|"
    r"gb18030|big5(-hkscs)?|shift[_-]jis|s?jis|euc[_-](jp|kr)|iso-2022-jp|ks_c_5601-1987|koi8-[ru]|macintosh|tis-620"
)
_AS_ASCII = frozenset({None, "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"})
"""Charsets in which ASCII bytes are what they look like."""
_BUSY = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Raw:
    """A successful answer's value. `value` is JSON, text, or base64 of binary; `media_type` without parameters."""

    kind: Kind
    value: Any
    media_type: str = ""


def read_raw(answer: Answer, masker: Masker = NOTHING_TO_HIDE) -> Raw:
    """Stage 1, masked before anything reads it. Raises InvalidResponse where the body isn't what its media type says."""
    raw = _read(answer, masker.body(answer.body))
    if raw.kind in ("json", "text") and (b"\\" in answer.body or not answer.body.isascii() or not _as_ascii(answer)):
        # Escapes and other charsets hide a secret from a search of the bytes.
        return Raw(raw.kind, masker.value(raw.value), raw.media_type)
    return raw


def _as_ascii(answer: Answer) -> bool:
    return media_type(answer.headers.get("content-type", ""))[1] in _AS_ASCII


def _read(answer: Answer, body: bytes) -> Raw:
    if not body:
        return Raw("empty", None)
    media, charset = media_type(answer.headers.get("content-type", ""))
    if media in ("application/json", "text/json") or media.endswith("+json"):
        return Raw("json", _json(body, charset), media)
    if not media:
        # No type given (RFC 9110 8.3 lets us look): JSON where it is JSON, else text where it is text.
        try:
            return Raw("json", read_json(body), "application/json")
        except TooManyValues as e:
            raise ResponseTooLarge(f"the answer holds {e}") from None
        except ValueError:
            pass
        try:
            return Raw("text", body.decode(), "text/plain")
        except UnicodeDecodeError:
            return Raw("blob", base64.b64encode(body).decode(), "application/octet-stream")
    if media.startswith(_TEXT_TYPES) or media.endswith("+xml") or media == "application/x-www-form-urlencoded":
        return Raw("text", _text(body, charset), media)
    encoded = base64.b64encode(body).decode()
    if media in ("image/png", "image/jpeg", "image/gif", "image/webp"):
        return Raw("image", encoded, media)
    if media.startswith("audio/"):
        return Raw("audio", encoded, media)
    return Raw("blob", encoded, media)


def status_error(
    answer: Answer,
    request: Request,
    masker: Masker = NOTHING_TO_HIDE,
    *,
    idempotent: bool,
    unsure_before: bool,
    retry_after_s: float | None,
) -> CallError:
    """The error that a status other than 2xx means, with the upstream's masked words.

    `idempotent`: the method or annotation allows repeating. `unsure_before`: an earlier attempt of this call may have been
    carried out (rules F2).
    """
    status = answer.status
    words = said(answer, masker)
    if status in (401, 407):
        return CredentialRejected(f"{status}", said=words, upstream_status=status)
    if unsure_before and _shows_that_it_was_done(status, request):
        return ProbablyDone(f"{status}", said=words, upstream_status=status)
    if not idempotent and status in (500, 502, 504):
        return OutcomeUnknown(f"The server answered {status} to this write", said=words, upstream_status=status)
    if status in _BUSY:
        return UpstreamUnavailable(f"{status}", said=words, upstream_status=status, retry_after_s=retry_after_s)
    return UpstreamStatus(f"{status}", said=words, upstream_status=status)


def _shows_that_it_was_done(status: int, request: Request) -> bool:
    """Gone because we deleted it, or another version because we changed it."""
    if request.method == "DELETE" and status in (404, 410):
        return True
    conditional = any(name.lower() == "if-match" for name, _ in request.headers)
    return status == 412 and conditional and request.method in ("PUT", "PATCH", "DELETE")


def media_type(header: str) -> tuple[str, str | None]:
    """(media type in lower case, charset or None) of a Content-Type header."""
    first, _, parameters = header.partition(";")
    charset = None
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset":
            charset = value.strip().strip("\"'").lower() or None
    return first.strip().lower(), charset


def said(answer: Answer, masker: Masker = NOTHING_TO_HIDE) -> str | None:
    """The upstream's own words about its error: the sentence in a JSON error where there is one, else the text. At most 2,000.

    Masked before anything is cut, so that no half of a secret stays (rules A6).
    """
    if not answer.body:
        return None
    body = masker.body(answer.body)
    media, charset = media_type(answer.headers.get("content-type", ""))
    try:
        if "json" in media:
            found = _sentence(_json(body, charset))
            if found:
                return masker.text(found)[:2000]
        if "html" in media:
            return None  # a proxy's page: nothing that a model can use
        return masker.text(_text(body, charset or "utf-8", errors="replace"))[:2000]
    except (InvalidResponse, ResponseTooLarge):
        return masker.text(body.decode("utf-8", "replace"))[:2000]


def _sentence(value: Any, depth: int = 0) -> str:
    """Vendors' habits in order: RFC 9457 detail/title, {"error": {"message"}}, {"message"}, {"errors": [...]}, OAuth, FHIR."""
    if isinstance(value, str):
        return value
    if depth > 4:
        return ""
    if isinstance(value, list):
        parts = (_sentence(item, depth + 1) for item in cast("list[Any]", value)[:5])
        return "; ".join(p for p in parts if p)
    if not isinstance(value, dict):
        return ""
    fields = cast("dict[str, Any]", value)
    title, detail = fields.get("title"), fields.get("detail")
    if isinstance(title, str) and isinstance(detail, str):
        return f"{title}: {detail}" + _extras(fields, depth)
    for key in (
        "detail",
        "message",
        "error_description",
        "error",
        "errors",
        "issue",
        "details",
        "diagnostics",
        "text",
        "title",
        "reason",
        "msg",
    ):
        if found := _sentence(fields.get(key), depth + 1):
            extra = _sentence(fields.get("details"), depth + 1) if key == "message" else ""
            return f"{found} ({extra})" if extra and extra != found else found
    return ""


def _extras(fields: dict[str, Any], depth: int) -> str:
    found = _sentence(fields.get("errors"), depth + 1)
    return f" ({found})" if found else ""


def _json(body: bytes, charset: str | None) -> Any:
    try:
        if charset not in (None, "utf-8", "utf8", "us-ascii", "ascii"):
            body = _text(body, charset).encode("utf-8", "surrogatepass")
        return read_json(body.removeprefix(codecs.BOM_UTF8))
    except ValueTooDeep as e:
        raise InvalidResponse(str(e)) from None
    except TooManyValues as e:
        raise ResponseTooLarge(f"the answer holds {e}") from None
    except json.JSONDecodeError as e:  # orjson's is a subclass
        raise InvalidResponse(
            f"its Content-Type says JSON, but it isn't (line {e.lineno}, column {e.colno}: {e.msg})"
        ) from None


def _old(body: bytes) -> str:
    """Of servers that say nothing and don't send UTF-8: what they call Latin-1 is Windows' (WHATWG Encoding 4.2)."""
    try:
        return body.decode("cp1252")
    except UnicodeDecodeError:
        return body.decode("latin-1")


def _text(body: bytes, charset: str | None, errors: str = "strict") -> str:
    try:
        if charset is not None and not _CHARSET.fullmatch(charset):
            raise LookupError(charset)
        return body.decode(charset or "utf-8", errors)
    except LookupError:
        raise InvalidResponse(f"its charset {str(charset)[:40]!r} is not known") from None
    except UnicodeDecodeError:
        if charset is None:
            return _old(body)
        raise InvalidResponse(f"its Content-Type says charset {charset}, but it isn't") from None
