"""The operator's list of hosts when an integration is written, and what tells of one that was written before the list."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.checkup import check_up
from server.egress import AllowedUpstreams, host_list
from server.settings import Settings, read_settings
from tests.processes import run
from tests.world import gateway, http, served
from tools.checks import unreached
from tools.host_list import EVERY, HostList, plain_host
from tools.models import Integration

pytestmark = pytest.mark.anyio
ALLOW = [{"hosts": ["*.good.example", "good.example", "127.0.0.1", "2001:DB8::0:1"]}]
OFF = "http://evil.example"
SAID = "evil.example isn't among the hosts that this workspace may reach: use one of those, or have the operator add it to "
NOW = datetime(2026, 1, 1, tzinfo=UTC)
READ = {"name": "read", "description": "Reads a record.", "method": "GET", "path": "/x"}


def integration(**fields: Any) -> dict[str, Any]:
    return {"name": "sys", "display_name": "S", "base_url": "http://api.good.example", "endpoints": [READ], **fields}


def client(token_url: str) -> dict[str, Any]:
    secret = {"client_secret_value": {"value": "swordfish-99"}}
    return {"type": "oauth2_client_credentials", "client_id": "me", "token_url": token_url, **secret}


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"base_url": OFF}, ["base_url"]),
        ({"base_url": "http://API.EVIL.EXAMPLE.:8080/v1"}, ["base_url"]),
        ({"auth": client("https://evil.example/token")}, ["auth", "token_url"]),
        ({"endpoints": [{**READ, "base_url": OFF}]}, ["endpoints", 0, "base_url"]),
        ({"protocol": "mcp", "mcp_transport": "http", "mcp_url": f"{OFF}/mcp", "endpoints": []}, ["mcp_url"]),
        ({"protocol": "fhir", "base_url": f"{OFF}/fhir", "endpoints": []}, ["base_url"]),
    ],
)
async def test_a_host_off_the_list_is_refused_when_it_is_written_and_the_field_is_named(
    tmp_path: Path, fields: dict[str, Any], loc: list[Any]
) -> None:
    async with gateway(tmp_path, upstream_hosts_allow=ALLOW) as world, served(world) as url:  # noqa: SIM117
        async with http(url, await world.key()) as door:
            made = await door.post("/v1/acme/integrations", json=integration(**fields))
            assert made.status_code == 422
            (fault,) = [f for f in made.json()["detail"] if "isn't among the hosts" in f["msg"]]
            assert fault["loc"] == ["body", *loc]
            assert fault["msg"].endswith(SAID.partition("evil.example")[2] + "INTEGRATIONS_MCP_UPSTREAM_HOSTS_ALLOW")
            assert (await door.post("/v1/acme/integrations", json=integration())).status_code == 201
            moved = await door.put("/v1/acme/integrations/sys", json={"base_url": OFF})
            assert (moved.status_code, moved.json()["detail"][0]["loc"]) == (422, ["body", "base_url"])


def test_an_endpoints_own_token_url_is_looked_at_too() -> None:
    auth = {k: v for k, v in client("https://evil.example/token").items() if k != "client_secret_value"}
    stored = {"id": "1", "workspace_id": "acme", "created_at": NOW, "updated_at": NOW}
    made = Integration.model_validate({**integration(endpoints=[READ, {**READ, "auth": auth}]), **stored})
    found = list(unreached(made, HostList({EVERY: ("api.good.example",)})))
    assert [issue.loc for issue in found] == [("body", "endpoints", 1, "auth", "token_url")]
    assert list(unreached(made, HostList({"ACME".lower(): ("api.good.example", "evil.example")}))) == []


async def test_one_that_was_written_before_the_list_is_told_by_explain_lint_and_doctor(tmp_path: Path) -> None:
    home = tmp_path / "gw"
    async with gateway(home) as world:
        await world.create(integration(base_url=OFF, endpoints=[{**READ, "base_url": f"{OFF}:81"}]))
        version = (await world.app.registry.load("acme"))[0]
    allow = json.dumps(ALLOW)
    env = {"INTEGRATIONS_MCP_UPSTREAM_HOSTS_ALLOW": allow, "INTEGRATIONS_MCP_HOME": str(home)}
    on = ("--workspace", "acme", "--json")
    told = run(tmp_path, "call", "sys_read", "--explain", *on, env=env)
    assert "evil.example isn't among the hosts that the operator lets this workspace reach" in told.stdout
    linted = run(tmp_path, "tools", "lint", *on, env=env)
    rows = [r for r in json.loads(linted.stdout)["rows"] if r["rule"] == "host_not_allowed"]
    assert linted.returncode == 1
    assert [(r["severity"], r["where"]) for r in rows] == [
        ("error", "sys.base_url"),
        ("error", "sys.endpoints.0.base_url"),
    ]
    settings = Settings(home=home, workspace="acme", log_level="error", upstream_hosts_allow=ALLOW)
    found = [f async for f in check_up(settings, tmp_path, tmp_path) if f.id == "upstream_hosts"]
    assert [(f.verdict, f.said.partition(":")[0]) for f in found] == [
        ("wrong", "sys, base_url"),
        ("wrong", "sys, endpoints.0.base_url"),
    ]
    assert all(SAID in f.said for f in found)
    async with gateway(home) as world:
        assert (await world.app.registry.load("acme"))[0] == version, "looking changes nothing"


def test_a_file_is_checked_against_the_list(tmp_path: Path) -> None:
    (tmp_path / "sys.json").write_text(json.dumps({"integrations": [integration(base_url=OFF)]}))
    env = {"INTEGRATIONS_MCP_UPSTREAM_HOSTS_ALLOW": json.dumps(ALLOW)}
    assert SAID in run(tmp_path, "check", "sys.json", env=env).stderr
    assert run(tmp_path, "check", "sys.json").returncode == 0


def test_names_and_addresses_are_compared_in_one_spelling() -> None:
    hosts = host_list(read_settings({"INTEGRATIONS_MCP_UPSTREAM_HOSTS_ALLOW": json.dumps(ALLOW)}))
    for host in ("GOOD.example", "good.example.", "a.b.Good.example", "127.0.0.1", "2001:db8::1", "2001:0DB8:0:0::1"):
        assert hosts.allows("acme", host), host
    for host in (
        "evilgood.example",
        "good.example.evil.test",
        "xn--good-.example",
        "127.0.0.2",
        "::ffff:127.0.0.1",
        "",
    ):
        assert not hosts.allows("acme", host), host


LABEL = st.text("abgodex-.:0127", min_size=1, max_size=12)


@given(LABEL, LABEL)
def test_what_a_pattern_lets_pass_is_the_host_itself_or_below_it(pattern: str, host: str) -> None:
    try:
        (kept,) = AllowedUpstreams(hosts=(f"*.{pattern}",)).hosts
        exact = AllowedUpstreams(hosts=(pattern,)).hosts
    except ValueError:
        return
    assert HostList({EVERY: exact}).allows("w", host) == (plain_host(host) == plain_host(pattern))
    below = HostList({EVERY: (kept,)})
    assert below.allows("w", f"{host}.{pattern}")
    assert not below.allows("w", pattern) or plain_host(pattern).endswith(kept[1:])
    assert not below.allows("w", f"{host}{pattern}") or plain_host(f"{host}{pattern}").endswith(kept[1:])
    assert not below.allows("w", f"{pattern}.evil.test") or "evil.test".endswith(kept[2:])
