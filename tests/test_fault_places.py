"""The faults of `test_fault_matrix`, at the other places that a request of ours goes to: what the caller gets, and nothing is left.

A token endpoint, a SMART configuration, the next page of a search, an MCP server's handshake and its call, a document that is
imported, the keys of an identity provider.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fhir_servers.small import bundle, fhir, integration, patient, search, statement
from tests.issuer import REST, Issuer
from tests.test_clock_steps import JSON, minting
from tests.test_fault_matrix import FAULTS
from tests.test_mcp_upstream_faults import reply
from tests.upstreams import Hostile, Received, Step, answer, head
from tests.world import World, gateway, http, served
from tools.errors import RequestError
from tools.importers.importing import ImportRequest
from tools.outcome import Outcome
from tools.parsing import parse

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
each = pytest.mark.parametrize("fault", FAULTS)
QUICK = {"timeout_seconds": 2, "retry_config": {"max_retries": 0}}
NO_CREDENTIAL = {"credential_unavailable", "misconfigured"}
SILENT = {name for name, (_, code, _) in FAULTS.items() if code == "upstream_timeout"}
PEM = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)


@asynccontextmanager
async def place(home: Path, **settings: Any) -> AsyncGenerator[tuple[World, Hostile]]:
    """A gateway and the server that fails; when it ends no connection and no task of the gateway may be left."""
    before = asyncio.all_tasks()
    async with Hostile() as server:
        async with gateway(home, **settings) as world:
            yield world, server
        await server.until(lambda: server.open == 0)
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        # Documents are read in a process, which the loop keeps for the next one.
        theirs = ("Hostile", "_shutdown_process_pool_on_exit")
        assert not [t for t in left if not t.done() and not any(name in repr(t) for name in theirs)]


async def called(world: World, tool: str, **arguments: Any) -> Outcome:
    return await world.app.toolbox.call(world.owner, tool, arguments)


def told(outcome: Outcome) -> tuple[str, str]:
    assert outcome.error is not None, outcome.text
    return outcome.error.code, outcome.error.sent


@each
async def test_a_token_endpoint_that_fails_costs_a_call_that_is_not_sent(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as (world, server):
        body = minting(server, 3600)
        body["endpoints"][0] |= QUICK
        works = server._scripts["/token"]
        server.script("/token", FAULTS[fault][0])
        await world.create(body)
        code, sent = told(await called(world, "up_items"))
        assert (code in NO_CREDENTIAL, sent) == (True, "no")
        assert "/items" not in {r.path for r in server.received}
        if fault not in SILENT:  # there the mint goes on for its ten seconds (rules B6)
            server.script("/token", *works)
            assert await world.call("up_items") == "[1]"


@each
async def test_a_smart_configuration_that_can_not_be_had_costs_a_call_that_is_not_sent(
    tmp_path: Path, fault: str
) -> None:
    auth = {
        "type": "smart_backend_services",
        "client_id": "me",
        "scopes": ["system/Patient.rs"],
        "private_key_value": {"value": PEM},
    }
    async with place(tmp_path) as (world, server):
        server.script("/fhir/metadata", fhir(200, statement()))
        server.script("/fhir/.well-known/smart-configuration", FAULTS[fault][0])
        await integration(world, server, search() | QUICK, auth=auth)
        code, sent = told(await called(world, "ehr_find"))
        assert (code in NO_CREDENTIAL, sent) == (True, "no")
        assert {r.path for r in server.received} <= {
            "/fhir/metadata",
            "/fhir/.well-known/smart-configuration",
            "/read",  # where the redirect goes round
        }


@each
async def test_a_page_that_can_not_be_had_is_told_and_the_first_is_there(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as (world, server):
        server.script("/fhir/metadata", fhir(200, statement()))
        server.script("/fhir/Patient", fhir(200, bundle(patient("1"), next=f"{server.url}/fhir/page2")))
        server.script("/fhir/page2", FAULTS[fault][0])
        await integration(world, server, search() | QUICK)
        text = await world.call("ehr_find", _count=2)
        assert text.startswith("[The next page could not be read")
        assert '"id":"1"' in text
        server.script("/fhir/page2", fhir(200, bundle(patient("2"))))
        assert '"id":"2"' in await world.call("ehr_find", _count=2)


def instead_of(method: str, step: Step) -> Step:
    """An MCP server that does `step` when it is asked for `method`."""

    async def mcp(received: Received, writer: asyncio.StreamWriter) -> bool:
        request = json.loads(received.body) if received.method == "POST" else {}
        if request.get("method") == method:
            return await step(received, writer)
        if "id" not in request:
            writer.write(head(405 if received.method != "POST" else 202, {"Content-Length": "0"}))
            return True
        return await answer(200, json.dumps(reply(request)).encode(), JSON)(received, writer)

    return mcp


async def mcp_world(world: World, server: Hostile) -> Callable[[], Awaitable[Outcome]]:
    """An integration whose tools are known; the call of one that writes."""
    works = server.script("/mcp", instead_of("nothing", answer(200)))
    row = {"name": "write", "description": "Writes.", "method": "POST", "path": "write", **QUICK}
    body = {"name": "up", "display_name": "Up", "protocol": "mcp", "mcp_transport": "http", "mcp_url": works}
    made = await world.create({**body, "endpoints": [row]})
    world.app.gateway._mcp.forget(made.id)

    async def write() -> Outcome:
        return await called(world, "up_write")

    return write


@each
async def test_an_mcp_server_that_fails_in_a_call_is_told_as_any_other(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as (world, server):
        write = await mcp_world(world, server)
        server.script("/mcp", instead_of("tools/call", FAULTS[fault][0]))
        code, sent = told(await write())
        # It isn't JSON, so its length isn't looked at.
        wanted = "invalid_response" if fault == "names a length of 20 MB" else FAULTS[fault][2]
        assert (code, sent == "no") == (wanted, False)
        calls = [r for r in server.received if r.path == "/mcp" and b'"tools/call"' in r.body]
        assert len(calls) == 1
        server.script("/mcp", instead_of("nothing", answer(200)))
        assert not (await write()).is_error


@each
async def test_a_call_is_not_sent_where_the_handshake_fails_and_says_so(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as (world, server):
        write = await mcp_world(world, server)
        server.script("/mcp", instead_of("initialize", FAULTS[fault][0]))
        outcome = await write()
        code, sent = told(outcome)
        assert sent == "no"
        assert code in {"upstream_unreachable", "upstream_timeout", "invalid_response", "redirect_refused"}
        assert "not sent" in outcome.text.lower()
        assert "carried out" not in outcome.text
        assert [r for r in server.received if b'"tools/call"' in r.body] == []


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - SILENT))  # those take its 30 s
async def test_a_document_that_can_not_be_had_imports_nothing(tmp_path: Path, fault: str) -> None:
    async with place(tmp_path) as (world, server):
        url = server.script("/openapi.json", FAULTS[fault][0])
        with pytest.raises(RequestError):
            await world.app.importer.run(world.owner, parse(ImportRequest, {"url": url, "name": "up"}))
        assert (await world.app.registry.load("acme"))[1] == ()


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - SILENT))
async def test_keys_of_an_identity_provider_that_can_not_be_had_let_nobody_in(tmp_path: Path, fault: str) -> None:
    idp = Issuer()
    async with Hostile() as server:
        idp.url = server.url
        metadata = {"issuer": idp.url, "jwks_uri": f"{idp.url}/keys"}
        server.script(idp.metadata, answer(200, json.dumps(metadata).encode(), JSON))
        server.script("/keys", FAULTS[fault][0])
        async with (
            gateway(tmp_path, **idp.settings()) as world,
            served(world) as url,
            http(url, idp.token(aud=REST)) as client,
            http(url, await world.key()) as owner,
        ):
            refused = await client.get("/v1/acme/integrations")
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            assert (await owner.get("/v1/acme/integrations")).status_code == 200
