"""Request bodies: read up to a limit, then strict JSON. What two parsers could read differently is refused, not guessed."""

import json
from typing import Any, cast

import orjson
from starlette.requests import Request

from tools.errors import InvalidRequest, Issue, TooLarge

MAX_DEPTH = 100


async def read_json(request: Request, limit: int) -> Any:
    """The JSON value of the body. Raises TooLarge, or InvalidRequest for anything that isn't one JSON value in UTF-8.

    Refused too: another media type (none at all is taken as JSON), duplicate keys, NaN and Infinity, numbers beyond a float's
    range, lone surrogates, more than 100 levels.
    """
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise InvalidRequest([Issue(("header", "content-type"), "send JSON, as application/json", "media_type")])
    return parse_json(await _read(request, limit))


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    too_large = TooLarge(f"the body is over the limit of {limit} bytes")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """Raises InvalidRequest with the place of the fault where it is known."""
    try:
        orjson.loads(
            body
        )  # strict about UTF-8, surrogates, NaN and infinity; but it rounds long integers and merges keys
        value = json.loads(body, object_pairs_hook=_unique)
    except json.JSONDecodeError as e:
        raise _fault(f"not valid JSON: {e.msg} (line {e.lineno}, column {e.colno})") from None
    except (ValueError, RecursionError) as e:
        raise _fault(f"not valid JSON: {e}") from None
    if _is_deeper(value, MAX_DEPTH):
        raise _fault(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is there twice in one object")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    layer = _containers([value])
    for _ in range(levels):
        layer = [inner for outer in layer for inner in _containers(outer)]
        if not layer:
            return False
    return True


def _containers(outer: Any) -> list[Any]:
    inside = cast("dict[str, Any]", outer).values() if isinstance(outer, dict) else cast("list[Any]", outer)
    return [item for item in inside if isinstance(item, dict | list)]


def _fault(message: str) -> InvalidRequest:
    return InvalidRequest([Issue(("body",), message, "json_invalid")])
