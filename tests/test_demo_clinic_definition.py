"""The demo's integration shows every field of an endpoint, and its script fits its tools."""

import json
from typing import Any

import jmespath
import jsonschema
import minijinja
import pytest

from server.demo.definition import EXAMPLE, SCRIPT, load_demo
from tools.models import EndpointConfig, SecretInput

DEMO = load_demo("http://127.0.0.1:8642")
ENDPOINTS = {f"{DEMO.name}_{endpoint.name}": endpoint for endpoint in DEMO.endpoints}
SHOWN_ELSEWHERE = {"base_url", "auth", "result_delivery", "approval_policy"}


def properties(endpoint: EndpointConfig) -> dict[str, dict[str, Any]]:
    return endpoint.input_schema["properties"]


def test_the_base_url_and_the_key_are_filled_in() -> None:
    demo = load_demo("http://127.0.0.1:9", api_key="another")
    assert demo.base_url == "http://127.0.0.1:9"
    assert demo.auth is not None
    assert demo.auth.api_key_value == SecretInput(value="another")


@pytest.mark.parametrize("field", sorted(EndpointConfig.model_fields.keys() - SHOWN_ELSEWHERE))
def test_every_field_of_an_endpoint_is_shown(field: str) -> None:
    default = EndpointConfig(name="x", description="", path="")
    assert any(getattr(endpoint, field) != getattr(default, field) for endpoint in DEMO.endpoints)


@pytest.mark.parametrize("keyword", ["x-in", "x-name", "x-fixed", "default", "examples", "enum", "format"])
def test_every_keyword_of_an_argument_is_shown(keyword: str) -> None:
    assert any(keyword in schema for endpoint in DEMO.endpoints for schema in properties(endpoint).values())


def test_four_methods_are_shown() -> None:
    assert {endpoint.method for endpoint in DEMO.endpoints} == {"GET", "POST", "PUT", "DELETE"}


@pytest.mark.parametrize("tool", ENDPOINTS)
def test_every_argument_is_described_and_its_examples_fit(tool: str) -> None:
    schema = ENDPOINTS[tool].input_schema
    jsonschema.Draft202012Validator.check_schema(schema)
    for argument in properties(ENDPOINTS[tool]).values():
        assert argument.get("x-fixed") or argument["description"].endswith(".")
        for example in argument.get("examples", []):
            jsonschema.validate(example, argument)


@pytest.mark.parametrize("tool", ENDPOINTS)
def test_expressions_and_templates_parse(tool: str) -> None:
    endpoint = ENDPOINTS[tool]
    for expression in (endpoint.response_mapping or {}).values():
        jmespath.compile(expression)
    if endpoint.result_template is not None:
        minijinja.Environment(templates={"t": endpoint.result_template}, undefined_behavior="strict").render_str("ok")


def test_the_first_example_is_a_call_that_fits() -> None:
    tool, arguments = EXAMPLE
    jsonschema.validate(arguments, ENDPOINTS[tool].input_schema)


@pytest.mark.parametrize("step", SCRIPT, ids=lambda step: step.caption)
def test_a_step_of_the_script_fits_unless_it_shows_a_fault(step: Any) -> None:
    schema = ENDPOINTS[step.tool].input_schema | {"additionalProperties": False}
    fits = jsonschema.Draft202012Validator(schema).is_valid(step.arguments)
    assert fits == (not step.caption.startswith("Wrong arguments"))


def test_the_script_calls_every_tool() -> None:
    assert {step.tool for step in SCRIPT} == set(ENDPOINTS)


def test_captions_are_one_short_line() -> None:
    assert all(len(step.caption) <= 72 and "\n" not in step.caption for step in SCRIPT)


def test_the_definition_is_plain_json() -> None:
    assert json.loads(DEMO.model_dump_json(exclude={"auth"}))["name"] == "clinic"
