"""What the other modules don't ask at an entry point: each guard of hosts at each place that names or leads to one (rules I7)."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from server.identity_providers import IdentityProvider
from server.issuer_keys import IssuerKeys
from tests.fhir_servers.small import FHIR, bundle, patient, search
from tests.issuer import SCOPES
from tests.security.egress import LISTED, _is_public_address, _tunnelled
from tests.security.frame import add
from tests.security.ground import NAMES, PUBLIC, SECRET, Ground, json_answer, rest
from tests.security.network import (
    ACCOUNT,
    ES256,
    PEM,
    SOME,
    TLS,
    WEB,
    Door,
    _client,
    _external,
    _through,
    discovered_token_endpoint,
    endpoint_base_url,
    imported_curl,
    importer_redirect,
    importer_url,
    mcp_sse_url,
    token_url,
)
from tests.upstreams import Received, answer, redirect
from tools.errors import GatewayError, RequestError
from tools.host_list import EVERY, HostList
from tools.importers.requests import ImportRequest

ADDRESS, LIST, REDIRECT = "address guard", "the operator's list of hosts", "redirect rules"
TUNNEL = "a proxy is asked for addresses"
MINTED = json.dumps({"access_token": "minted-token-7d1e", "token_type": "Bearer", "expires_in": 3600}).encode()
NAMED = (*SOME, "meta.example", "mixed-last.example")

# --------------------------------------------------------------------------- probes


def _probed(probe: str) -> Door:
    """An integration of which only the probe acts."""

    async def door(ground: Ground, url: str) -> Any:
        name = ground.name()
        if await ground.create(rest(name, url)) is not None:
            if probe == "health check":
                await ground.app.admin.health(ground.owner)
            else:
                with suppress(RequestError):
                    await ground.app.admin.test_connection(ground.owner, name)
            await ground.drop(name)
        return ground.arrived(WEB)

    return door


def _listed(door: Door, url: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        with pytest.MonkeyPatch.context() as patch, ground.way_out(hosts=LISTED):
            patch.setattr("tools.checks.unreached", lambda *_: ())  # written before there was a list
            return await door(ground, url)

    return strike


def _probe_redirected(probe: str) -> Callable[[Ground], Awaitable[Any]]:
    """A probe has the credential with it."""

    async def strike(ground: Ground) -> Any:
        name = ground.name()
        ground.script("/base", redirect(302, "http://other.public.example/led"))
        auth = {"type": "api_key_header", "api_key_value": {"value": SECRET}}
        assert await ground.create(rest(name, f"http://{ground.host()}/base", auth=auth)) is not None
        if probe == "health check":
            await ground.app.admin.health(ground.owner)
        else:
            await ground.app.admin.test_connection(ground.owner, name)
        await ground.drop(name)
        return [r.headers for r in ground.received if r.path == "/led" and SECRET in str(r.headers)]

    return strike


for _probe in ("test-connection", "health check"):
    for _host in NAMED:
        add("address", _probe, f"http://{_host}/", ADDRESS, _through(_probed(_probe), f"http://{_host}/"))
    add(
        "address",
        _probe,
        "http://user:pw@10.0.0.1/",
        "URL shape",
        _through(_probed(_probe), "http://user:pw@10.0.0.1/"),
    )
    add("address", _probe, "http://evil.test/ off the list", LIST, _listed(_probed(_probe), "http://evil.test/"))
    add("address", _probe, "302 with the key", REDIRECT, _probe_redirected(_probe))
    _url = "http://named.public.example/"
    add("address", _probe, f"{_url} through a proxy", TUNNEL, _tunnelled(_probed(_probe), _url, _is_public_address))


# --------------------------------------------------------------------------- imports, and MCP over SSE

for _entry, _door in {
    "mcp_url (SSE)": mcp_sse_url,
    "importer redirect": importer_redirect,
    "imported curl line": imported_curl,
}.items():
    add("address", _entry, "http://user:pw@10.0.0.1/", "URL shape", _through(_door, "http://user:pw@10.0.0.1/"))


async def _fetched_in_clear(ground: Ground) -> Any:
    ground.script("/openapi.json", redirect(302, "http://down.public.example/led"))
    with suppress(RequestError):
        await ground.app.importer.run(ground.owner, ImportRequest(url=f"https://{ground.host()}/openapi.json"))
    return [r.target for r in ground.received if r.path == "/led"]


add("address", "importer redirect", "https to http", REDIRECT, _fetched_in_clear)


# --------------------------------------------------------------------------- token endpoints

for _url in ("https://user:pw@10.0.0.1/", "https://a.public.example:pw@10.0.0.1/"):
    add("address", "token_url", _url, "URL shape", _through(token_url, _url))
    add("address", "discovered token_endpoint", _url, "URL shape", _through(discovered_token_endpoint, _url))
add(
    "address",
    "endpoint base_url",
    "http://user:pw@10.0.0.1/",
    "URL shape",
    _through(endpoint_base_url, "http://user:pw@10.0.0.1/"),
)
add(
    "address",
    "importer URL",
    "http://user:pw@10.0.0.1/",
    "URL shape",
    _through(importer_url, "http://user:pw@10.0.0.1/"),
)


async def _discovered_in_clear(ground: Ground) -> Any:
    await discovered_token_endpoint(ground, "http://idp.public.example/token")
    return [r.target for r in ground.received if r.method == "POST"]


add(
    "address",
    "discovered token_endpoint",
    "http://idp.public.example/token",
    "https for credentials",
    _discovered_in_clear,
)


def _replayed(status: int, location: str) -> Callable[[Ground], Awaitable[Any]]:
    """A token endpoint that answers with a redirect: a client that follows hands over the client secret (rules J4)."""

    async def strike(ground: Ground) -> Any:
        name, idp = ground.name(), ground.host()
        ground.script("/token", redirect(status, location))
        auth = _client(token_url=f"https://{idp}/token")
        assert await ground.create(rest(name, f"http://{ground.host()}", auth=auth)) is not None
        await ground.call(f"{name}_get")
        await ground.drop(name)
        asked = [r for r in ground.received if r.method == "POST"]
        assert asked, "the token endpoint was never asked"
        return [r.target for r in asked if r.path != "/token"]

    return strike


for _status in (301, 302, 303, 307, 308):
    add(
        "address",
        "token_url",
        f"{_status} with the secret",
        REDIRECT,
        _replayed(_status, "https://other.public.example/led"),
    )
add("address", "token_url", "307 to itself", REDIRECT, _replayed(307, "/led"))


async def _configuration_elsewhere(ground: Ground) -> Any:
    """A SMART configuration of another origin would name the token endpoint."""
    ground.script("/fhir/.well-known/smart-configuration", redirect(302, "https://other.public.example/led"))
    name = ground.name()
    auth = {"type": "smart_backend_services", "client_id": "me", "scopes": ["system/*.read"]}
    auth |= {"private_key_value": {"value": PEM}}
    assert await ground.create(rest(name, f"https://{ground.host()}/fhir", auth=auth)) is not None
    await ground.call(f"{name}_get")
    await ground.drop(name)
    return [r.target for r in ground.received if r.path == "/led"]


add("address", "discovered token_endpoint", "a configuration of another origin", REDIRECT, _configuration_elsewhere)


# --------------------------------------------------------------------------- Google's token service

STS, IAM = "sts.googleapis.com", "iamcredentials.googleapis.com"


async def _federated(ground: Ground) -> list[Received]:
    """What arrives when the two hosts are asked for a token."""
    name = ground.name()
    account = _external(service_account_impersonation_url=f"https://{IAM}{ACCOUNT}")
    auth = {"type": "gcp_wif", "api_key_value": {"value": account}, "private_key_value": {"value": ES256}}
    token = {**json.loads(MINTED), "issued_token_type": "x"}
    ground.script("/v1/token", json_answer(200, json.dumps(token).encode()))
    assert await ground.create(rest(name, f"http://{ground.host()}", auth=auth)) is not None
    await ground.call(f"{name}_get")
    await ground.drop(name)
    return [r for r in ground.received if r.method == "POST"]


def _resolves_inwards(host: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(NAMES, host, ["169.254.169.254"])  # pyright: ignore[reportArgumentType] - a dict
            await _federated(ground)
        return [to for to in ground.dialed if to[0] == "169.254.169.254"]

    return strike


def _off_the_list(host: str, also: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        with ground.way_out(hosts=HostList({EVERY: ("*.public.example", also)})):
            return [r.target for r in await _federated(ground) if r.header("host") == host]

    return strike


def _led_away(path: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script(path, redirect(307, "https://other.public.example/led"))
        name = ground.name()
        account = _external(service_account_impersonation_url=f"https://{IAM}{ACCOUNT}")
        auth = {"type": "gcp_wif", "api_key_value": {"value": account}, "private_key_value": {"value": ES256}}
        if path != "/v1/token":
            ground.script(
                "/v1/token", json_answer(200, json.dumps({**json.loads(MINTED), "issued_token_type": "x"}).encode())
            )
        assert await ground.create(rest(name, f"http://{ground.host()}", auth=auth)) is not None
        await ground.call(f"{name}_get")
        await ground.drop(name)
        assert any(r.path == path for r in ground.received)
        return [r.target for r in ground.received if r.path == "/led"]

    return strike


for _entry, _host, _also, _path in (("STS URL", STS, IAM, "/v1/token"), ("impersonation URL", IAM, STS, ACCOUNT)):
    add("address", _entry, f"{_host} that resolves inwards", ADDRESS, _resolves_inwards(_host))
    add("address", _entry, f"{_host} off the list", LIST, _off_the_list(_host, _also))
    add("address", _entry, "307 with the token", REDIRECT, _led_away(_path))


async def _google(ground: Ground, url: str) -> Any:
    return await _federated(ground)


def _is_not(host: str) -> Callable[[str], bool]:
    return lambda target: not target.startswith(host)


add("address", "STS URL", "through a proxy", TUNNEL, _tunnelled(_google, STS, _is_not(STS)))
add("address", "impersonation URL", "through a proxy", TUNNEL, _tunnelled(_google, IAM, _is_not(IAM)))


# --------------------------------------------------------------------------- next links


async def _rebound(ground: Ground) -> Any:
    """The base's own name, which leads inwards when the second page is asked for."""
    host = ground.host()
    base = f"http://{host}/t1/fhir"
    dialer = ground.app.gateway._sending._upstream._engine._dialer
    page = json.dumps(bundle(patient("1"), next=f"{base}/Patient?page=2")).encode()

    with pytest.MonkeyPatch.context() as patch:

        async def first(received: Received, writer: Any) -> bool:
            patch.setitem(NAMES, host, ["169.254.169.254"])  # pyright: ignore[reportArgumentType] - a dict
            dialer._known.clear()
            await answer(200, page, {**FHIR, "Connection": "close"})(received, writer)
            return False

        ground.script("/t1/fhir/Patient", first, answer(200, json.dumps(bundle(patient("2"))).encode(), FHIR))
        name = ground.name()
        body = {**rest(name, base, {"description": "Finds.", **search()}), "protocol": "fhir"}
        assert await ground.create(body) is not None
        await ground.call(f"{name}_find", {"active": True})
        await ground.drop(name)
    return [to for to in ground.dialed if to[0] == "169.254.169.254"]


add("address", "next link", "its host leads inwards by now", ADDRESS, _rebound)


# --------------------------------------------------------------------------- identity providers

ISSUER = "https://idp.public.example"


def _keys(metadata: Mapping[str, Any] | None, moved: str = "") -> Callable[[Ground], Awaitable[Any]]:
    """What is asked for the keys of an issuer whose metadata an attacker wrote, or which `moved`. Private networks are open to what
    the operator names; what must never be reached isn't."""

    async def strike(ground: Ground) -> Any:
        where = "/.well-known/oauth-authorization-server"
        told = json_answer(200, json.dumps({"issuer": ISSUER, **(metadata or {})}).encode())
        ground.script(where, redirect(302, moved) if moved else told)
        keys = IssuerKeys(
            IdentityProvider(issuer=ISSUER, workspace_claim="workspace", scopes=SCOPES),
            ground.app.gateway._sending._upstream,
        )
        with suppress(GatewayError, AssertionError):
            async with asyncio.timeout(10):
                await keys.find("one", "RS256")
        await keys.aclose()
        return ground.arrived(TLS) or [r.target for r in ground.received if r.path == "/led"]

    return strike


async def _keys_fetched(ground: Ground, url: str) -> Any:
    return await _keys({"jwks_uri": url})(ground)


_url = "https://named.public.example/keys"
add("address", "IdP JWKS", f"{_url} through a proxy", TUNNEL, _tunnelled(_keys_fetched, _url, _is_public_address))
for _host in (*NAMED, "[fe80::1%25eth0]"):
    lenient = _host not in ("127.0.0.1", "10.0.0.1")
    _strike = _keys({"jwks_uri": f"https://{_host}/keys"})
    add("address", "IdP JWKS", f"https://{_host}/keys", ADDRESS, _strike, lenient=lenient)
add(
    "address",
    "IdP JWKS",
    "https://user:pw@10.0.0.1/keys",
    "URL shape",
    _keys({"jwks_uri": "https://user:pw@10.0.0.1/keys"}),
)
for _url in (f"http://{PUBLIC}/keys", "http://idp.public.example/keys"):
    add("address", "IdP JWKS", _url, "https for credentials", _keys({"jwks_uri": _url}))
add("address", "IdP JWKS", "metadata that moved", REDIRECT, _keys(None, "https://other.public.example/led"))
