"""OpenAPI 2.0, 3.0 and 3.1 as candidates: what can be used is used, the rest is listed with the reason. Pure, and slow for large
documents: runs in a process of its own (`importing`)."""

import json
import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import parse_qsl

from tools.descriptions import estimate_tokens
from tools.importers.arguments import Arguments, Unusable
from tools.importers.bodies import Body, Form, add_body, body_of
from tools.importers.converting import SchemaConverter, TooLarge
from tools.importers.documents import Document, RefFault
from tools.importers.frame import Candidate, LeftOut, Source
from tools.importers.parameters import add_parameter, parameters_of
from tools.importers.servers import auth_of, base_url_of, server_url
from tools.importers.wording import endpoint_name, name_of_operation, plain_text
from tools.json_schema import Schema, effective_schema, is_array, is_object
from tools.kinds.paths import parse_path
from tools.kinds.rest import PlanRefused, compile_rest
from tools.models import Annotations, EndpointConfig, Method
from tools.naming import PROPERTY_NAME
from tools.published import PublishRefused, publish
from tools.schemas import check_schema

_METHODS = ("get", "put", "post", "delete", "patch")
_OTHERS = ("head", "options", "trace", "query")
_LEVELS: tuple[tuple[int, int, Form], ...] = (
    (8, 300, "fields"),
    (5, 200, "fields"),
    (3, 120, "fields"),
    (2, 80, "fields"),
    (1, 60, "fields"),
    (1, 0, "fields"),
    (3, 80, "whole"),
    (1, 60, "names"),
)
"""(levels of nesting, characters of a description, how the body is taken), tried in this order until hosts take it."""
_NO_BASE = "https://base-url-not-known.invalid"
_DESTROYS = re.compile(r"(?:^|_)(delete|remove|destroy|purge|erase|prune|wipe|revoke|terminate|drop|kill)(?:_|$)")


def read_openapi(document: Document, where: str = "") -> Source:
    """`where` is the document's own URL, for relative servers; "" where it isn't known."""
    base = base_url_of(document, where)
    auth, secret, left = auth_of(document, where)
    info = document.root.get("info")
    title = plain_text(info.get("title"), 200) if is_object(info) else ""
    candidates: list[Candidate] = []
    names: set[str] = set()
    for key, item, operation in _operations(document, left):
        try:
            candidate = _Operation(document, key, item, operation, base, where).candidate(names)
        except Unusable as e:
            left.append(LeftOut(key, str(e)))
            continue
        names.add(candidate.endpoint.name)
        candidates.append(candidate)
    warnings = [f"calls are signed by {auth.type}: give its secret ({secret})"] if auth else []
    if not base:
        warnings.append("the document says no address of its API: give base_url")
    return Source(title or "Imported API", base, auth, tuple(candidates), tuple(left), tuple(warnings))


def _operations(document: Document, left: list[LeftOut]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(key, path item, operation) in the document's order."""
    paths = document.root.get("paths")
    for path, given in paths.items() if is_object(paths) else ():
        if path.startswith("x-"):
            continue
        try:
            item = document.object(given, "the path item")
        except RefFault as e:
            left.append(LeftOut(path, str(e)))
            continue
        for method in _OTHERS:
            if method in item:
                left.append(LeftOut(f"{method.upper()} {path}", f"{method.upper()} is not a method of tools"))
        for method in _METHODS:
            if method not in item:
                continue
            key = f"{method.upper()} {path}"
            if is_object(operation := item[method]):
                yield key, item, operation
            else:
                left.append(LeftOut(key, "the operation is not an object"))


class _Operation:
    """One operation on its way to a candidate."""

    def __init__(
        self, document: Document, key: str, item: dict[str, Any], operation: dict[str, Any], base: str, where: str
    ) -> None:
        self._document, self._key, self._item, self._operation = document, key, item, operation
        self._base = base
        method, _, path = key.partition(" ")
        self._method: Method = cast("Method", method)  # one of _METHODS
        self._path, _, self._query = path.partition("?")
        self._parameters = parameters_of(document, item.get("parameters"), operation.get("parameters"))
        self._path, self._renamed = _clean_path(self._path, self._parameters)
        try:
            parse_path(self._path)
        except ValueError as e:
            raise Unusable(str(e)) from None
        self._body = body_of(document, operation, self._parameters)
        own = server_url(operation.get("servers"), where) or server_url(item.get("servers"), where)
        self._own_base = own if own and own != base else None

    def candidate(self, taken: set[str]) -> Candidate:
        """Raises Unusable with the rule that no form of it keeps."""
        said = self._operation.get("operationId")
        operation_id = said if isinstance(said, str) else ""
        name = endpoint_name(operation_id or name_of_operation(self._method, self._path), taken)
        why = ""
        for number, (depth, chars, form) in enumerate(_LEVELS):
            if form != "fields" and self._body is None:
                break
            try:
                arguments = self._arguments(depth, chars, form)
            except TooLarge:
                why = why or "its schema expands to too much"
                continue
            endpoint = self._endpoint(name, arguments.schema())
            try:
                seen = _seen(endpoint, self._base)
            except Unusable as fault:
                why = str(fault)
                continue
            notes = arguments.notes
            if form != "fields":
                notes.append("the body is one argument: its fields are too many or too deep for hosts")
            elif number > 1:
                notes.append(f"arguments are described to {depth} levels: more is too large for hosts")
            deprecated = self._operation.get("deprecated") is True
            tags: Any = self._operation.get("tags")
            return Candidate(
                key=self._key,
                endpoint=endpoint,
                tags=tuple(str(t) for t in tags) if is_array(tags) else (),
                operation_id=operation_id,
                deprecated=deprecated,
                notes=tuple(dict.fromkeys([*notes, *(["deprecated"] if deprecated else [])])),
                tokens=tokens_of(endpoint, seen),
            )
        raise Unusable(why)

    def _arguments(self, depth: int, chars: int, form: Form) -> Arguments:
        converter = SchemaConverter(self._document, depth, chars)
        arguments = Arguments(self._method, parse_path(self._path).names)
        for name, value in parse_qsl(self._query, keep_blank_values=True):
            arguments.add("query", name, {"type": "string", "x-fixed": True, "default": value}, required=False)
        for parameter in self._parameters:
            if parameter["in"] not in ("body", "formData"):
                renamed = self._renamed.get(str(parameter.get("name"))) if parameter["in"] == "path" else None
                parameter = {**parameter, "name": renamed} if renamed else parameter
                if parameter["in"] != "path" or "{" + str(parameter.get("name")) + "}" in self._path:
                    add_parameter(arguments, parameter, self._document, converter, chars)
        if (body := self._usable_body(arguments)) is not None:
            add_body(arguments, body, converter, form)
        arguments.notes += converter.notes
        return arguments

    def _usable_body(self, arguments: Arguments) -> Body | None:
        if self._body is not None and self._method == "GET":
            if is_object(schema := self._body.schema) and schema.get("properties") != {}:
                arguments.notes.append("without its body: a GET has none")
            return None
        return self._body

    def _endpoint(self, name: str, schema: Schema) -> EndpointConfig:
        body = self._body if self._method != "GET" else None
        return EndpointConfig(
            name=name,
            description=self._description(),
            method=self._method,
            path=self._path,
            base_url=self._own_base,
            input_schema=schema,
            body_format=body.format if body else "json",
            headers={"Content-Type": body.media} if body and body.media else {},
            annotations=_annotations(self._method, name),
        )

    def _description(self) -> str:
        summary = plain_text(self._operation.get("summary"), 200) or plain_text(self._item.get("summary"), 200)
        text = plain_text(self._operation.get("description") or self._item.get("description"))
        if summary and not text.lower().startswith(summary.rstrip(".").lower()):
            end = "" if summary.endswith((".", "!", "?", "…")) else "."
            text = f"{summary}{end} {text}".strip()
        if not text:
            text = f"{endpoint_name(self._key).replace('_', ' ').capitalize()}."
        if self._operation.get("deprecated") is True:
            text = f"Deprecated by its provider. {text}"
        return text


def _clean_path(path: str, parameters: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """The path with parameter names that a template takes, and which were renamed. Raises Unusable for `{a,b}` and the like."""
    renamed: dict[str, str] = {}
    for name in re.findall(r"\{([^{}]*)\}", path):
        if PROPERTY_NAME.fullmatch(name):
            continue
        known = any(p.get("name") == name and p["in"] == "path" for p in parameters)
        clean = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:60]
        if not known or not clean or name[:1] in "+#./;?&":
            raise Unusable(f"{{{name[:60]}}} in its path is not a parameter")
        renamed[name] = clean
        path = path.replace("{" + name + "}", "{" + clean + "}")
    return path, renamed


def _annotations(method: str, name: str) -> Annotations | None:
    """Where the name says more than the method: POST .../delete destroys, and so does a GET that does."""
    if method in ("POST", "GET") and _DESTROYS.search(name):
        return Annotations(readOnlyHint=False, destructiveHint=True, idempotentHint=False)
    return None


def _seen(endpoint: EndpointConfig, base: str) -> Schema:
    """The schema as hosts see it. Raises Unusable with the rule of writing that the endpoint breaks."""
    names = parse_path(endpoint.path).names
    for fault in check_schema(endpoint.input_schema, names):
        where = "/".join(map(str, fault.loc)) or "the root"
        raise Unusable(f"its schema {fault.message} at {where} (rule {fault.rule})")
    try:
        seen = publish(endpoint.input_schema, names, path=endpoint.path).schema
        compile_rest(endpoint, base or _NO_BASE, effective_schema(endpoint.input_schema, names))
    except PublishRefused as e:
        raise Unusable(f"its schema {e.message} (rule {e.rule})") from None
    except PlanRefused as e:
        raise Unusable(e.faults[0].message) from None
    return seen


def tokens_of(endpoint: EndpointConfig, seen: Schema) -> int:
    """What its tool costs in a list: name, description and schema as hosts see them."""
    entry = {"name": endpoint.name, "description": endpoint.description, "inputSchema": seen}
    return estimate_tokens(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
