"""The body of an operation as arguments: fields of a JSON object or a form, or the whole body as one argument."""

from dataclasses import dataclass
from typing import Any, Literal

from tools.importers.arguments import BODY_METHODS, Arguments, Unusable
from tools.importers.converting import SchemaConverter
from tools.importers.documents import Document, RefFault
from tools.importers.parameters import add_deep
from tools.importers.wording import plain_text
from tools.json_schema import Schema, is_array, is_object
from tools.models import BodyFormat

Form = Literal["fields", "whole", "names"]
"""The body's fields as arguments; the body as one argument; the same, with the names of its fields told and nothing more."""

_JSON = "application/json"
_MAX_NAMES = 4000
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Body:
    """`media` is None for plain JSON and forms, else the Content-Type to send. `schema` as in the document."""

    schema: Any
    format: BodyFormat
    required: bool
    description: str = ""
    media: str | None = None
    deep: frozenset[str] = frozenset()


def body_of(document: Document, operation: dict[str, Any], parameters: list[dict[str, Any]]) -> Body | None:
    """None where the operation has none. Raises Unusable for bodies that can't be sent (multipart, files, XML)."""
    if document.version == "2.0":
        return _swagger_body(document, operation, parameters)
    if "requestBody" not in operation:
        return None
    try:
        body = document.object(operation["requestBody"], "the requestBody")
    except RefFault as e:
        raise Unusable(str(e)) from None
    content = body.get("content")
    if not is_object(content) or not content:
        return None
    media, json_media = _media(list(content))
    given = content[media]
    given = given if is_object(given) else {}
    encoding = given.get("encoding")
    deep = frozenset(
        name
        for name, how in (encoding.items() if is_object(encoding) else ())
        if is_object(how) and how.get("style") == "deepObject"
    )
    # Most documents leave `required` out and mean it: fields that are required are asked for unless it says false.
    required = body.get("required") is not False
    description = plain_text(body.get("description"), 200)
    if not json_media:
        return Body(given.get("schema"), "form", required, description, deep=deep)
    plain = media.partition(";")[0].strip().lower() in (_JSON, "*/*", "application/*")
    return Body(given.get("schema"), "json", required, description, None if plain else media)


def _swagger_body(document: Document, operation: dict[str, Any], parameters: list[dict[str, Any]]) -> Body | None:
    consumes: Any = operation.get("consumes", document.root.get("consumes"))
    consumes = [c for c in consumes if isinstance(c, str)] if is_array(consumes) else []
    for parameter in parameters:
        if parameter["in"] == "body":
            media, json_media = _media(consumes or [_JSON])
            if not json_media:
                raise Unusable(f"its body is {media} with a schema of JSON")
            plain = media.partition(";")[0].strip().lower() in (_JSON, "*/*")
            text = plain_text(parameter.get("description"), 200)
            required = parameter.get("required") is not False
            return Body(parameter.get("schema"), "json", required, text, None if plain else media)
    fields = [p for p in parameters if p["in"] == "formData"]
    if not fields:
        return None
    if any(p.get("type") == "file" for p in fields):
        raise Unusable("its body is multipart/form-data: files can't be sent")
    if consumes and not any(c.partition(";")[0].strip().lower() in (_FORM, "*/*") for c in consumes):
        raise Unusable(f"its body is {consumes[0]}: only JSON and {_FORM} can be sent")
    properties = {str(p.get("name")): {k: v for k, v in p.items() if k != "required"} for p in fields}
    needed = [str(p.get("name")) for p in fields if p.get("required") is True]
    return Body({"type": "object", "properties": properties, "required": needed}, "form", required=True)


def _media(names: list[str]) -> tuple[str, bool]:
    """The best media type and whether it is JSON. Raises Unusable."""
    bare = {name.partition(";")[0].strip().lower(): name for name in names}
    for wanted in (_JSON, "application/merge-patch+json", "*/*", "application/*"):
        if wanted in bare:
            return bare[wanted], True
    if jsons := [n for n in bare if n.endswith("+json")]:
        return bare[jsons[0]], True
    if _FORM in bare:
        return bare[_FORM], False
    if any(n.startswith("multipart/") for n in bare):
        raise Unusable("its body is multipart/form-data: files and parts can't be sent")
    raise Unusable(f"its body is {names[0][:60]}: only JSON and {_FORM} can be sent")


def add_body(arguments: Arguments, body: Body, converter: SchemaConverter, form: Form) -> None:
    """The body as `form` says; no object of named fields is one argument in any case."""
    schema = converter.convert(body.schema)
    if body.description and "description" not in schema:
        schema["description"] = body.description
    properties: Schema = schema.get("properties") or {}
    if body.format == "form" and not (properties and _is_record(schema)):
        if schema.get("type") == "object":
            arguments.open = True
        return
    if form == "fields" and properties and _is_record(schema):
        _add_fields(arguments, body, schema)
        return
    if properties:  # hosts may see no more of it than this
        schema["description"] = plain_text(
            f"{schema.get('description', '')} Fields: {', '.join(properties)}.", _MAX_NAMES
        )
        if form == "names":
            schema = {"type": "object", "description": schema["description"]}
    arguments.whole_body(schema, required=body.required)


def _is_record(schema: Schema) -> bool:
    return schema.get("type", "object") == "object" and "anyOf" not in schema


def _add_fields(arguments: Arguments, body: Body, schema: Schema) -> None:
    needed = schema.get("required", ()) if body.required else ()
    for name, prop in schema["properties"].items():
        if body.format == "form" and name in body.deep and prop.get("properties"):
            add_deep(arguments, "body", name, prop, required=name in needed)
        else:
            arguments.add("body", name, prop, required=name in needed)
    extra = schema.get("additionalProperties")
    if is_object(extra) and arguments.method in BODY_METHODS:
        arguments.open = extra
