"""Our OpenAPI document is a compatible superset of the contract, field by field, and its examples are what they say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.world import gateway, http, served

pytestmark = pytest.mark.anyio
CONTRACT: dict[str, Any] = json.loads((Path(__file__).parent / "contract" / "openapi.json").read_text())


@pytest.fixture
async def ours(tmp_path: Path) -> dict[str, Any]:
    async with gateway(tmp_path) as world, served(world) as url, http(url, "") as client:
        return (await client.get("/openapi.json", headers={"Authorization": ""})).json()


def resolved(document: dict[str, Any], schema: Any) -> Any:
    """The schema with every reference replaced; a contract schema never refers to itself."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            beside = {k: v for k, v in schema.items() if k != "$ref"}
            return resolved(document, {**document["components"]["schemas"][name], **beside})
        return {k: resolved(document, v) for k, v in schema.items()}
    if isinstance(schema, list):
        return [resolved(document, item) for item in schema]
    return schema


def differences(theirs: Any, ours: Any, at: str) -> Iterator[str]:
    """Where a client of `theirs` could meet something else in `ours`: types, defaults, required, enums, limits, properties."""
    if "anyOf" in theirs:
        branches = ours.get("anyOf", [ours])
        for branch in theirs["anyOf"]:
            if not any(not list(differences(branch, b, at)) for b in branches):
                yield f"{at}: no branch like {branch}"
        if len(branches) != len(theirs["anyOf"]):
            yield f"{at}: {len(branches)} branches"
    for word in ("type", "enum", "format", "maxLength", "minLength", "maximum", "exclusiveMinimum"):
        if theirs.get(word) != ours.get(word) and (word in theirs or word == "enum"):
            yield f"{at}: {word} is {ours.get(word)!r}, not {theirs.get(word)!r}"
    if theirs.get("default") != ours.get("default"):
        yield f"{at}: default is {ours.get('default')!r}, not {theirs.get('default')!r}"
    if set(theirs.get("required", ())) != set(ours.get("required", ())):
        yield f"{at}: required is {ours.get('required')}, not {theirs.get('required')}"
    for name, schema in theirs.get("properties", {}).items():
        if name not in ours.get("properties", {}):
            yield f"{at}.{name}: missing"
        else:
            yield from differences(schema, ours["properties"][name], f"{at}.{name}")
    if "items" in theirs:
        yield from differences(theirs["items"], ours.get("items", {}), f"{at}[]")
    if isinstance(theirs.get("additionalProperties"), dict):
        more = ours.get("additionalProperties")
        yield from differences(theirs["additionalProperties"], more if isinstance(more, dict) else {}, f"{at}.*")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield path, method, operation


async def test_every_path_operation_and_parameter_of_the_contract_is_there(ours: dict[str, Any]) -> None:
    for path, method, theirs in operations(CONTRACT):
        mine = ours["paths"][path][method]
        assert mine["operationId"] == theirs["operationId"]
        assert set(theirs["tags"]) <= set(mine["tags"])
        parameters = {(p["name"], p["in"]): p for p in mine["parameters"]}
        inherited = CONTRACT["paths"][path].get("parameters", [])
        for parameter in [*theirs.get("parameters", []), *inherited]:
            found = parameters[parameter["name"], parameter["in"]]
            assert found["required"] == parameter["required"]
            wanted, given = resolved(CONTRACT, parameter["schema"]), resolved(ours, found["schema"])
            assert list(differences(wanted, given, f"{path} {parameter['name']}")) == []
        extra = set(parameters) - {(p["name"], p["in"]) for p in [*theirs.get("parameters", []), *inherited]}
        assert all(not parameters[key]["required"] for key in extra)


async def test_every_status_and_schema_of_the_contract_is_there(ours: dict[str, Any]) -> None:
    for path, method, theirs in operations(CONTRACT):
        mine = ours["paths"][path][method]
        assert set(theirs["responses"]) <= set(mine["responses"])
        assert [s for s in mine["responses"] if s < "300"] == [s for s in theirs["responses"] if s < "300"]
        for status, answer in theirs["responses"].items():
            assert ("content" in answer) <= ("content" in mine["responses"][status])
            if "content" in answer:
                wanted = resolved(CONTRACT, answer["content"]["application/json"]["schema"])
                given = resolved(ours, mine["responses"][status]["content"]["application/json"]["schema"])
                assert list(differences(wanted, given, f"{path} {status}")) == [] or path.endswith("/health-check")
        assert mine.get("requestBody", {}).get("required") == theirs.get("requestBody", {}).get("required")


async def test_every_schema_of_the_contract_is_there_field_by_field(ours: dict[str, Any]) -> None:
    found: list[str] = []
    for name, schema in CONTRACT["components"]["schemas"].items():
        if name in ("NameString", "SearchString"):  # aliases of a string: compared where they are used
            continue
        mine = resolved(ours, ours["components"]["schemas"][name])
        found += differences(resolved(CONTRACT, schema), mine, name)
    assert found == []


async def test_calls_are_authorized_by_a_bearer_key_everywhere_but_for_public_keys(ours: dict[str, Any]) -> None:
    assert ours["security"] == CONTRACT["security"]
    scheme = ours["components"]["securitySchemes"]["BearerAuth"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    opened = {operation["operationId"] for _, _, operation in operations(ours) if "security" in operation}
    assert opened == {"get-jwks", "get-openid-configuration"}


async def test_every_parameter_body_and_answer_has_an_example_that_fits(ours: dict[str, Any]) -> None:
    for path, _, operation in operations(ours):
        for parameter in operation.get("parameters", ()):
            check(ours, parameter["schema"], parameter["example"])
        contents = [operation["requestBody"]] if "requestBody" in operation else []
        contents += [answer for answer in operation["responses"].values() if "content" in answer]
        for content in contents:
            media = content["content"]["application/json"]
            check(ours, media["schema"], media["example"])
        assert ("204" in operation["responses"]) or any("content" in a for a in operation["responses"].values()), path


def check(document: dict[str, Any], schema: Any, example: Any) -> None:
    Draft202012Validator(resolved(document, schema), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        example
    )


async def test_what_is_routed_is_what_is_documented(tmp_path: Path, ours: dict[str, Any]) -> None:
    documented = {(path, method) for path, method, _ in operations(ours)}
    async with gateway(tmp_path / "other") as world, served(world) as url, http(url, await world.key()) as client:
        for path in {path for path, _ in documented}:
            answer = await client.request("TRACE", path.replace("{", "").replace("}", ""))
            allowed = set(answer.headers["allow"].lower().split(", ")) - {"head"}
            shadowed = {m for p, m in documented if p == path}
            assert answer.status_code == 405
            assert shadowed <= allowed
