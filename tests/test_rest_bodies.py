"""Bodies are strict JSON: what two parsers could read differently is refused with its place, and nothing is written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from server.rest.bodies import MAX_DEPTH, parse_json, read_json
from server.rest.versions import etag, wanted_versions
from tools.errors import InvalidRequest, TooLarge
from tools.json_values import write_json


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "line 1"),
        (b'{"a": 1} {}', "not valid JSON"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'[{"x": {"b": 1, "b": 1}}]', "'b' is there twice"),
        (b"NaN", "not valid JSON"),
        (b"[-Infinity]", "not valid JSON"),
        (b"[1e999]", "infinity"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b'"\xed\xa0\x80"', "not valid JSON"),
        (rb'"\ud800"', "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeper than 100"),
        (b"[" * 900 + b"]" * 900, "deeper than 100"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_a_body_that_isnt_one_clear_json_value_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_json(body)
    assert said in refused.value.message
    assert len(refused.value.message) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_other_json_value_arrives_exactly(value: Any) -> None:
    assert parse_json(write_json(value).encode()) == value


@pytest.mark.parametrize("innermost", [b"", b"1", b"null, 2"])
def test_as_deep_as_allowed_is_read(innermost: bytes) -> None:
    parse_json(b"[" * MAX_DEPTH + innermost + b"]" * MAX_DEPTH)


def test_integers_beyond_64_bits_arrive_exactly() -> None:
    assert parse_json(b'{"n": 123456789012345678901234567890}') == {"n": 123456789012345678901234567890}


def request(body: list[bytes], **headers: str) -> Request:
    chunks = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages = iter([*chunks, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{"content_length": "1001"}, {}])
async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(headers: dict[str, str]) -> None:
    with pytest.raises(TooLarge):
        await read_json(request([b"x" * 600] * 100, **headers), 1000)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "media", ["application/json", "application/json; charset=utf-8", "application/problem+json", None]
)
async def test_json_is_read_under_its_own_media_type_or_none(media: str | None) -> None:
    headers = {} if media is None else {"content_type": media}
    assert await read_json(request([b"{", b'"a": 1}'], **headers), 1000) == {"a": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
async def test_another_media_type_is_refused(media: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read_json(request([b"{}"], content_type=media), 1000)
    assert refused.value.issues[0].loc == ("header", "content-type")


@pytest.mark.parametrize(
    ("if_match", "versions"),
    [
        (None, None),
        ("*", None),
        (etag(3), {3}),
        ('"3" , "4"', {3, 4}),
        ('W/"3"', set()),
        ('"x"', set()),
        ('"3", W/"4"', {3}),
    ],
)
def test_an_if_match_is_read_as_the_versions_it_accepts(if_match: str | None, versions: set[int] | None) -> None:
    assert wanted_versions(if_match) == versions
