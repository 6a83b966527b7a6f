"""Requests of imported real documents, judged by a mock server that Prism makes from the same document."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oauth_servers.running import free_port, process

from tests.api_documents import DOCUMENTS
from tests.mcp_upstreams.nodeservers import installed
from tests.test_api_documents import least
from tests.world import gateway
from tools.importers.documents import read_document
from tools.importers.frame import Source
from tools.importers.importing import Importer
from tools.importers.openapi import read_openapi
from tools.importers.requests import ImportRequest
from tools.models import SecretInput

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
PRISM = Path(__file__).parent / "prism"
REFERENCE = re.compile(r'"\$ref": "#/([^"]+)"')
OPERATIONS = 12
"""Of each document, spread over all of it: Prism reads a whole one for up to half a minute."""
AGAINST = {
    # It requires a field, team_id, that it doesn't define, so that no tool asks for it.
    "figma": {"PUT /v2/webhooks/{webhook_id}"}
}
NOTHING = {"200": {"description": "Requests are judged here, and Prism makes up some answers for half a minute."}}


def cut(root: dict[str, Any], source: Source) -> dict[str, Any]:
    """The document with OPERATIONS of its operations and what these refer to."""
    keys = [c.key for c in source.candidates]
    paths: dict[str, dict[str, Any]] = {}
    for key in keys[:: len(keys) // OPERATIONS][:OPERATIONS]:
        method, _, path = key.partition(" ")
        item = root["paths"][path]
        kept = {name: value for name, value in item.items() if name in ("parameters", "servers")}
        paths.setdefault(path, kept)[method.lower()] = {**item[method.lower()], "responses": NOTHING}
    return referred({**root, "paths": paths})


def referred(root: dict[str, Any]) -> dict[str, Any]:
    """Without the schemas, parameters and so on that nothing refers to."""
    holders = {"components": root.get("components", {}), "": {"definitions": root.get("definitions", {})}}
    wanted: set[str] = set()
    waiting = [root["paths"]]
    while waiting:
        for reference in REFERENCE.findall(json.dumps(waiting.pop())):
            if reference not in wanted:
                wanted.add(reference)
                value: Any = root
                for part in reference.split("/"):
                    value = value[part.replace("~1", "/").replace("~0", "~")]
                waiting.append(value)

    def kept(path: str, group: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in group.items() if f"{path}/{name}" in wanted}

    made = dict(root)
    for holder, groups in holders.items():
        cut_down = {n: g if n == "securitySchemes" else kept(f"{holder}/{n}".strip("/"), g) for n, g in groups.items()}
        made |= {holder: cut_down} if holder else cut_down
    return {name: value for name, value in made.items() if value or name not in ("components", "definitions")}


@contextlib.contextmanager
def mock(document: dict[str, Any], folder: Path) -> Iterator[str]:
    """A server that answers as the document says and tells in a header what of a request is against it."""
    node, root = installed("prism", PRISM)
    file = folder / "document.json"
    file.write_text(json.dumps(document))
    url = f"http://127.0.0.1:{(port := free_port())}"
    program = root / "node_modules/@stoplight/prism-cli/dist/index.js"
    with process([node, program, "mock", "-h", "127.0.0.1", "-p", str(port), file], url, folder / "log", folder):
        yield url


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_what_an_imported_tool_sends_is_what_the_document_asks_for(tmp_path: Path, name: str) -> None:
    root = read_document(DOCUMENTS[name].read()).root
    document = cut(root, read_openapi(read_document(json.dumps(root).encode())))

    async def read(data: bytes, where: str) -> Source:
        return read_openapi(read_document(data))

    with mock(document, tmp_path) as url:
        async with gateway(tmp_path / "home") as world:
            importer = Importer(world.app.admin, 48, world.app.importer.connecting, read)
            request = ImportRequest(
                document=document,
                name=name,
                base_url=url,
                secret=SecretInput(value="Basic YTpi" if name == "twilio" else "secret"),
                enabled=True,
                apply=True,
            )
            made = await importer.run(world.owner, request)
            assert made.counts["add"] == OPERATIONS
            tools = (await world.app.catalogs.get("acme")).tools
            against: dict[str, Any] = {}
            for row in made.endpoints:
                outcome = await world.app.toolbox.call(world.owner, row.tool, least(tools[row.tool].published.schema))
                answer = outcome.trace.answer
                assert answer is not None, outcome.text
                violations = json.loads(answer.headers.get("sl-violations", "[]"))
                found = [v for v in violations if v["location"][0] == "request"]
                if found or answer.status in (401, 404, 415, 422):
                    against[row.operation] = (answer.status, found, answer.body[:300])
    assert set(against) == AGAINST.get(name, set()), against
