"""OpenAPI documents become endpoints: arguments, bodies, servers, auth, and what is left out with its reason."""

from typing import Any

import pytest
import yaml

from tools.importers.documents import document_of, read_document
from tools.importers.frame import Candidate, Choice, Source, SourceFault
from tools.importers.openapi import read_openapi
from tools.json_schema import effective_schema
from tools.kinds.paths import parse_path
from tools.kinds.rest import compile_rest


def document(version: str = "3.0.3", **more: Any) -> dict[str, Any]:
    said = {"swagger": version} if version == "2.0" else {"openapi": version}
    return {**said, "info": {"title": "Shop API", "version": "1"}, "paths": {}, **more}


def read(path: str, operation: dict[str, Any], method: str = "get", version: str = "3.0.3", **more: Any) -> Source:
    return read_openapi(document_of(document(version, paths={path: {method: operation}}, **more)))


def one(source: Source) -> Candidate:
    assert [r.why for r in source.left_out] == []
    (candidate,) = source.candidates
    return candidate


def sent(candidate: Candidate, **values: Any) -> tuple[str, str | None]:
    """(URL, body) of a call."""
    endpoint = candidate.endpoint
    names = parse_path(endpoint.path).names
    schema = effective_schema(endpoint.input_schema, names)
    request = compile_rest(endpoint, "https://api.example.com", schema).build(values)
    return request.url.removeprefix("https://api.example.com"), request.body.decode() if request.body else None


def parameter(name: str, place: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, **more}


ARRAY = {"type": "array", "items": {"type": "string"}}
OBJECT = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("given", "values", "url"),
    [
        (parameter("tag", "query", ARRAY), {"tag": ["a", "b"]}, "/x?tag=a&tag=b"),
        (parameter("tag", "query", ARRAY, explode=False), {"tag": "a,b"}, "/x?tag=a%2Cb"),
        (parameter("tag", "query", ARRAY, style="pipeDelimited"), {"tag": "a|b"}, "/x?tag=a%7Cb"),
        (parameter("q", "query", OBJECT, style="deepObject"), {"q_name": "Ada"}, "/x?q%5Bname%5D=Ada"),
        (parameter("q", "query", OBJECT), {"name": "Ada", "age": 3}, "/x?name=Ada&age=3"),
        (
            {"name": "q", "in": "query", "content": {"application/json": {"schema": OBJECT}}},
            {"q": {"age": 3}},
            "/x?q=%7B%22age%22%3A3%7D",
        ),
    ],
)
def test_query_parameters_go_out_in_the_style_of_the_document(
    given: dict[str, Any], values: dict[str, Any], url: str
) -> None:
    assert sent(one(read("/x", {"parameters": [given]})), **values) == (url, None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (parameter("q", "query", OBJECT, explode=False, required=True), "is an object in the style form"),
        (parameter("s", "cookie", {"type": "string"}, required=True), "is sent in a cookie"),
        (parameter("Host", "header", {"type": "string"}, required=True), "belongs to the connection"),
        ({"$ref": "https://elsewhere.example/p.json#/a"}, "leaves the document"),
        ({"$ref": "#/components/parameters/none"}, "points at nothing"),
    ],
)
def test_an_operation_that_cannot_be_called_without_a_parameter_is_left_out_with_the_reason(
    given: dict[str, Any], why: str
) -> None:
    source = read("/x", {"parameters": [given]})
    assert source.candidates == ()
    assert why in source.left_out[0].why


def test_an_optional_cookie_is_left_out_and_told() -> None:
    candidate = one(read("/x", {"parameters": [parameter("s", "cookie", {"type": "string"})]}))
    assert candidate.endpoint.input_schema["properties"] == {}
    assert "sent in a cookie" in candidate.notes[0]


def test_fields_of_a_body_are_arguments_and_one_that_is_called_like_a_parameter_gets_another_name() -> None:
    body = {"type": "object", "properties": {"id": {"type": "integer"}, "a.b": {"type": "string"}}, "required": ["id"]}
    operation = {
        "parameters": [parameter("id", "path", {"type": "string"}, required=True)],
        "requestBody": {"content": {"application/json": {"schema": body}}},
    }
    candidate = one(read("/pets/{id}", operation, "put"))
    assert set(candidate.endpoint.input_schema["required"]) == {"id", "body_id"}
    assert sent(candidate, id="p1", body_id=7, a_b="x") == ("/pets/p1", '{"id":7,"a.b":"x"}')


def test_a_query_parameter_that_is_called_like_a_path_parameter_is_sent_as_both() -> None:
    both = [
        parameter("path", "path", {"type": "string"}, required=True),
        parameter("path", "query", {"type": "string"}),
    ]
    assert sent(one(read("/p/{path}", {"parameters": both})), path="a", query_path="b") == ("/p/a?path=b", None)


@pytest.mark.parametrize(
    ("schema", "value", "body"),
    [
        (ARRAY, ["a"], '["a"]'),
        ({"type": "string"}, "a", '"a"'),
        ({"oneOf": [OBJECT, {"type": "object"}]}, {"name": "x"}, '{"name":"x"}'),
    ],
)
def test_a_body_without_named_fields_is_one_argument(schema: dict[str, Any], value: Any, body: str) -> None:
    candidate = one(read("/x", {"requestBody": {"content": {"application/json": {"schema": schema}}}}, "post"))
    assert sent(candidate, body=value) == ("/x", body)


def test_a_form_is_sent_as_a_form() -> None:
    content = {"application/x-www-form-urlencoded": {"schema": OBJECT}}
    candidate = one(read("/x", {"requestBody": {"content": content}}, "post"))
    assert sent(candidate, name="A B", age=3) == ("/x", "name=A+B&age=3")


def test_swagger_form_fields_and_bodies_are_arguments() -> None:
    fields = [{"name": "name", "in": "formData", "type": "string", "required": True}]
    assert sent(one(read("/x", {"parameters": fields}, "post", "2.0")), name="A") == ("/x", "name=A")
    body = [{"name": "b", "in": "body", "schema": OBJECT}]
    assert sent(one(read("/x", {"parameters": body}, "post", "2.0")), age=1) == ("/x", '{"age":1}')


@pytest.mark.parametrize("media", ["multipart/form-data", "application/xml", "application/octet-stream"])
def test_a_body_that_cannot_be_sent_leaves_the_operation_out_and_names_the_media_type(media: str) -> None:
    source = read("/x", {"requestBody": {"content": {media: {"schema": OBJECT}}}}, "post")
    assert source.candidates == ()
    assert media in source.left_out[0].why


def test_a_swagger_file_is_refused_as_multipart() -> None:
    source = read("/x", {"parameters": [{"name": "f", "in": "formData", "type": "file"}]}, "post", "2.0")
    assert "multipart" in source.left_out[0].why


def test_references_that_go_round_end_in_a_plain_object() -> None:
    tree = {"type": "object", "properties": {"name": {"type": "string"}, "sub": {"$ref": "#/components/schemas/T"}}}
    operation = {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/T"}}}}}
    candidate = one(read("/x", operation, "post", components={"schemas": {"T": tree}}))
    assert candidate.endpoint.input_schema["properties"]["sub"] == {"type": "object"}


def test_all_of_is_merged_and_read_only_fields_are_not_asked_for() -> None:
    base = {"type": "object", "properties": {"id": {"type": "string", "readOnly": True}}, "required": ["id", "name"]}
    schema = {"allOf": [base, {"properties": {"name": {"type": "string"}}}]}
    candidate = one(read("/x", {"requestBody": {"content": {"application/json": {"schema": schema}}}}, "post"))
    assert candidate.endpoint.input_schema == {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
    }


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 1}),
        ({"type": "integer", "default": "many"}, {"type": "integer"}),
        ({"type": "string", "pattern": "(?<=a)b["}, {"type": "string"}),
        ({"type": "string", "minLength": "3", "enum": [], "x-in": "header"}, {"type": "string"}),
        ({"type": "any"}, {}),
    ],
)
def test_old_and_faulty_keywords_become_valid_ones_or_none(given: dict[str, Any], made: dict[str, Any]) -> None:
    assert one(read("/x", {"parameters": [parameter("q", "query", given)]})).endpoint.input_schema["properties"] == {
        "q": made
    }


@pytest.mark.parametrize(
    ("more", "version", "where", "base"),
    [
        (
            {"servers": [{"url": "https://{r}.x.io/v1/", "variables": {"r": {"default": "eu"}}}]},
            "3.1.0",
            "",
            "https://eu.x.io/v1",
        ),
        ({"servers": [{"url": "/v2"}]}, "3.0.0", "https://x.io/docs/api.json", "https://x.io/v2"),
        ({"servers": [{"url": "http://x.io"}, {"url": "https://x.io"}]}, "3.0.0", "", "https://x.io"),
        ({"host": "x.io", "basePath": "/v1", "schemes": ["http", "https"]}, "2.0", "", "https://x.io/v1"),
        ({}, "2.0", "", ""),
    ],
)
def test_the_base_url_is_what_the_document_says(more: dict[str, Any], version: str, where: str, base: str) -> None:
    assert read_openapi(document_of(document(version, **more)), where).base_url == base


@pytest.mark.parametrize(
    ("scheme", "auth"),
    [
        ({"type": "apiKey", "in": "header", "name": "X-Key"}, ("api_key_header", "X-Key")),
        ({"type": "http", "scheme": "Bearer"}, ("bearer_token", None)),
        ({"type": "http", "scheme": "basic"}, ("api_key_header", "Authorization")),
        (
            {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://x.io/t", "scopes": {"a": ""}}}},
            ("oauth2_client_credentials", None),
        ),
    ],
)
def test_security_schemes_become_auth_types(scheme: dict[str, Any], auth: tuple[str, str | None]) -> None:
    found = read_openapi(document_of(document(components={"securitySchemes": {"s": scheme}}))).auth
    assert found is not None
    assert (found.type, found.header_name) == auth


@pytest.mark.parametrize(
    "scheme",
    [
        {"type": "apiKey", "in": "query", "name": "key"},
        {"type": "oauth2", "flows": {"authorizationCode": {"tokenUrl": "https://x.io/t"}}},
        {"type": "mutualTLS"},
    ],
)
def test_schemes_that_no_auth_type_fits_are_listed(scheme: dict[str, Any]) -> None:
    source = read_openapi(document_of(document(components={"securitySchemes": {"s": scheme}})))
    assert source.auth is None
    assert [row.key for row in source.left_out] == ["security s"]


def test_operations_without_an_id_are_named_by_method_and_path() -> None:
    assert one(read("/pets/{petId}", {})).endpoint.name == "get_pets_by_pet_id"


def test_two_operations_of_one_name_get_two_names() -> None:
    paths = {"/a": {"get": {"operationId": "listAll"}}, "/b": {"get": {"operationId": "list-all"}}}
    source = read_openapi(document_of(document(paths=paths)))
    assert [c.endpoint.name for c in source.candidates] == ["list_all", "list_all_2"]


def test_deprecated_and_destructive_operations_are_marked() -> None:
    candidate = one(read("/x", {"operationId": "purgeCache", "deprecated": True}, "post"))
    assert candidate.notes == ("deprecated",)
    assert candidate.endpoint.description.startswith("Deprecated by its provider.")
    assert candidate.endpoint.annotations is not None
    assert candidate.endpoint.annotations.destructiveHint is True


def test_a_body_of_hundreds_of_fields_is_one_argument_that_names_them() -> None:
    wide = {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(300)}}
    candidate = one(read("/x", {"requestBody": {"content": {"application/json": {"schema": wide}}}}, "post"))
    assert "field_299" in candidate.endpoint.input_schema["properties"]["body"]["description"]


def test_what_of_an_invalid_document_can_be_used_is_used_and_the_rest_is_listed() -> None:
    paths: Any = {
        "/good": {"get": {"parameters": None}},
        "/none": None,
        "/text": {"get": "nothing", "head": {}},
        "/a?b=c": {"get": {}},
        "/bad/{": {"get": {}},
    }
    source = read_openapi(document_of(document(paths=paths)))
    assert [c.key for c in source.candidates] == ["GET /good", "GET /a?b=c"]
    assert {r.key for r in source.left_out} == {"/none", "GET /text", "HEAD /text", "GET /bad/{"}


def test_yaml_with_numbers_and_dates_as_keys_and_values_is_read() -> None:
    text = yaml.safe_dump(document(paths={"/x": {"get": {"responses": {200: {}}, "description": "Since 2020-01-01."}}}))
    source = read_openapi(read_document(text.encode()))
    assert source.candidates[0].endpoint.description == "Since 2020-01-01."


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "JSON"),
        (b"a: [", "YAML"),
        (b"[]", "is an object"),
        (b'{"a": 1}', "neither openapi nor swagger"),
        (b'{"swagger": "1.2"}', "not known"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(SourceFault, match=why):
        read_document(data)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (Choice(), ["list_pets", "delete_pet", "list_orders"]),
        (Choice(tags=("PETS",)), ["list_pets", "delete_pet"]),
        (Choice(methods=("!delete",)), ["list_pets", "list_orders"]),
        (Choice(paths=("/pets*",), methods=("get",)), ["list_pets"]),
        (Choice(operations=("list*", "!*orders")), ["list_pets"]),
        (Choice(names=("*_orders",)), ["list_orders"]),
    ],
)
def test_a_choice_takes_by_tag_path_method_operation_and_name(choice: Choice, names: list[str]) -> None:
    paths = {
        "/pets": {"get": {"operationId": "listPets", "tags": ["Pets"]}},
        "/pets/{id}": {"delete": {"operationId": "deletePet", "tags": ["Pets"]}},
        "/orders": {"get": {"operationId": "listOrders", "tags": ["Orders"]}},
    }
    source = read_openapi(document_of(document(paths=paths)))
    assert [c.endpoint.name for c in source.candidates if choice.takes(c)] == names
