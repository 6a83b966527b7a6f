"""Every fuzz target for a moment, and what atheris once found (tests/fuzz)."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

FOUND = [
    ("address", b"http://[v\x86=:98]\t\r0\n@"),
    ("address", b"http://a.example:+8/"),
    ("redirect", b"http://[::1]@/"),
    ("curl", base64.b64decode("Y3VybCAtWCBQT1NUICdodHRwczovL2EuZXhhbXBsZS90cHMANS9bOnsiYSI6MX0n")),
    ("curl", b"curl 'http://[x/'"),
    ("openapi", b'{"swagger":"2.0","host":"[x","paths":{}}'),
    ("openapi", b'{"openapi":"3.0.0","servers":[{"url":"//[x"}],"paths":{}}'),
    (
        "openapi",
        b'{"openapi":"3.0.0","paths":{},"security":[{"o":[]}],"components":{"securitySchemes":{"o":{"type":"oauth2","flows":'
        b'{"clientCredentials":{"tokenUrl":"//[x"}}}}}}',
    ),
    ("sse", b"event: x\r\ndata: y\r\n\r\n"),
    ("sse", b"\x00\x00\x00\x00\x00\x00\x00data\r\n\n"),
    ("expression", b"n|&deep"),
    ("expression", b"[&deep]"),
    ("expression", b"to_array(&deep)"),
    ("hidden", b"\xe2\x80\x8b\x00\xe2\x80\x8b"),
]


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_what_fuzzing_found_stays_mended(target: str, data: bytes) -> None:
    TARGETS[target].run(data)


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with some places cut, doubled or overwritten."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, width = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + width :]
    return data


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_parser_keeps_its_word_over_anything(target: str, data: st.DataObject) -> None:
    found = TARGETS[target]
    found.run(data.draw(st.one_of(st.binary(max_size=200), changed(found.seeds))))
