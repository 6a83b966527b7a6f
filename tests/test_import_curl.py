"""A curl line becomes one endpoint, and its secrets go where secrets go."""

import pytest

from tools.importers.curl import read_curl
from tools.importers.frame import SourceFault
from tools.models import EndpointConfig

KEY = "canary-0123456789"


def endpoint(line: str) -> EndpointConfig:
    return read_curl(line).source.candidates[0].endpoint


@pytest.mark.parametrize(
    ("options", "kind", "header", "value"),
    [
        (f"-H 'Authorization: Bearer {KEY}'", "bearer_token", None, KEY),
        (f"--oauth2-bearer {KEY}", "bearer_token", None, KEY),
        (f"-H 'X-Api-Key: {KEY}'", "api_key_header", "X-Api-Key", KEY),
        ("-u 'me:canary'", "api_key_header", "Authorization", "Basic bWU6Y2FuYXJ5"),
        ("-ume:canary", "api_key_header", "Authorization", "Basic bWU6Y2FuYXJ5"),
    ],
)
def test_a_secret_becomes_auth_and_is_nowhere_else(options: str, kind: str, header: str | None, value: str) -> None:
    found = read_curl(f"curl {options} https://api.example.com/x")
    assert found.auth is not None
    assert (found.auth.type, found.auth.header_name) == (kind, header)
    inline = found.auth.bearer_token_value or found.auth.api_key_value
    assert inline is not None
    assert inline.value == value
    assert value not in repr(found)
    assert KEY not in str(found.source)


def test_a_secret_in_the_query_is_taken_away_and_told() -> None:
    found = read_curl(f"curl 'https://api.example.com/x?api_key={KEY}&page=2'")
    assert [row.key for row in found.source.left_out] == ["query api_key"]
    assert KEY not in repr(found)
    page = found.source.candidates[0].endpoint.input_schema["properties"]["page"]
    assert page == {"type": "integer", "default": 2}


def test_json_fields_are_arguments_and_ids_in_the_path_are_too() -> None:
    made = endpoint(
        """curl -X PATCH https://api.example.com/v1/orders/123 --json '{"note": "x", "password": "hunter2"}'"""
    )
    assert (made.method, made.path) == ("PATCH", "/v1/orders/{order_id}")
    assert made.input_schema["properties"]["note"] == {"type": "string", "examples": ["x"]}
    assert made.input_schema["properties"]["password"] == {"type": "string", "x-sensitive": True}


@pytest.mark.parametrize(
    ("options", "method", "fields", "form"),
    [
        ("-d a=1 -d b=2", "POST", {"a", "b"}, "form"),
        ("--data-urlencode 'a=x y'", "POST", {"a"}, "form"),
        ("-G -d a=1", "GET", {"a"}, "json"),
        ("""-H 'Content-Type: application/json' -d '{"a": 1}'""", "POST", {"a"}, "json"),
        ("-XPUT --data-raw '[1]'", "PUT", {"body"}, "json"),
        ("-sSL --compressed", "GET", set[str](), "json"),
    ],
)
def test_data_say_method_and_body(options: str, method: str, fields: set[str], form: str) -> None:
    made = endpoint(f"curl {options} https://api.example.com/x")
    assert (made.method, set(made.input_schema["properties"]), made.body_format) == (method, fields, form)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("wget https://x.io", "begin with curl"),
        ("curl", "no URL"),
        ("curl 'https://x.io", "quotes"),
        ("curl https://x.io | jq .", "no pipes"),
        ("curl https://x.io https://y.io", "two URLs"),
        ("curl -F f=@a.png https://x.io", "multipart"),
        ("curl -T a.png https://x.io", "files"),
        ("curl -d @body.json https://x.io", "from a file"),
        ("curl -I https://x.io", "HEAD"),
        ("curl --frobnicate https://x.io", "not known"),
        ("curl ftp://x.io/a", "can't be called"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words_without_the_lines_values(line: str, why: str) -> None:
    with pytest.raises(SourceFault, match=why):
        read_curl(line)


def test_a_line_over_several_lines_is_one() -> None:
    assert endpoint("curl https://x.io/a \\\n  -X DELETE").method == "DELETE"
