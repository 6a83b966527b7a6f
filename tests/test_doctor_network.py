"""doctor: the way out, identity providers and clocks; each planted fault is found and told with what to do."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec

from server.app import issuers_of
from server.checkup import check_up
from server.clocks import beside_hosts, hosts_apart
from server.egress import way_out
from server.egress_checkup import certificates, outbound_proxy
from server.finding import Finding
from server.settings import Settings, read_settings
from server.surroundings import identity_providers
from tests.issuer import Issuer, issuer, jwk_of
from tests.test_way_out import Tunnels
from tests.upstreams import Hostile, answer
from tests.world import gateway

pytestmark = pytest.mark.anyio


def settings(tmp_path: Path, **variables: Any) -> Settings:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in variables.items()}
    env = {
        f"INTEGRATIONS_MCP_{k.upper()}": v
        for k, v in {"home": str(tmp_path / "gw"), "log_level": "error", **texts}.items()
    }
    return read_settings(env)


# -- certificates


def shown(tmp_path: Path, pem: bytes, now: datetime | None = None) -> Finding:
    """What is found of this as a client certificate."""
    file = tmp_path / "client.pem"
    file.write_bytes(pem)
    entry = {"workspace": "*", "origins": ["https://up.example"], "file": str(file)}
    [found] = certificates(settings(tmp_path, client_certificates=[entry]), now)
    assert (found.id, found.about) == ("client_certificate", str(file))
    return found


def pem(certificate: trustme.LeafCert, key: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems) + key.private_key_pem.bytes()


def test_a_client_certificate_is_told_before_and_after_it_ends_and_where_its_key_is_another_ones(
    tmp_path: Path,
) -> None:
    ca, ends = trustme.CA(), datetime(2031, 6, 15, tzinfo=UTC)
    own, other = ca.issue_cert("client.example", not_after=ends), ca.issue_cert("client.example")
    for before, verdict, said in (
        (timedelta(days=15), "ok", "until 2031-06-15"),
        (timedelta(days=13), "note", "ends on 2031-06-15"),
        (timedelta(0), "wrong", "ended on 2031-06-15"),
        (timedelta(days=365 * 100), "wrong", "isn't valid before"),
    ):
        found = shown(tmp_path, pem(own, own), ends - before)
        assert (found.verdict, said in found.said, bool(found.do)) == (verdict, True, verdict != "ok")
    mixed = shown(tmp_path, pem(own, other))
    assert (mixed.verdict, "its key isn't its certificate's" in mixed.said) == ("wrong", True)
    assert "PRIVATE" not in repr(mixed)


def test_an_authority_that_ends_soon_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    [now] = certificates(settings(tmp_path, ca_file=str(file)))
    [later] = certificates(settings(tmp_path, ca_file=str(file)), datetime(2999, 12, 25, tzinfo=UTC))
    assert (now.verdict, later.verdict, "1 of them ended or end soon" in later.said) == ("ok", "note", True)


async def test_with_a_ca_file_that_cannot_be_read_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    found = {f.id: f async for f in check_up(settings(tmp_path, ca_file=str(tmp_path / "no.pem")), tmp_path, tmp_path)}
    assert (found["ca_file"].verdict, "no.pem can't be used" in found["ca_file"].said) == ("wrong", True)
    assert found["registry"].said == "not looked at"
    assert "disk" in found


# -- the proxy


@pytest.mark.parametrize(
    ("says", "verdict", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "ok", "answers"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wrong", "407: user and password are refused"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "wrong", "doesn't speak HTTP"),
    ],
)
async def test_the_proxy_is_asked_and_only_what_shuts_us_out_is_wrong(
    tmp_path: Path, says: bytes, verdict: str, said: str
) -> None:
    tunnels = Tunnels()
    tunnels.says = says
    async with tunnels.running() as at:
        proxy = settings(tmp_path, outbound_proxy=f"http://gw:proxy-secret@{at}")
        [found] = [f async for f in outbound_proxy(proxy)]
        assert tunnels.asked == [(at, "Basic Z3c6cHJveHktc2VjcmV0")], "nobody but the proxy itself is asked for"
    assert (found.verdict, said in found.said, "proxy-secret" in repr(found)) == (verdict, True, False)
    [gone] = [f async for f in outbound_proxy(proxy)]
    assert (gone.verdict, "can't be reached" in gone.said) == ("wrong", True)


# -- identity providers


async def looked_at(tmp_path: Path, entry: dict[str, Any]) -> Finding:
    read = settings(tmp_path, public_url="https://gw.example", identity_providers=[entry])
    issuers, upstream = issuers_of(read, way_out(read))
    try:
        [found] = await identity_providers(issuers)
    finally:
        await upstream.aclose()
    assert (found.id, found.about) == ("identity_provider", entry["issuer"])
    return found


async def test_an_identity_provider_that_can_be_used_is_fine(tmp_path: Path) -> None:
    async with issuer() as idp:
        found = await looked_at(tmp_path, idp.provider())
    assert (found.verdict, found.said) == ("ok", "1 keys, for RS256")


def other_name(idp: Issuer) -> None:
    idp.name = f"{idp.url}/"


def no_keys(idp: Issuer) -> None:
    idp.published = [{"kty": "oct", "k": "c2VjcmV0"}]


def another_algorithm(idp: Issuer) -> None:
    idp.published = [jwk_of(ec.generate_private_key(ec.SECP384R1()), "one", alg="ES384")]


def down(idp: Issuer) -> None:
    idp.status = 503


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (other_name, "about another issuer, 'http://127.0.0.1:"),
        (no_keys, "no key that can verify"),
        (another_algorithm, "none of its 1 keys (ES384) is for RS256, PS256, ES256"),
        (down, "answers 503"),
    ],
)
async def test_an_identity_provider_whose_tokens_would_be_refused_is_wrong_and_the_reason_is_told(
    tmp_path: Path, fault: Any, said: str
) -> None:
    async with issuer() as idp:
        entry = idp.provider()
        fault(idp)
        found = await looked_at(tmp_path, entry)
    assert (found.verdict, said in found.said, bool(found.do)) == ("wrong", True, True)


async def test_an_identity_provider_that_is_gone_is_wrong(tmp_path: Path) -> None:
    async with issuer() as idp:
        entry = idp.provider()
    found = await looked_at(tmp_path, entry)
    assert (found.verdict, "no connection could be made (" in found.said) == ("wrong", True)


# -- clocks


def dated(ahead_s: float, **headers: str) -> Any:
    return answer(404, b"", {"Date": formatdate(time.time() + ahead_s, usegmt=True), **headers})


async def test_hosts_are_asked_for_their_time_and_what_a_cache_kept_is_no_difference(tmp_path: Path) -> None:
    async with (
        Hostile() as ahead,
        Hostile("127.0.0.2") as kept,
        Hostile("127.0.0.3") as silent,
        gateway(tmp_path) as world,
    ):
        ahead.script("/", dated(300))
        kept.script("/", dated(-4000, Age="4000"))
        silent.script("/", answer(204))
        found = await hosts_apart(world.app.upstream, "acme", [ahead.url, kept.url, silent.url])
        assert {host: round(s, -1) for host, s in found.items()} == {"127.0.0.1": 300, "127.0.0.2": 0}
        assert [(r.method, "authorization" in r.headers) for r in ahead.received] == [("HEAD", False)]


async def test_a_host_that_this_workspace_may_not_reach_is_not_asked_for_its_time(tmp_path: Path) -> None:
    allow = [{"workspace": "*", "hosts": ["api.example"]}]
    async with Hostile() as up, gateway(tmp_path, upstream_hosts_allow=allow) as world:
        up.script("/", dated(0))
        assert await hosts_apart(world.app.upstream, "acme", [up.url]) == {}
        assert up.received == []


async def test_a_clock_that_differs_is_found_by_the_whole_check(tmp_path: Path) -> None:
    async with Hostile() as up:
        up.script("/", dated(-400))
        async with gateway(tmp_path / "gw") as world:
            await world.create({"name": "sys", "display_name": "Sys", "base_url": up.url})
        read = settings(tmp_path, workspace="acme", allow_private_networks="127.0.0.0/8")
        found = {f.id: f async for f in check_up(read, tmp_path, tmp_path)}
    assert found["hosts_clocks"].verdict == "wrong"
    assert "1 of 1 hosts' clocks differ from this machine's: 127.0.0.1 by -4" in found["hosts_clocks"].said


def test_where_most_hosts_differ_it_is_our_clock_and_else_theirs() -> None:
    ours, theirs = beside_hosts({"a": 90.0, "b": 91.0, "c": 0.0}), beside_hosts({"a": 90.0, "b": -1.0, "c": 0.0})
    fine = beside_hosts({"a": 1.0, "b": -1.0})
    assert ours is not None
    assert theirs is not None
    assert fine is not None
    assert [f.verdict for f in (ours, theirs, fine)] == ["wrong", "note", "ok"]
    assert ours.do.startswith("set this machine's clock")
    assert "a by +90 s" in theirs.said
    assert beside_hosts({}) is None
