"""The examples of README and docs do what the pages say: integrations can be written, requests go out as shown."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from server.config_file import parse_text
from tools.address_guard import NetworkPolicy
from tools.arguments import compile_arguments
from tools.checks import CheckRules, check
from tools.kinds.paths import parse_path
from tools.kinds.rest import compile_rest
from tools.models import INLINE_SECRETS, AuthConfig, Integration
from tools.parsing import parse_create

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BASE = "https://api.clinic.example/v2"
BLOCK = re.compile(
    r"```(?:yaml|json|http) ((?<=yaml )(?:integration|endpoint)|(?<=json )arguments|(?<=http )request)\n(.*?)```",
    re.DOTALL,
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(kind, text) of the marked blocks of a page, in order."""
    return BLOCK.findall(page.read_text("utf-8"))


def examples(kind: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.name}-{n}")
        for page in PAGES
        for n, (found, text) in enumerate(blocks(page))
        if found == kind
    ]


def read(text: str) -> Any:
    """As `apply` and `load` read it."""
    (entry,) = parse_text(text, "docs", {})
    return entry.data


def integration_of(endpoint: str) -> dict[str, Any]:
    return {"name": "clinic", "display_name": "Clinic", "base_url": BASE, "endpoints": [read(endpoint)]}


def requests() -> list[Any]:
    """Each endpoint that is followed by arguments and a request."""
    found: list[Any] = []
    for page in PAGES:
        rows = blocks(page)
        for n, (a, b, c) in enumerate(zip(rows, rows[1:], rows[2:], strict=False)):
            if (a[0], b[0], c[0]) == ("endpoint", "arguments", "request"):
                found.append(pytest.param(a[1], json.loads(b[1]), c[1], id=f"{page.name}-{n}"))
    return found


def stored(body: dict[str, Any]) -> Integration:
    """As it would be kept: paths in place of auth's inline values."""
    request = parse_create(body)
    fields = {name: getattr(request, name) for name in type(request).model_fields if name != "auth"}
    auth = None
    if request.auth is not None:
        paths = {path: "/gw/default/x" for inline, path in INLINE_SECRETS.items() if getattr(request.auth, inline)}
        auth = AuthConfig(**({n: getattr(request.auth, n) for n in AuthConfig.model_fields} | paths))
    at = datetime(2026, 11, 2, tzinfo=UTC)
    return Integration(**fields, auth=auth, id="i", workspace_id="default", created_at=at, updated_at=at)


@pytest.mark.parametrize("text", examples("integration"))
def test_an_integration_of_the_docs_can_be_written(text: str) -> None:
    integration = stored(read(text))
    assert integration.endpoints
    assert check(integration, [], CheckRules(NetworkPolicy())) == []


@pytest.mark.parametrize("text", examples("endpoint"))
def test_an_endpoint_of_the_docs_can_be_written(text: str) -> None:
    assert check(stored(integration_of(text)), [], CheckRules(NetworkPolicy())) == []


@pytest.mark.parametrize(("text", "arguments", "expected"), requests())
def test_the_request_of_an_example_goes_out_as_shown(text: str, arguments: dict[str, Any], expected: str) -> None:
    (endpoint,) = stored(integration_of(text)).endpoints
    compiled = compile_arguments(endpoint.input_schema, parse_path(endpoint.path).names)
    request = compile_rest(endpoint, BASE, compiled.schema).build(compiled.prepare(arguments).values)
    head, _, body = expected.partition("\n\n")
    line, *headers = head.strip().split("\n")
    assert f"{request.method} {request.url}" == line
    sent = {f"{name}: {value}" for name, value in request.headers if not name.startswith("X-Integrations-Mcp-")}
    assert {h for h in sent if not h.startswith(("Accept:", "User-Agent:"))} == set(headers)
    assert (request.body or b"").decode() == body.strip()


def test_every_marked_block_is_one_of_the_examples_above() -> None:
    """An `arguments` block that nothing reads would be an untested promise."""
    read = len(requests())
    kinds = [kind for page in PAGES for kind, _ in blocks(page)]
    assert kinds.count("arguments") == kinds.count("request") == read >= 8
