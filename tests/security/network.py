"""Where a request may go: every spelling of what is refused, at every place that takes or leads to a URL (rules H1, H1b, J10, J13)."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from tests.fhir_servers.small import bundle, fhir, patient, search
from tests.security.frame import add
from tests.security.ground import NAMES, OWN_PORT, PUBLIC, SECRET, Ground, json_answer, rest
from tests.upstreams import Received, head, redirect
from tools.address_guard import REFUSED_PORTS
from tools.errors import CallError, RequestError
from tools.importers.requests import ImportRequest
from tools.jwks import generate_key

WEB, TLS = (PUBLIC, 80), (PUBLIC, 443)
Door = Callable[[Ground, str], Awaitable[Any]]
ES256, _ = generate_key("ES256")
PEM, _ = generate_key("ES384")
POOL = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool-1/providers/gw"


async def _called(ground: Ground, body: dict[str, Any], *expected: tuple[str, int]) -> list[tuple[str, int]]:
    """Writes an integration, calls its tool and looks at its health, and drops it."""
    name = body["name"]
    if await ground.create(body) is not None:
        await ground.call(f"{name}_get")
        with suppress(RequestError):
            await ground.app.admin.test_connection(ground.owner, name)
        await ground.drop(name)
    return ground.arrived(*expected)


async def base_url(ground: Ground, url: str) -> Any:
    return await _called(ground, rest(ground.name(), url))


async def endpoint_base_url(ground: Ground, url: str) -> Any:
    there = {"name": "get", "description": "d", "method": "GET", "path": "/x", "base_url": url}
    return await _called(ground, rest(ground.name(), f"http://{ground.host()}", there), WEB)


async def stored_base_url(ground: Ground, url: str) -> Any:
    """A row from a time when the address was allowed: the call alone must refuse it."""
    name = ground.name()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tools.checks.check_url", lambda url, network: None)
        assert await ground.create(rest(name, url)) is not None
    await ground.call(f"{name}_get")
    await ground.drop(name)
    return ground.arrived()


def _client(**auth: Any) -> dict[str, Any]:
    return {
        "type": "oauth2_client_credentials",
        "client_id": "me",
        "client_secret_value": {"value": SECRET},
        **auth,
    }


async def token_url(ground: Ground, url: str) -> Any:
    return await _called(ground, rest(ground.name(), f"http://{ground.host()}", auth=_client(token_url=url)), WEB)


async def discovered_token_endpoint(ground: Ground, url: str) -> Any:
    ground.script(
        "/fhir/.well-known/smart-configuration", json_answer(200, json.dumps({"token_endpoint": url}).encode())
    )
    auth = {
        "type": "smart_backend_services",
        "client_id": "me",
        "private_key_value": {"value": PEM},
        "scopes": ["system/*.read"],
    }
    body = rest(ground.name(), f"https://{ground.host()}/fhir", auth=auth)
    if await ground.create(body) is not None:
        # Another origin than the FHIR base's needs an owner's word: given, since that isn't the guard meant here.
        with suppress(RequestError, CallError):
            await ground.app.auth_admin.discovery(ground.owner, body["name"], confirm=url)
        await ground.call(f"{body['name']}_get")
        await ground.drop(body["name"])
    return ground.arrived(TLS)


def _external(**members: Any) -> str:
    account = {"type": "external_account", "audience": POOL, "token_url": "https://sts.googleapis.com/v1/token"}
    return json.dumps({**account, **members})


async def impersonation_url(ground: Ground, url: str) -> Any:
    token = {"access_token": "federated-token", "token_type": "Bearer", "expires_in": 3600, "issued_token_type": "x"}
    ground.script("/v1/token", json_answer(200, json.dumps(token).encode()))
    auth = {
        "type": "gcp_wif",
        "api_key_value": {"value": _external(service_account_impersonation_url=url)},
        "private_key_value": {"value": ES256},
    }
    await _called(ground, rest(ground.name(), f"http://{ground.host()}", auth=auth), WEB, TLS)
    # Google's own STS is asked; nothing else may get the federated token.
    return [
        r.target for r in ground.received if r.header("authorization") == "Bearer federated-token"
    ] or ground.arrived(WEB, TLS)


async def mcp_url(ground: Ground, url: str) -> Any:
    body = {"name": ground.name(), "display_name": "M", "protocol": "mcp", "mcp_transport": "http", "mcp_url": url}
    return await _called(ground, body)


async def mcp_sse_url(ground: Ground, url: str) -> Any:
    body = {"name": ground.name(), "display_name": "M", "protocol": "mcp", "mcp_transport": "sse", "mcp_url": url}
    return await _called(ground, body)


async def sse_messages(ground: Ground, url: str) -> Any:
    """The stream of an MCP upstream names where our messages, with our credential, shall go."""
    host = ground.host()
    event = f"event: endpoint\ndata: {url.replace('SELF', host)}\n\n".encode()
    kinds = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    stream = head(200, kinds) + b"%x\r\n%b\r\n" % (len(event), event)

    async def once(received: Received, writer: Any) -> bool:
        writer.write(stream)
        return False

    ground.script("/sse", once)
    body = {
        "name": ground.name(),
        "display_name": "M",
        "protocol": "mcp",
        "mcp_transport": "sse",
        "mcp_url": f"http://{host}/sse",
    }
    await _called(ground, body, WEB)
    return [r.target for r in ground.received if r.method == "POST"] or ground.arrived(WEB)


async def redirected(ground: Ground, url: str) -> Any:
    ground.script("/caught", redirect(302, url))
    await ground.call("shop_get")
    assert ground.received, "the redirect was never asked for"
    return ground.arrived(WEB)


async def importer_url(ground: Ground, url: str) -> Any:
    with suppress(RequestError):
        await ground.app.importer.run(ground.owner, ImportRequest(url=url, name=ground.name()))
    return ground.arrived()


async def importer_redirect(ground: Ground, url: str) -> Any:
    ground.script("/openapi.json", redirect(302, url))
    with suppress(RequestError):
        await ground.app.importer.run(ground.owner, ImportRequest(url=f"http://{ground.host()}/openapi.json"))
    return ground.arrived(WEB)


async def imported_base_url(ground: Ground, url: str) -> Any:
    """A document that says where its API is."""
    operation = {"get": {"operationId": "get", "responses": {}}}
    document = {"openapi": "3.0.0", "info": {"title": "T"}, "servers": [{"url": url}], "paths": {"/x": operation}}
    name = ground.name()
    with suppress(RequestError):
        await ground.app.importer.run(
            ground.owner, ImportRequest(document=document, name=name, apply=True, enabled=True)
        )
    await ground.call(f"{name}_get")
    await ground.drop(name)
    return ground.arrived()


async def imported_curl(ground: Ground, url: str) -> Any:
    name = ground.name()
    try:
        await ground.app.importer.run(
            ground.owner, ImportRequest(curl=f"curl '{url}caught'", name=name, apply=True, enabled=True)
        )
    except RequestError:
        return ground.arrived()
    for endpoint in (await ground.app.admin.get(ground.owner, name)).endpoints:
        await ground.call(f"{name}_{endpoint.name}")
    await ground.drop(name)
    return ground.arrived()


async def next_link(ground: Ground, url: str) -> Any:
    host = ground.host()
    base = f"http://{host}/t1/fhir"
    link = url.replace("BASE", host)
    ground.script("/t1/fhir/Patient", fhir(200, bundle(patient("1"), next=link)))
    name = ground.name()
    body = {**rest(name, base, {"description": "Finds.", **search()}), "protocol": "fhir"}
    if await ground.create(body) is not None:
        await ground.call(f"{name}_find", {"active": True})
        await ground.drop(name)
    paths = ("/t1/fhir/Patient", "/t1/fhir/metadata")
    under = [r for r in ground.received if r.path in paths and r.header("host") == host]
    return [r.target for r in ground.received if r not in under] or ground.arrived(WEB)


# --------------------------------------------------------------------------- what never may be reached

METADATA = (
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "１６９.254.169.254",
    "169。254。169。254",
    "169.254.169.254\u00ad",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[64:ff9b:1:a9fe:a9:fe00::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:a9fe:a9fe::]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fe80::a9fe:a9fe%25lo]",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "0",
    "[::]",
    "224.0.0.1",
    "[ff02::1]",
    "255.255.255.255",
    "240.0.0.1",
)
PRIVATE = (
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "017700000001",
    "0x7f.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "[fc00::1]",
    "[fec0::1]",
    "[2001:db8::1]",
    "[2001:2::1]",
)
SOME = ("169.254.169.254", "[::ffff:169.254.169.254]", "2852039166", "[64:ff9b::a9fe:a9fe]", "127.0.0.1", "10.0.0.1")
WHOLE: Mapping[str, Door] = {"base_url": base_url, "redirect": redirected, "importer URL": importer_url}
FURTHER: Mapping[str, Door] = {
    "endpoint base_url": endpoint_base_url,
    "stored base_url": stored_base_url,
    "mcp_url": mcp_url,
    "mcp_url (SSE)": mcp_sse_url,
    "importer redirect": importer_redirect,
    "imported base_url": imported_base_url,
    "imported curl line": imported_curl,
}
BY_TLS: Mapping[str, Door] = {"token_url": token_url, "discovered token_endpoint": discovered_token_endpoint}


def _through(door: Door, url: str) -> Callable[[Ground], Awaitable[Any]]:
    return lambda ground: door(ground, url)


def _one(entry: str, door: Door, url: str, guard: str, *, lenient: bool = False) -> None:
    add("address", entry, url, guard, _through(door, url), lenient=lenient)


for _entry, _door in WHOLE.items():
    for _host in (*METADATA, *PRIVATE, *NAMES):
        if _entry == "redirect" and (not _host.isascii() or _host == "mixed.example"):
            continue  # Location is percent-encoded, so that is no name any more; and of two addresses the good one comes first
        _one(_entry, _door, f"http://{_host}/", "address guard" if _host.isascii() else "URL shape")
for _host in (*METADATA, "meta.example", "mapped.example", "nat64.example", "mixed.example", f"127.0.0.1:{OWN_PORT}"):
    _one("base_url", base_url, f"http://{_host}/", "address guard" if _host.isascii() else "URL shape", lenient=True)
for _entry, _door in FURTHER.items():
    for _host in (*SOME, "meta.example", "mixed-last.example"):
        _one(_entry, _door, f"http://{_host}/", "address guard")
for _entry, _door in BY_TLS.items():
    for _host in (*SOME, "meta.example", "mixed-last.example", "[fe80::1%25eth0]"):
        _one(_entry, _door, f"https://{_host}/", "address guard")
for _port in sorted(REFUSED_PORTS):
    _one("base_url", base_url, f"http://{PUBLIC}:{_port}/", "address guard")
for _port in (22, 6379, 11211):
    _one("redirect", redirected, f"http://{PUBLIC}:{_port}/", "address guard")
    _one("mcp_url", mcp_url, f"http://{PUBLIC}:{_port}/", "address guard")
    _one("endpoint base_url", endpoint_base_url, f"http://{PUBLIC}:{_port}/", "address guard")
for _door, _entry in ((base_url, "base_url"), (redirected, "redirect"), (mcp_url, "mcp_url")):
    _one(_entry, _door, "http://user:pw@10.0.0.1/", "URL shape")
    _one(_entry, _door, "http://a.public.example:pw@10.0.0.1/", "URL shape")


# --------------------------------------------------------------------------- where an answer leads


def _credential_elsewhere(status: int, location: str, method: str = "GET") -> Callable[[Ground], Awaitable[Any]]:
    """What another origin gets of a redirected call: a credential, or a write sent again."""

    async def strike(ground: Ground) -> Any:
        name = ground.name()
        host = ground.host()
        there = {"name": "get", "description": "d", "method": method, "path": "/first", "headers": {"X-Static": "s"}}
        auth = {"type": "api_key_header", "api_key_value": {"value": SECRET}}
        scheme = "https" if location.startswith("http://down") else "http"
        assert await ground.create(rest(name, f"{scheme}://{host}", there, auth=auth)) is not None
        ground.script("/first", redirect(status, location.replace("SELF", host)))
        await ground.call(f"{name}_get")
        await ground.drop(name)
        elsewhere = [r for r in ground.received if r.path != "/first"]
        return [r for r in elsewhere if r.method != "GET" or SECRET in str(r.headers) or scheme == "https"]

    return strike


for _status in (301, 302, 303, 307, 308):
    add(
        "address",
        "redirect",
        f"{_status} with the key",
        "redirect rules",
        _credential_elsewhere(_status, "http://other.public.example/y"),
    )
    add("address", "redirect", f"{_status} of a POST", "redirect rules", _credential_elsewhere(_status, "/y", "POST"))
for _location in ("http://SELF:81/y", "//other.public.example/y", "http://SELF.public.example/y", "https://SELF/y"):
    add("address", "redirect", f"the key to {_location}", "redirect rules", _credential_elsewhere(302, _location))
add(
    "address", "redirect", "https to http", "redirect rules", _credential_elsewhere(302, "http://down.public.example/y")
)


def _circle(steps: int) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/caught", redirect(302, "/caught"))
        await ground.call("shop_get")
        return ground.received[steps:]

    return strike


add("exhaustion", "redirect", "in a circle", "redirect rules", _circle(4))

LINKS = (
    "http://other.public.example/t1/fhir/Patient?page=2",
    "http://BASE:8000/t1/fhir/Patient?page=2",
    "//other.public.example/t1/fhir/Patient",
    "http://BASE/t2/fhir/Patient?page=2",
    "http://BASE/t1/fhir2/Patient",
    "http://BASE/t1/fhir/../../t2/fhir/Patient",
    "http://BASE/t1/fhir/%2e%2e/%2e%2e/t2/fhir/Patient",
    "http://BASE/t1/fhir/%252e%252e/t2/Patient",
    "http://BASE/t1/fhir/..;x/t2/Patient",
    "http://BASE/t1/fhir/..%5c..%5ct2/Patient",
    "../../../t2/fhir/Patient",
    "/t2/fhir/Patient",
    "http://BASE/",
    "http://BASE/t1",
    "http://BASE/T1/fhir/Patient",
    "http://u:p@BASE/t2/fhir/Patient",
    "http://10.0.0.1/t1/fhir/Patient",
    "http://169.254.169.254/",
)
for _link in LINKS:
    if "169.254" in _link or "10.0.0.1" in _link or "@" in _link:
        continue  # refused by the address guard as well: below
    add("address", "next link", _link, "next link stays under the base", _through(next_link, _link))
for _named in (
    "http://other.public.example/m",
    "http://SELF:81/m",
    "https://other.public.example/m",
    "//other.public.example/m",
):
    add("address", "SSE endpoint event", _named, "messages go to the stream's origin", _through(sse_messages, _named))

ACCOUNT = "/v1/projects/-/serviceAccounts/r@p.iam.gserviceaccount.com:generateAccessToken"
for _account in (
    f"https://iamcredentials.googleapis.com.public.example{ACCOUNT}",
    f"https://evil.public.example{ACCOUNT}",
    f"https://evil.public.example/https://iamcredentials.googleapis.com{ACCOUNT}",
    f"https://evil.public.example:8443{ACCOUNT}",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/r@evil.example:generateAccessToken",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/r@p.iam.gserviceaccount.com:generateAccessToken/../x",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/r@p.iam.gserviceaccount.com:generateIdToken",
    "https://iamcredentials.googleapis.com/v1/x@p.iam.gserviceaccount.com:generateAccessToken",
):
    add("address", "impersonation URL", _account, "Google's own hosts", _through(impersonation_url, _account))


async def _token_in_clear(ground: Ground, url: str) -> Any:
    await token_url(ground, url)
    return [r.target for r in ground.received if r.method == "POST"]


for _plain in ("http://idp.public.example/token", f"http://{PUBLIC}/token", "http://idp.internal.public.example/token"):
    add("address", "token_url", _plain, "https for credentials", _through(_token_in_clear, _plain))


_MCP_CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "call over /mcp": ("2026-07-28", "shop_get", {}),
    "call over /mcp of 2025": ("2025-11-25", "shop_get", {}),
    "test over /mcp": ("2026-07-28", "test_integration_endpoint", {"tool": "shop_get"}),
}


async def _over_mcp(ground: Ground, version: str, tool: str, arguments: dict[str, Any], told: dict[str, str]) -> None:
    """As another gateway calls this one."""
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": version, **told}
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    client: dict[str, Any] = {"name": "gateway", "version": "1"}
    if version < "2026":
        hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        opened = await ground.client.post("/mcp", json=_rpc("initialize", hello), headers=headers)
        headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
    else:
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
        about = "io.modelcontextprotocol/"
        envelope = {"protocolVersion": version, "clientCapabilities": {}, "clientInfo": client}
        params["_meta"] = {about + name: value for name, value in envelope.items()}
    await ground.client.post("/mcp", json=_rpc("tools/call", params), headers=headers)


def _rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _hops(entry: str, given: int) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        from tools.call import CallContext

        told = {"X-Integrations-Mcp-Hops": str(given)}
        if entry == "call":
            await ground.app.toolbox.call(ground.owner, "shop_get", {}, CallContext(hops=given))
        elif entry in _MCP_CALLS:
            await _over_mcp(ground, *_MCP_CALLS[entry], told)
        else:
            path = "/v1/acme/integrations/shop/endpoints/get/test"
            await ground.client.post(path, json={"params": {}}, headers=told)
        return [r.target for r in ground.received]

    return strike


for _given in (3, 4, 100, 999):
    add("exhaustion", "own tail: call", f"{_given} hops", "hop count", _hops("call", _given))
    add("exhaustion", "own tail: test", f"{_given} hops", "hop count", _hops("test", _given))
    for _entry in _MCP_CALLS:
        add("exhaustion", f"own tail: {_entry}", f"{_given} hops", "hop count", _hops(_entry, _given))


async def _proxied(ground: Ground) -> Any:
    """The shell's HTTP_PROXY is the attacker."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, ground.attacker.url)
        await ground.call("shop_get")
    return [r.target for r in ground.received if r.target.startswith("http://")]


add("address", "own proxy", "HTTP_PROXY", "no proxy from the environment", _proxied)


def _with_a_wrong_certificate(host: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        name = ground.name()
        assert await ground.create(rest(name, f"https://{host}")) is not None
        await ground.call(f"{name}_get")
        await ground.drop(name)
        return [r.target for r in ground.received]

    return strike


for _host in (PUBLIC, "a.b.public.example", "a.b.c.public.example:8443"):
    add(
        "address",
        "base_url",
        f"https://{_host} with a certificate of another name",
        "TLS verification",
        _with_a_wrong_certificate(_host),
    )


async def _shared_connection(ground: Ground) -> Any:
    """Another workspace's request on a connection that this one opened (rules J7)."""
    host, name = ground.host(), ground.name()
    for caller in (ground.owner, ground.rival):
        assert await ground.create(rest(name, f"http://{host}"), caller) is not None
        await ground.call(f"{name}_get", caller=caller)
    await ground.drop(name)
    with suppress(RequestError):
        await ground.app.admin.delete(ground.rival, name)
    first, second = ground.received
    return first.connection == second.connection


add("cross-tenant", "base_url", "one connection for two workspaces", "connections of one workspace", _shared_connection)
