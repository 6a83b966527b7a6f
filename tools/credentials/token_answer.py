"""The noun "token answer": what a token endpoint sent, believed only where it may be (rules B2, B5; RFC 6749 5.1)."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from tools.upstream import Answer

MAX_BYTES = 64 * 1024
MAX_TOKEN_CHARS = 16_384
DEFAULT_LIFE_S = 300.0
_TOKEN = re.compile(r"[\x21-\x7E]{1,16384}", re.ASCII)
_DIGITS = re.compile(r"-?[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A usable answer. `scope` None: as asked. `life_s` as rules B5 reads expires_in; 0 or less: for this call only."""

    access_token: str = field(repr=False)
    life_s: float
    scope: str | None = None
    id_token: str | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadAnswer:
    """An answer that isn't a token. `error` is the OAuth error code where there is one, `what` a clause about the answer."""

    what: str
    error: str | None = None
    description: str | None = None


def read_token_answer(answer: Answer) -> TokenAnswer | BadAnswer:
    body = json_object(answer)
    if isinstance(body, BadAnswer):
        return body
    error = body.get("error")
    if error is not None or answer.status != 200:
        return _refusal(answer.status, body, error)
    token = body.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        return BadAnswer("answered 200 without a usable access_token (1 to 16,384 printable ASCII characters)")
    kind, warnings = body.get("token_type"), list[str]()
    if kind is None:
        warnings.append("the answer names no token_type: taken as Bearer")
    elif not isinstance(kind, str) or kind.lower() != "bearer":
        return BadAnswer(f"gave a token of type {_word(kind)}; only Bearer tokens can be used")
    life = life_of(body.get("expires_in"))
    if life is None:
        warnings.append(f"the answer has no usable expires_in: taken as {DEFAULT_LIFE_S:.0f} s")
    scope, id_token = body.get("scope"), body.get("id_token")
    return TokenAnswer(
        token,
        DEFAULT_LIFE_S if life is None else life,
        scope if isinstance(scope, str) else None,
        id_token if isinstance(id_token, str) and _TOKEN.fullmatch(id_token) else None,
        tuple(warnings),
    )


def json_object(answer: Answer) -> dict[str, Any] | BadAnswer:
    """The body as a JSON object, or what it is instead."""
    try:
        body: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return BadAnswer(_not_json(answer))
    if not isinstance(body, dict):
        return BadAnswer(f"answered {answer.status} with JSON that is not an object")
    return body  # pyright: ignore[reportUnknownVariableType] - JSON has string keys


def life_of(expires_in: object) -> float | None:
    """Seconds of life: an integer, a float or a digit string; None where it is missing or unusable (rules B5)."""
    match expires_in:
        case bool():
            return None
        case int():
            return float(min(max(expires_in, -1), 10**9))
        case float() if math.isfinite(expires_in):
            return expires_in
        case str() if _DIGITS.fullmatch(expires_in):
            return float(expires_in)
        case _:
            return None


def is_web_page(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "").lower() or answer.body[:256].lstrip().lower().startswith(
        (b"<!doctype", b"<html")
    )


def _not_json(answer: Answer) -> str:
    if is_web_page(answer):
        return f"answered {answer.status} with a web page instead of JSON"
    if not answer.body.strip():
        return f"answered {answer.status} with an empty body"
    return f"answered {answer.status} with something that is not JSON"


def _refusal(status: int, body: dict[str, Any], error: object) -> BadAnswer:
    if isinstance(error, dict):  # Google's APIs: {"error": {"code", "message", "status"}}
        details: dict[str, Any] = error  # pyright: ignore[reportUnknownVariableType] - JSON
        return BadAnswer(f"answered {status}", _word(details.get("status")), _text(details.get("message")))
    code = _word(error) if error is not None else None
    return BadAnswer(f"answered {status}" + (f" {code}" if code else ""), code, _text(body.get("error_description")))


def _word(value: object) -> str:
    """Something short and harmless to quote: an OAuth error code or a token type."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "?", str(value))[:64]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
