"""Parameters of an operation (path, query, header, cookie, with their styles) as arguments."""

from typing import Any

from tools.importers.arguments import Arguments, Unusable
from tools.importers.converting import SchemaConverter
from tools.importers.documents import Document, RefFault
from tools.importers.wording import plain_text
from tools.json_schema import Schema, is_array, is_object
from tools.kinds.rest import header_name_fault

_BETWEEN = {"csv": ",", "ssv": " ", "tsv": "\t", "pipes": "|", "form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
_NAMED = {",": "commas", " ": "blanks", "\t": "tabs", "|": "|"}
_OURS = ("accept", "content-type", "authorization")  # OpenAPI 3: such parameters are ignored


def parameters_of(document: Document, *lists: Any) -> list[dict[str, Any]]:
    """The path item's and the operation's, the latter winning by (name, place). Raises Unusable."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for given in lists:
        for value in given if is_array(given) else ():
            try:
                parameter = document.object(value, "a parameter")
            except RefFault as e:
                raise Unusable(str(e)) from None
            name, place = parameter.get("name"), parameter.get("in")
            if isinstance(place, str) and isinstance(name, str | type(None)):
                found[name or "", place] = parameter
    return list(found.values())


def add_parameter(
    arguments: Arguments, parameter: dict[str, Any], document: Document, converter: SchemaConverter, chars: int
) -> None:
    """One parameter that is not of the body. Raises Unusable where the operation can't be called without it."""
    name, place = parameter.get("name") or "", str(parameter["in"])
    required = parameter.get("required") is True or place == "path"
    if not name:
        raise Unusable(f"a parameter in {place} has no name")
    if place == "header" and name.lower() in _OURS:
        return
    fault = (
        "is sent in a cookie, and no cookies are kept"
        if place == "cookie"
        else header_name_fault(name)
        if place == "header"
        else None
        if place in ("path", "query")
        else f"is in {place!r}, which is no place"
    )
    if fault is None:
        fault = _add(arguments, parameter, name, place, document, converter, chars, required)
    if fault is None:
        return
    if required:
        raise Unusable(f"its required parameter {name} {fault}")
    arguments.notes.append(f"without the parameter {name}: it {fault}")


def _add(
    arguments: Arguments,
    parameter: dict[str, Any],
    name: str,
    place: str,
    document: Document,
    converter: SchemaConverter,
    chars: int,
    required: bool,
) -> str | None:
    """None when it was added, else why it can't be."""
    schema, as_json = _schema_of(parameter, converter)
    if text := plain_text(parameter.get("description"), chars):
        schema = {**schema, "description": text}
    if chars and "examples" not in schema and (example := parameter.get("example")) not in (None, "", [], {}):
        schema = {**schema, "examples": [example]}
    kinds = schema.get("type")
    kinds = kinds if is_array(kinds) else [kinds]
    style, explode = _style(parameter, place, document)
    if as_json:
        if "array" in kinds:
            schema = _text(schema, "A JSON array, as text.")
    elif "object" in kinds and place == "query":
        return _object(arguments, name, schema, style, explode, required)
    elif "object" in kinds:
        return f"is an object in {place}"
    elif place == "path" and style != "simple":
        return f"has the style {style}"
    elif "array" in kinds and not (explode and place == "query"):
        between = _BETWEEN.get(style, ",")
        schema = _text(schema, f"Several values are separated by {_NAMED[between]}.")
    arguments.add(place, name, schema, required=required)
    return None


def _schema_of(parameter: dict[str, Any], converter: SchemaConverter) -> tuple[Schema, bool]:
    """(schema, whether its value is serialised as JSON): 3.x `schema` or `content`, 2.0 inline."""
    if is_object(given := parameter.get("schema")):
        return converter.convert(given), False
    content = parameter.get("content")
    if is_object(content) and content:
        first: Any = next(iter(content.values()))
        return converter.convert(first.get("schema") if is_object(first) else {}), True
    inline = {k: v for k, v in parameter.items() if k not in ("name", "in", "required", "description", "example")}
    return converter.convert(inline), False


def _style(parameter: dict[str, Any], place: str, document: Document) -> tuple[str, bool]:
    if document.version == "2.0":
        style = str(parameter.get("collectionFormat", "csv"))
        return ("simple" if place == "path" else style), style == "multi"
    style = str(parameter.get("style", "form" if place in ("query", "cookie") else "simple"))
    explode = parameter.get("explode", style == "form")
    return style, explode is True and style == "form"


def _object(arguments: Arguments, name: str, schema: Schema, style: str, explode: bool, required: bool) -> str | None:
    if style != "deepObject" and not explode:
        return f"is an object in the style {style}"
    properties = schema.get("properties")
    if not properties:
        return "is an object of any names"
    if style == "deepObject":
        add_deep(arguments, "query", name, schema, required=required)
    else:
        for part, prop in properties.items():
            arguments.add("query", part, prop, required=required and part in schema.get("required", ()))
    return None


def add_deep(arguments: Arguments, place: str, name: str, schema: Schema, *, required: bool, depth: int = 0) -> None:
    """`deepObject`: name[part] for each property, objects in it likewise to three levels; those of any names are left out."""
    for part, prop in schema["properties"].items():
        wire = f"{name}[{part}]"
        needed = required and part in schema.get("required", ())
        if prop.get("type") == "array":
            if is_object(items := prop.get("items")) and items.get("type") == "object":
                arguments.notes.append(f"without {wire}: an array of objects has no form in a query")
            else:
                arguments.add(place, f"{wire}[]", prop, required=needed)
        elif prop.get("type") != "object":
            arguments.add(place, wire, prop, required=needed)
        elif prop.get("properties") and depth < 2:
            add_deep(arguments, place, wire, prop, required=needed, depth=depth + 1)
        else:
            arguments.notes.append(f"without {wire}: an object of any names")


def _text(schema: Schema, how: str) -> Schema:
    """An array as one text."""
    items = schema.get("items")
    values = items.get("enum") if is_object(items) else None
    among = f" Values: {', '.join(map(str, values[:20]))}." if is_array(values) else ""
    said = schema.get("description", "")
    made: Schema = {"type": "string", "description": f"{said} {how}{among}".strip()}
    if isinstance(default := schema.get("default"), str):
        made["default"] = default
    return made
