"""A minted token and a client assertion are nowhere in clear: answers, errors, explain, history, the database, the log at debug (rules A6,
I1, J6)."""

import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest
from anyio import to_thread

from tests.processes import running
from tests.test_canary import echoes, spellings
from tests.upstreams import Hostile, Received, answer
from tests.world import World, gateway, http, served
from tools import explain as explaining
from tools.jwks import generate_key

pytestmark = pytest.mark.anyio
SECRET = "client-canary/4+z=&%5"
TOKEN = 'Minted/7+x"9&%=y\\z~3'
PEM, _ = generate_key("ES384")
JSON = {"Content-Type": "application/json"}
OUTCOME = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "login", "diagnostics": TOKEN}]}
ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


def assert_hidden(what: str, text: str, secrets: list[str]) -> None:
    for secret in secrets:
        found = [spelling for spelling in spellings(secret) if spelling in text]
        assert found == [], what


def assertions(server: Hostile) -> list[str]:
    """Every one that left us, its signature, and a line of the key that made it."""
    sent = [value for r in server.received for value in parse_qs(r.body.decode()).get("client_assertion", [])]
    return sent + [jws.rpartition(".")[2] for jws in sent] + PEM.splitlines()[1:-1]


def files(home: Path) -> Iterator[tuple[str, str]]:
    for file in home.iterdir():
        if file.is_file():
            yield file.name, file.read_bytes().decode("latin-1")


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        body = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        made.script("/token", answer(200, json.dumps(body).encode(), JSON))
        for path, step in echoes(TOKEN).items():
            made.script(path, step)
        made.script(
            "/fhir/Patient", answer(400, json.dumps(OUTCOME).encode(), {"Content-Type": "application/fhir+json"})
        )
        yield made


def crm(url: str) -> dict[str, Any]:
    endpoints = [
        {
            "name": f"get_{path[1:]}",
            "description": "d",
            "method": "GET",
            "path": path,
            "retry_config": {"max_retries": 0},
            **({"result_template": "{{ a }}{{ b }}"} if path == "/halves" else {}),
            **({"max_result_length": 3000} if path == "/long" else {}),
        }
        for path in echoes(TOKEN)
    ]
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": f"{url}/token",
        "client_id": "client-1",
        "client_secret_value": {"value": SECRET},
    }
    return {"name": "crm", "display_name": "C", "base_url": url, "auth": auth, "endpoints": endpoints}


def ehr(url: str) -> dict[str, Any]:
    auth = {
        "type": "smart_backend_services",
        "client_id": "me",
        "scopes": ["system/Patient.rs"],
        "token_url": f"{url}/smart",
        "private_key_value": {"value": PEM},
    }
    search = {"name": "search", "description": "d", "method": "GET", "path": "/Patient"}
    return {
        "name": "ehr",
        "display_name": "E",
        "protocol": "fhir",
        "base_url": f"{url}/fhir",
        "auth": auth,
        "endpoints": [search],
    }


async def everything_told(world: World, tool: str) -> str:
    """What anybody can see of one call, of the connection and of what is kept."""
    app, owner = world.app, world.owner
    ref, _, endpoint = tool.partition("_")
    outcome = await app.admin.test(owner, ref, endpoint, {})
    masker = outcome.trace.masker
    told = [
        await world.call(tool),
        outcome.text,
        f"{outcome.error!r} {outcome.error}",
        json.dumps(explaining.explain(outcome, masker), default=str),
        explaining.test_response(outcome, masker).model_dump_json(),
    ]
    if outcome.result_id:
        told.append((await app.toolbox.call(owner, "get_result", {"result_id": outcome.result_id, "from": 100})).text)
    return "\n".join(told)


async def test_a_minted_token_reaches_the_system_and_no_one_else(tmp_path: Path, server: Hostile) -> None:
    async with gateway(tmp_path, record_arguments=True) as world:
        made = await world.create(crm(server.url))
        hidden = [TOKEN, SECRET]
        for endpoint in made.endpoints:
            told = await everything_told(world, f"crm_{endpoint.name}")
            assert server.received[-1].header("authorization") == f"Bearer {TOKEN}"
            assert_hidden(endpoint.name, told, hidden)
        assert [r.path for r in server.received].count("/token") == 2  # one, and one for the 401
        assert_hidden("health", json.dumps(await world.app.admin.health(world.owner), default=str), hidden)
        told_by = await world.app.admin.test_connection(world.owner, "crm")
        assert_hidden(
            "connection", json.dumps(told_by | await world.app.auth_admin.explain(world.owner, "crm")), hidden
        )
        async with served(world) as url, http(url, await world.key("owner")) as client:
            for name in ("crm_get_json", "crm_get_gzip", "crm_get_404"):
                message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
                got = await client.post("/mcp", json=message, headers=ACCEPT)
                assert_hidden(name, got.text + repr(dict(got.headers)), hidden)
            await world.app.history.flush()
            calls = await client.get("/v1/acme/calls?limit=100")
            assert "crm_get_json" in calls.text
            assert_hidden("history", calls.text + (await client.get("/v1/acme/audit")).text, hidden)
        await world.app.admin.delete(world.owner, "crm")
        for name, content in files(tmp_path):
            assert_hidden(name, content, hidden)


def quoting(kind: str) -> Any:
    """A token endpoint that refuses and gives back what it was sent."""

    async def step(request: Received, writer: Any) -> bool:
        said = parse_qs(request.body.decode())["client_assertion"][0]
        every = echoes(said)
        if kind == "description":
            body = json.dumps({"error": "invalid_client", "error_description": f"bad assertion {said}"}).encode()
            return await answer(400, body, JSON)(request, writer)
        if kind == "code":
            return await answer(400, json.dumps({"error": said}).encode(), JSON)(request, writer)
        return await every[kind](request, writer)

    return step


@pytest.mark.parametrize("kind", ["description", "code", *echoes("")])
async def test_an_assertion_that_the_token_endpoint_gives_back_is_shown_to_no_one(
    tmp_path: Path, server: Hostile, kind: str
) -> None:
    server.script("/smart", quoting(kind))
    async with gateway(tmp_path) as world:
        await world.create(ehr(server.url))
        told = await everything_told(world, "ehr_search")
        told += json.dumps(await world.app.admin.test_connection(world.owner, "ehr"), default=str)
        told += json.dumps(await world.app.auth_admin.explain(world.owner, "ehr"), default=str)
        told += json.dumps(await world.app.admin.health(world.owner), default=str)
        hidden = assertions(server)
        assert len(hidden) > 3
        assert_hidden(kind, told, hidden)
        for name, content in files(tmp_path):
            assert_hidden(name, content, hidden)


async def test_an_operation_outcome_that_quotes_the_token_is_masked(tmp_path: Path, server: Hostile) -> None:
    """Rules J6: in the diagnostics, which are what the agent is told of a FHIR error."""
    body = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
    server.script("/smart", answer(200, json.dumps(body).encode(), JSON))
    async with gateway(tmp_path) as world:
        await world.create(ehr(server.url))
        told = await everything_told(world, "ehr_search")
        assert server.received[-1].header("authorization") == f"Bearer {TOKEN}"
        assert "login" in told
        assert_hidden("outcome", told, [TOKEN, *assertions(server)])


@pytest.mark.slow
async def test_a_running_server_logs_none_of_it_at_debug(tmp_path: Path, server: Hostile) -> None:
    """Rules I1: calls that succeed, fail and mint, by MCP and by REST, from start to end of the process."""
    server.script("/smart", quoting("description"))
    settings = {
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
        "INTEGRATIONS_MCP_WORKSPACE": "acme",
        "INTEGRATIONS_MCP_LOG_LEVEL": "debug",
        "PYTHONASYNCIODEBUG": "1",
    }
    async with gateway(tmp_path) as world:
        await world.create(crm(server.url))
        await world.create(ehr(server.url))
        key = await world.key("owner")
    with anyio.fail_after(60), running(tmp_path, "serve", "--port", "0", "--json", env=settings) as process:
        url = (await to_thread.run_sync(process.json_line))["url"]
        told = ""
        async with http(url, key) as client:
            names = ["ehr_search", *(f"crm_get_{path[1:]}" for path in echoes(TOKEN))]
            for name in names:
                message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
                told += (await client.post("/mcp", json=message, headers=ACCEPT, timeout=30)).text
            told += (await client.post("/v1/acme/integrations/ehr/test-connection", timeout=30)).text
            told += (await client.get("/v1/acme/integrations/no-such-thing")).text
        process.send(signal.SIGTERM)
        out, err = await to_thread.run_sync(process.rest)
        hidden = [TOKEN, SECRET, *assertions(server)]
        assert len(hidden) > 3
        assert err.strip() != ""
        assert_hidden("answers", told, hidden)
        log = out + err
        for text in (log, log.replace("\n", "")):  # also split over lines
            assert_hidden("log", text, hidden)
        assert key not in out + err
