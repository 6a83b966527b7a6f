"""A name that doesn't resolve: who may not change the integration sees what a refused address shows, who may is told (rules H2)."""

import json
import re
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run
from tests.world import World, gateway
from tools.address_guard import NetworkPolicy
from tools.callers import ROLE_PERMISSIONS, Caller, Role
from tools.engine import HttpEngine
from tools.errors import InvalidRequest
from tools.importers.requests import ImportRequest

pytestmark = pytest.mark.anyio
MISSING, INWARD = "missing.example", "inward.example"
READ = {"name": "read", "description": "Reads a record.", "method": "GET", "path": "/x"}
PLAIN = f"{MISSING} doesn't resolve"


async def lookup(name: str, port: int) -> Sequence[str]:
    if name == INWARD:
        return ["10.0.0.1"]
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def caller(role: Role) -> Caller:
    return Caller(f"k-{role}", "acme", role=role, permissions=ROLE_PERMISSIONS[role])


def signed(host: str) -> dict[str, Any]:
    secret = {"client_secret_value": {"value": "swordfish-99"}}
    return {"type": "oauth2_client_credentials", "client_id": "me", "token_url": f"https://{host}/token", **secret}


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """For each host a REST, an MCP and a FHIR integration, and one whose token endpoint it is."""
    monkeypatch.setattr("server.app.HttpEngine", partial(HttpEngine, lookup=lookup))
    async with gateway(tmp_path, network=NetworkPolicy()) as made:
        for n, host in enumerate((MISSING, INWARD)):
            url = f"https://{host}"
            for body in (
                {"name": f"rest{n}", "base_url": url, "endpoints": [READ]},
                {"name": f"fhir{n}", "base_url": url, "protocol": "fhir", "endpoints": [{**READ, "path": "/Patient"}]},
                {"name": f"mcp{n}", "protocol": "mcp", "mcp_transport": "http", "mcp_url": f"{url}/mcp"},
                {"name": f"auth{n}", "base_url": "https://a.example", "endpoints": [READ], "auth": signed(host)},
            ):
                await made.create({**body, "display_name": "S"})
        yield made


async def told(world: World, by: Caller, n: int) -> dict[str, Any]:
    """All that a caller can learn of the host with this number, with what must differ taken out."""
    toolbox, admin, found = world.app.toolbox, world.app.admin, dict[str, Any]()
    for kind in ("rest", "fhir", "auth"):
        found[f"call {kind}"] = (await toolbox.call(by, f"{kind}{n}_read", {})).text
        tested = await toolbox.call(by, "test_integration_endpoint", {"tool": f"{kind}{n}_read", "params": {}})
        found[f"test {kind}"] = tested.structured or tested.text
    if by.may("Integration.view"):
        for kind in ("rest", "fhir", "auth", "mcp"):
            found[f"connection {kind}"] = await admin.test_connection(by, f"{kind}{n}")
            found[f"explain {kind}"] = await world.app.auth_admin.explain(by, f"{kind}{n}")
        found["health"] = [row for row in (await admin.health(by))["integrations"] if row["name"].endswith(str(n))]
    text = json.dumps(found, default=str)
    for pattern in (
        rf"{MISSING}|{INWARD}",
        rf"\b(rest|fhir|mcp|auth){n}\b",
        r"[0-9a-f-]{36}",
        r"\b[ct]_\w+",
        r"\d{4}-[\d:T.+-]+",
    ):
        text = re.sub(pattern, "-", text)
    return json.loads(re.sub(r'("(?:ms|duration_ms|waited_s)": )[\d.]+', r"\g<1>0", text.replace(f"{n}_read", "_read")))


@pytest.mark.parametrize("role", ["agent", "viewer", "operator"])
async def test_who_may_not_change_it_sees_no_difference_to_an_address_that_is_refused(world: World, role: Role) -> None:
    by = caller(role)
    assert not by.may("Integration.update")
    missing, inward = await told(world, by, 0), await told(world, by, 1)
    assert missing == inward
    assert "resolve" not in str(missing)
    assert "10.0.0.1" not in str(inward)
    assert "allowed here" in str(missing)


async def test_no_figure_tells_how_long_the_look_at_a_refused_address_took(world: World) -> None:
    for n in (0, 1):
        outcome = await world.app.toolbox.call(caller("member"), f"rest{n}_read", {})
        assert outcome.duration_ms % 50 == 0
        assert [a.ms % 50 for a in outcome.trace.attempts] == [0]


async def test_who_may_change_it_is_told_that_the_name_does_not_resolve(world: World) -> None:
    by = caller("member")
    for kind in ("rest", "fhir", "auth"):
        text = (await world.app.toolbox.call(by, f"{kind}0_read", {})).text
        assert f"points at a host name that is not found ({PLAIN}: Name or service not known)" in text
        assert "[misconfigured]" in text
    tested = await world.app.toolbox.call(by, "test_integration_endpoint", {"tool": "rest0_read", "params": {}})
    assert tested.structured is not None
    assert PLAIN in tested.structured["attempts"][0]["error"]
    for kind in ("rest", "fhir", "mcp", "auth"):
        assert PLAIN in (await world.app.admin.test_connection(by, f"{kind}0"))["message"], kind
    assert PLAIN in str(await world.app.admin.health(by))
    inward = (await world.app.toolbox.call(by, "rest1_read", {})).text
    assert "points at an address that isn't allowed here" in inward
    assert "10.0.0.1" in str((await world.app.admin.test_connection(by, "rest1"))["message"])


async def test_an_import_tells_only_who_may_change_integrations(world: World) -> None:
    creates = Caller("k", "acme", permissions=frozenset({"Integration.create"}))
    for request in ({"url": f"https://{MISSING}/openapi.json"}, {"fhir": f"https://{MISSING}/fhir"}):
        for by, tells in ((creates, False), (caller("member"), True)):
            with pytest.raises(InvalidRequest) as caught:
                await world.app.importer.run(by, ImportRequest.model_validate(request))
            assert (PLAIN in str(caught.value)) == tells, (by, request)


def test_the_local_owner_is_told_in_the_shell(tmp_path: Path) -> None:
    file = {
        "integrations": [{"name": "sys", "display_name": "S", "base_url": "https://no.invalid", "endpoints": [READ]}]
    }
    (tmp_path / "sys.json").write_text(json.dumps(file))
    assert run(tmp_path, "apply", "-f", "sys.json", "--yes").returncode == 0
    assert "host name that is not found (no.invalid doesn't resolve" in run(tmp_path, "call", "sys_read").stdout
    tested = run(tmp_path, "integrations", "test", "sys")
    assert "no.invalid doesn't resolve" in tested.stdout + tested.stderr
