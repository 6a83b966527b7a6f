"""Untrusted JSON -> models: every fault at once, an unknown key with the nearest known name, and never a secret echoed."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from tools.errors import InvalidRequest, Issue
from tools.models import READ_ONLY_FIELDS, CreateIntegrationRequest, UpdateIntegrationRequest
from tools.naming import nearest

_M = TypeVar("_M", bound=BaseModel)
_SECRET_PLACES = frozenset({"auth", "headers", "mcp_headers", "mcp_env", "value"})


def parse(model: type[_M], data: Any, at: Sequence[str | int] = ("body",)) -> _M:
    """Raises InvalidRequest with `loc`s that begin with `at`."""
    if not isinstance(data, Mapping):
        raise InvalidRequest([Issue(tuple(at), "a JSON object is expected", "model_type")])
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise InvalidRequest(issues_of(e, model, at)) from None
    except RecursionError:
        raise InvalidRequest([Issue(tuple(at), "nested too deep", "too_deep")]) from None


def parse_create(data: Any) -> CreateIntegrationRequest:
    """The body of create; read-only fields of an answer are accepted and ignored."""
    return parse(CreateIntegrationRequest, _without_read_only(data))


def parse_update(data: Any, name: str) -> UpdateIntegrationRequest:
    """The body of update; read-only fields are ignored, and so is `name` where it equals the integration's."""
    if isinstance(data, Mapping) and "name" in data:
        fields = dict(cast("Mapping[str, Any]", data))
        if fields.pop("name") != name:
            raise InvalidRequest(
                [Issue(("body", "name"), f"a name never changes; this integration is {name!r}", "frozen_field")]
            )
        data = fields
    return parse(UpdateIntegrationRequest, _without_read_only(data))


def _without_read_only(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    return {k: v for k, v in cast("Mapping[str, Any]", data).items() if k not in READ_ONLY_FIELDS}


def issues_of(error: ValidationError, model: type[BaseModel], at: Sequence[str | int]) -> list[Issue]:
    """Pydantic's faults in the contract's shape."""
    found: list[Issue] = []
    for fault in error.errors(include_url=False, include_context=False):
        loc = fault["loc"]
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = _unknown(model, loc)
        # The value of an unknown key isn't echoed either: it can be a secret that was put in the wrong place.
        secret = fault["type"] in ("missing", "extra_forbidden") or bool(_SECRET_PLACES & {str(p) for p in loc})
        shown = fault.get("input")
        found.append(
            Issue(
                (*at, *loc),
                message,
                fault["type"],
                None if secret else shown,
                has_input=not secret and _is_small(shown),
            )
        )
    return found


def _is_small(value: Any) -> bool:
    """Inputs are echoed where they are scalars: an object could hold a secret further down."""
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 2000)


def _unknown(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    known = _fields_at(model, loc[:-1])
    close = nearest(str(loc[-1]), known)
    return f"unknown field{f'; did you mean {close}?' if close else ''}"


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The field names of the model found by walking `loc` from `model`."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current is not None else None
        if field is None:
            return []
        current = next(iter(_models_in(field.annotation)), None)
    return list(current.model_fields) if current is not None else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    parts: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not parts and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in parts for m in _models_in(part)]
