"""What an argument, a definition or an answer may become on the wire: never another request than the one described (rules F4, J11)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.security.frame import Kind, add
from tests.security.ground import Ground, json_answer, rest
from tests.upstreams import Received

BASE = "/api/v1"


def _endpoint(method: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": "do", "description": "Does it.", "method": method, "path": path, **more}


async def _sent(
    ground: Ground, endpoint: Mapping[str, Any], arguments: Mapping[str, Any], **more: Any
) -> list[Received]:
    """What the attacker's upstream received of one call; nothing where the definition or the call was refused."""
    name = ground.name()
    if await ground.create(rest(name, f"http://{ground.host()}{BASE}", endpoint, **more)) is not None:
        await ground.call(f"{name}_do", arguments)
        await ground.drop(name)
    return ground.received


# --------------------------------------------------------------------------- paths


def leaves(target: str) -> bool:
    """Whether a server could read this target as another path than /api/v1/items/ONE/notes: decoded once or twice, split at
    slashes of either kind, path parameters cut off."""
    path, mark, _ = target.partition("?")
    for text in (path, unquote(path), unquote(unquote(path))):
        parts = [part.partition(";")[0] for part in text.replace("\\", "/").split("/")[1:]]
        if any(part in ("", ".", "..") for part in parts) or any(ord(c) < 32 or c == "\x7f" for c in text):
            return True
    return bool(mark) or not path.startswith(f"{BASE}/items/") or not path.endswith("/notes")


CLIMBS: tuple[Any, ...] = (
    "..",
    ".",
    "",
    "%2e%2e",
    ".%2e",
    "%2E.",
    "%2e",
    "../admin",
    "..\\admin",
    "a/../b",
    "a\\..\\b",
    "/",
    "//",
    "/etc/passwd",
    "a//b",
    "a/",
    "..;x",
    ".;x",
    ";x",
    "..%2fadmin",
    "..%5cadmin",
    "%2e%2e%2f",
    "a%2f..%2fb",
    "\x00",
    "a\x00b",
    "a\r\nX-Evil: 1",
    "a%0d%0ab",
    "%00",
    "a\tb",
    "\x7f",
    [".."],
    {"a": 1},
    None,
    [],
)


def _climb(
    value: Any, schema: Mapping[str, Any], path: str, protocol: str = "rest"
) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        properties = {"id": dict(schema)}
        endpoint = _endpoint(
            "DELETE", path, input_schema={"type": "object", "properties": properties, "required": ["id"]}
        )
        received = await _sent(ground, endpoint, {"id": value}, protocol=protocol)
        return [r.target for r in received if leaves(r.target)]

    return strike


for _value in CLIMBS:
    add("traversal", "path argument", repr(_value), "path values", _climb(_value, {}, "/items/{id}/notes"))
for _value in ("..", "%2e%2e", "../x", "", "..;x"):
    add(
        "traversal",
        "path argument with x-name",
        repr(_value),
        "path values",
        _climb(_value, {"x-in": "path", "x-name": "key"}, "/items/{key}/notes"),
    )
for _value, _schema in (
    ("..", {"type": ["integer", "string"]}),
    ([".."], {"type": "array", "items": {"type": "string"}}),
    (["", ""], {"type": "array"}),
    ([], {"type": "array"}),
    (["a/../b"], {"type": "array"}),
):
    _told = f"{_value!r} where its schema says {_schema['type']}"
    add("traversal", "path argument", _told, "path values", _climb(_value, _schema, "/items/{id}/notes"))


async def _two_halves(ground: Ground) -> Any:
    """Each value is fine; side by side they are `..`."""
    received = await _sent(ground, _endpoint("GET", "/items/{a}{b}/notes"), {"a": ".", "b": "."})
    return [r.target for r in received if leaves(r.target)]


add("traversal", "path argument", "'.' and '.' side by side", "path values", _two_halves)

for _path in (
    "/../admin",
    "/items/../../admin",
    "/items/%2e%2e/admin",
    "/items/.%2E/admin",
    "/items/./notes",
    "//other.public.example/items",
    "/items?admin=1",
    "/items#x",
    "/items\\..\\admin",
    "/items/%zz",
    "http://other.public.example/items",
):

    def _written(path: str) -> Callable[[Ground], Awaitable[Any]]:
        async def strike(ground: Ground) -> Any:
            received = await _sent(ground, _endpoint("GET", path), {})
            return [(r.target, r.headers) for r in received]

        return strike

    add("traversal", "path template", _path, "path templates", _written(_path))


# --------------------------------------------------------------------------- headers

HEADER = {"type": "object", "properties": {"note": {"x-in": "header", "x-name": "X-Note"}}}


def _header_value(value: Any) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        received = await _sent(ground, _endpoint("GET", "/x", input_schema=HEADER), {"note": value})
        return [
            r.headers
            for r in received
            if r.header("x-evil")
            or len(received) > 1
            or not (r.header("x-note") or "").isprintable()
            or not (r.header("x-note") or "").isascii()
        ]

    return strike


for _value in (
    "a\r\nX-Evil: 1",
    "a\nX-Evil: 1",
    "a\rX-Evil: 1\r\nX-Evil: 2",
    "a\r\n\r\nGET /y HTTP/1.1\r\nX-Evil: 1",
    "\x00",
    "a\x0b\x0cb",
    "\x7f",
    "ÄÖÜ",
    "X\u2028X",
    "\u010d\u010aX-Evil: 1",
    {"a": "\u00e9"},
):
    add("injection", "header argument", repr(_value), "header values", _header_value(_value))

ODD_NAMES = (
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "Expect",
    "TE",
    "Keep-Alive",
    "Proxy-Connection",
    "X-Integrations-Mcp-Hops",
    "X-Evil\r\nX-Other",
    "X Evil",
    "X-Evil:",
)


def _header_name(where: str, name: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        value = "0" if name in ("Content-Length", "X-Integrations-Mcp-Hops") else "x"
        own: dict[str, Any] = {}
        more: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        match where:
            case "headers":
                own["headers"] = {name: value}
            case "x-name":
                own["input_schema"] = {"type": "object", "properties": {"h": {"x-in": "header", "x-name": name}}}
                arguments["h"] = value
            case _:
                more["auth"] = {"type": "api_key_header", "header_name": name, "api_key_value": {"value": value * 8}}
        received = await _sent(ground, _endpoint("GET", "/x", **own), arguments, **more)
        wire = name.strip(": ").partition("\r")[0].lower()
        mine = {value, value * 8}
        return [
            r.headers
            for r in received
            if any(n.lower().strip() == wire and (v in mine or wire == "x-evil") for n, v in r.headers)
        ]

    return strike


for _name in ODD_NAMES:
    for _where in ("headers", "x-name"):
        add("injection", f"header name in {_where}", _name, "header names", _header_name(_where, _name))
for _name in ("Host", "Transfer-Encoding", "Connection", "X-Evil\r\nX-Other"):
    add("injection", "header name of a key", _name, "header names", _header_name("auth", _name))


# --------------------------------------------------------------------------- queries, forms, bodies

SEARCH = {"type": "object", "properties": {"q": {}, "tenant": {"type": "string", "x-fixed": True, "default": "acme"}}}


def _query(value: Any) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        received = await _sent(ground, _endpoint("GET", "/x", input_schema=SEARCH), {"q": value})
        told = [dict(parse_qsl(r.target.partition("?")[2].partition("#")[0], keep_blank_values=True)) for r in received]
        return [t for t in told if t.get("tenant") != "acme" or set(t) - {"q", "tenant"}] or [
            r.target for r in received if "#" in r.target or " " in r.target or r.target.count("tenant=") > 1
        ]

    return strike


for _value in (
    "x&tenant=globex",
    "x&admin=1",
    "x#",
    "&tenant=globex",
    "x&admin=1#",
    ["a", "b&admin=1"],
    {"a": "&admin=1&"},
):
    add("injection", "query argument", repr(_value), "encoding of queries and forms", _query(_value))


def _form(value: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        received = await _sent(ground, _endpoint("POST", "/x", input_schema=SEARCH, body_format="form"), {"q": value})
        told = [dict(parse_qsl(r.body.decode(), keep_blank_values=True)) for r in received]
        return [t for t in told if t.get("tenant") != "acme" or set(t) - {"q", "tenant"}]

    return strike


for _text in ("x&tenant=globex&z=1", "x&admin=1", "x&admin"):
    add("injection", "form argument", _text, "encoding of queries and forms", _form(_text))

CLOSED = {
    **SEARCH,
    "properties": {**SEARCH["properties"], "n": {"type": "integer", "maximum": 10}},
    "additionalProperties": False,
}


def _body(method: str, arguments: Mapping[str, Any]) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        received = await _sent(ground, _endpoint(method, "/x", input_schema=CLOSED), arguments)
        return [(r.target, r.body) for r in received]

    return strike


for _arguments in (
    {"tenant": "globex"},
    {"q": "x", "tenant": "globex"},
    {"admin": True},
    {"q": "x", "__proto__": {"admin": True}},
    {"n": 11},
    {"n": "1e99"},
    {"tenant\u200b": "globex"},
):
    for _method in ("GET", "POST"):
        add(
            "injection",
            f"argument of a {_method}",
            repr(_arguments),
            "schemas of arguments",
            _body(_method, _arguments),
        )


# --------------------------------------------------------------------------- templates and expressions

ANSWER = b'{"a": {"b": 1}, "rows": [' + b",".join(b'{"k": %d, "v": "%s"}' % (i, b"x" * 50) for i in range(330)) + b"]}"


def _shaped(kind: Kind, **shaping: Any) -> Callable[[Ground], Awaitable[Any]]:
    """What the tenant's own shaping made of an answer: a refusal is an error, and makes nothing."""

    async def strike(ground: Ground) -> Any:
        ground.script(f"{BASE}/x", json_answer(200, ANSWER))
        name = ground.name()
        if await ground.create(rest(name, f"http://{ground.host()}{BASE}", _endpoint("GET", "/x", **shaping))) is None:
            return None
        outcome = await ground.call(f"{name}_do")
        await ground.drop(name)
        return None if outcome.is_error else outcome.text[:100]

    return strike


for _template in (
    "{{ [1] * 1000 }}",
    "{% set x = [1] * 50 %}{{ x | length }}",
    "{{ 'ab' * 1000 }}",
    "{{ rows + rows }}",
    "{{ [rows, rows] }}",
    "{% set a = [rows, rows] %}{% set b = [a, a] %}{{ b | length }}",
    "{{ (rows, rows) | length }}",
    "{{ {'a': rows} | length }}",
    "{{ '{:99}'.format(1) }}",
    "{{ rows | batch(1) | list | length }}",
    "{{ rows | slice(3) | list | length }}",
    "{{ rows | chain(rows) | list | length }}",
    "{{ rows | zip(rows) | list | length }}",
    "{{ range(100000) | length }}",
    "{% for i in range(3000) %}{{ i }}{% endfor %}",
    "{% for a in rows %}{% for b in rows %}{{ b.k }}{% endfor %}{% endfor %}",
    "{% for a in rows %}{% for b in rows %}{{ b.v | length }}{% endfor %}{% endfor %}",
    "{% raw %}{{ x }}{% endraw %}",
    "{{ rows | groupby('k') | length }}{{ rows | groupby('v') | length }}{{ rows | groupby('k') | length }}{{ rows | groupby('v') | length }}",
    "{{ " + "~".join(["'a'"] * 1100) + " }}",
    "{% for a in rows %}{{ rows | tojson | length }}{% endfor %}",
    "{% for a in rows %}{% if rows | sort(attribute='v') %}x{% endif %}{% endfor %}",
):
    add(
        "exhaustion",
        "result_template",
        _template[:60],
        "template guard",
        _shaped("exhaustion", result_template=_template),
    )

for _expression in (
    "rows[].[" + ",".join(["k"] * 120) + "]",
    "rows[].[k,k,k,k,k,k,k,k,k,k][] | [].[@,@,@,@,@,@,@,@,@,@][] | length(@)",
    "map(&to_string(@), rows[].[k,v,k,v,k,v,k,v,k,v][].[@,@,@,@]) | length(@)",
):
    add(
        "exhaustion", "result_key", _expression[:60], "expression budget", _shaped("exhaustion", result_key=_expression)
    )
    add(
        "exhaustion",
        "response_mapping",
        _expression[:60],
        "expression budget",
        _shaped("exhaustion", response_mapping={"x": _expression}),
    )
