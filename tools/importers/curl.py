"""A curl line as one endpoint: what varies becomes arguments with defaults, and secrets are lifted out and never shown again. Pure."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tools.importers.arguments import Arguments
from tools.importers.curl_line import CurlLine, parse_curl
from tools.importers.frame import Candidate, LeftOut, Source, SourceFault
from tools.importers.openapi import tokens_of
from tools.importers.wording import endpoint_name, name_of_operation
from tools.json_schema import Schema, is_array, is_object
from tools.kinds.paths import base_url_fault, parse_path
from tools.kinds.rest import header_name_fault
from tools.models import AuthConfig, AuthConfigWithSecrets, BodyFormat, EndpointConfig, Method, SecretInput
from tools.published import publish

_METHODS: tuple[Method, ...] = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SECRET_NAME = re.compile(
    r"authorization|(?:^|[_-])(?:api[_-]?key|key|token|secret|password|passwd|signature|sig|auth)(?:$|[_-])|apikey|token$",
    re.IGNORECASE,
)
_ID = re.compile(r"\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9a-fA-F]{24,}")


@dataclass(frozen=True, slots=True)
class CurlSource:
    """The source and, apart from it, the auth with the secret that stood in the line (its repr is masked)."""

    source: Source
    auth: AuthConfigWithSecrets | None


def read_curl(text: str) -> CurlSource:
    """Raises SourceFault, whose message never holds a value of the line."""
    line = parse_curl(text)
    try:
        parts = urlsplit(line.url if "://" in line.url else f"https://{line.url}")
    except ValueError:
        raise SourceFault("the URL of the line can't be called: it is no URL") from None
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if line.user is None and "@" in parts.netloc:
        line.user = unquote(parts.netloc.rpartition("@")[0])
    if fault := base_url_fault(base):
        raise SourceFault(f"the URL of the line can't be called: {fault}")
    auth, headers = _auth(line)
    method = _method(line)
    path, names, examples = _path(parts.path)
    try:
        parse_path(path)
    except ValueError as e:
        raise SourceFault(f"the URL of the line can't be called: {e}") from None
    arguments = Arguments(method, names)
    for name in names:
        said = {"type": "string", "description": "Identifier in the path.", "examples": [examples[name]]}
        arguments.add("path", name, said, required=True)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if line.get:
        query += parse_qsl("&".join(line.data), keep_blank_values=True)
    body_format = _body(line, arguments, headers) if line.data and not line.get else "json"
    auth = _query(query, arguments, auth, line.left)
    kept = {
        n: v for n, v in headers.items() if n.lower() not in ("content-type", "user-agent", "content-length", "host")
    }
    media = next((v for n, v in headers.items() if n.lower() == "content-type"), "")
    if media and media.partition(";")[0].strip().lower() not in (
        "application/json",
        "application/x-www-form-urlencoded",
    ):
        kept["Content-Type"] = media
    for name in [n for n in kept if header_name_fault(n)]:
        line.left.append(LeftOut(f"header {name}", header_name_fault(name) or ""))
        del kept[name]
    endpoint = EndpointConfig(
        name=endpoint_name(name_of_operation(method, path)),
        description=f"{method} {path} of {parts.hostname}.",
        method=method,
        path=path,
        headers=kept,
        input_schema=arguments.schema(),
        body_format=body_format,
    )
    key = f"{method} {path}"
    seen = publish(endpoint.input_schema, parse_path(path).names, path=path).schema
    candidate = Candidate(key, endpoint, notes=tuple(arguments.notes), tokens=tokens_of(endpoint, seen))
    shown = (
        AuthConfig.model_validate(
            auth.model_dump(exclude={"api_key_value", "bearer_token_value", "client_secret_value", "private_key_value"})
        )
        if auth
        else None
    )
    return CurlSource(Source(parts.hostname or "", base, shown, (candidate,), tuple(line.left)), auth)


def _method(line: CurlLine) -> Method:
    said = line.method or ("POST" if line.data and not line.get else "GET")
    for method in _METHODS:
        if method == said:
            return method
    raise SourceFault(f"{said[:20]} is not a method of tools")


def _auth(line: CurlLine) -> tuple[AuthConfigWithSecrets | None, dict[str, str]]:
    """The auth with its secret, and the headers that are none. One secret goes into auth; further ones are left out."""
    auth: AuthConfigWithSecrets | None = None
    headers: dict[str, str] = {}
    if line.user is not None:
        value = base64.b64encode(line.user.encode()).decode()
        auth = _header_auth("Authorization", f"Basic {value}")
    for name, value in line.headers:
        if name.lower() in ("cookie", "proxy-authorization"):
            line.left.append(LeftOut(f"header {name}", "no cookies and no sign-in at proxies"))
        elif name.lower() == "idempotency-key" or not _SECRET_NAME.search(name):
            headers[name] = value
        elif auth is not None:
            line.left.append(
                LeftOut(f"header {name}", f"a second secret: store it and write {name}: secret:/path into headers")
            )
        elif name.lower() == "authorization" and value[:7].lower() == "bearer ":
            auth = AuthConfigWithSecrets(type="bearer_token", bearer_token_value=SecretInput(value=value[7:].strip()))
        else:
            auth = _header_auth(name, value)
    return auth, headers


def _header_auth(name: str, value: str) -> AuthConfigWithSecrets:
    return AuthConfigWithSecrets(type="api_key_header", header_name=name, api_key_value=SecretInput(value=value))


def _query(
    query: list[tuple[str, str]], arguments: Arguments, auth: AuthConfigWithSecrets | None, left: list[LeftOut]
) -> AuthConfigWithSecrets | None:
    """Arguments with the line's values as defaults. A secret in the query is taken away: URLs are logged everywhere."""
    values: dict[str, list[str]] = {}
    for name, value in query:
        values.setdefault(name, []).append(value)
    for name, given in values.items():
        if _SECRET_NAME.search(name):
            left.append(LeftOut(f"query {name}", "looks like a secret, and secrets go into headers only: see auth"))
            continue
        schema: Schema = (
            {"type": "array", "items": {"type": "string"}, "default": given}
            if len(given) > 1
            else {**_like(_number_of(given[0])), "default": _number_of(given[0])}
        )
        arguments.add("query", name, schema, required=False)
    return auth


def _number_of(text: str) -> Any:
    if re.fullmatch(r"-?(0|[1-9]\d{0,14})", text):
        return int(text)
    return text == "true" if text in ("true", "false") else text


def _path(path: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Segments that are ids (numbers, UUIDs, long hex) become parameters named after the segment before them."""
    names: list[str] = []
    examples: dict[str, str] = {}
    made: list[str] = []
    for segment in path.split("/"):
        if not _ID.fullmatch(segment):
            made.append(segment.replace("{", "%7B").replace("}", "%7D"))
            continue
        before = re.sub(r"[^a-z0-9]+", "_", (made[-1] if made else "").lower()).strip("_")
        name = f"{before.removesuffix('s') or 'item'}_id" if not before.startswith("{") else "id"
        while name in names:
            name += "_2"
        names.append(name)
        examples[name] = segment
        made.append("{" + name + "}")
    return "/".join(made) or "/", tuple(names), examples


def _body(line: CurlLine, arguments: Arguments, headers: dict[str, str]) -> BodyFormat:
    """The body's fields as arguments; their values are examples, never defaults: a write must say what it writes."""
    text = "&".join(line.data) if not line.json else "".join(line.data)
    media = next((v.lower() for n, v in headers.items() if n.lower() == "content-type"), "")
    value: Any = None
    if line.json or "json" in media or (not media and text.lstrip().startswith(("{", "["))):
        try:
            value = json.loads(text)
        except ValueError:
            raise SourceFault("the line's data is no JSON, though it says so") from None
    elif media and "x-www-form-urlencoded" not in media:
        raise SourceFault(f"a body of {media[:60]} can't be sent: only JSON and forms")
    if value is None:
        for name, item in dict(parse_qsl(text, keep_blank_values=True)).items():
            arguments.add("body", name, _example(name, item), required=True)
        return "form"
    if not is_object(value) or not value:
        arguments.whole_body(_like(value), required=True)
        return "json"
    for name, item in value.items():
        arguments.add("body", name, _example(name, item), required=True)
    return "json"


def _example(name: str, value: Any) -> Schema:
    if _SECRET_NAME.search(name):
        return {"type": "string", "x-sensitive": True}
    schema = _like(value)
    return schema if is_object(value) or is_array(value) or value in (None, "") else {**schema, "examples": [value]}


def _like(value: Any) -> Schema:
    """A schema that takes values like this one; secrets in it aren't copied."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case None:
            return {}
        case _ if is_array(value):
            return {"type": "array", "items": _like(value[0]) if value else {}}
        case _ if is_object(value):
            return {"type": "object", "properties": {k: _like(v) for k, v in value.items()}}
        case _:
            return {}
