"""Faults in filter, mapping, key and template, found by looking at the real answer; each fix is tried on it before it is offered. Pure."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tools.errors import CallError, ShapingFailed
from tools.json_values import is_array, is_object, weigh
from tools.models import EndpointConfig
from tools.naming import nearest
from tools.paths import compile_mask, plain_path
from tools.repair_request import Repair
from tools.shaping import Shaped, ShapeSyntaxError, compile_shaper, shape
from tools.sketch import names_at, paths_in
from tools.tool import Tool

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_VALUES = 50_000
"""Beyond this many values only what stopped the shaping is looked at: the process serves others meanwhile."""
_TYPO = 0.75
_QUOTED = re.compile(r"'[^']*'|`[^`]*`")


def shaping_repairs(tool: Tool, arguments: Mapping[str, Any], raw: Any, error: CallError | None) -> list[Repair]:
    """What stopped shaping, else what it silently didn't find."""
    endpoint = tool.endpoint
    try:
        found = _not_found(endpoint, arguments, raw, error) if weigh(raw, _MOST_VALUES)[0] <= _MOST_VALUES else []
        if not found and isinstance(error, ShapingFailed):
            found = [_template(tool, error) if error.stage == "result_template" else _failed(error)]
        return [_proved(endpoint, arguments, raw, r) for r in found]
    except RecursionError:  # a thousand arrays in one another: nothing to learn from
        return []


def _not_found(
    endpoint: EndpointConfig, arguments: Mapping[str, Any], raw: Any, error: CallError | None
) -> list[Repair]:
    """What the first stage that names something didn't find; the next stage is looked at when that is mended."""
    reached = error.partial if isinstance(error, ShapingFailed) else _try(endpoint, arguments, raw)
    found = [*_filter(endpoint, raw)]
    if isinstance(reached, Shaped):
        if not found and reached.after_filter is not None:
            found += _mapping(endpoint, reached.after_filter)
        if not found and reached.after_mapping is not None:
            found += _key(endpoint, reached.after_mapping)
    return found


# ------------------------------------------------------------------ what wasn't found


def _filter(endpoint: EndpointConfig, raw: Any) -> Iterator[Repair]:
    paths = list(endpoint.response_filter or ())
    if not (is_object(raw) or is_array(raw)) or not raw:
        return
    for i, path in enumerate(paths):
        if _keeps(path, raw):
            continue
        better, available = _near_path(path, raw)
        yield Repair(
            "filter_found_nothing",
            f"response_filter {path!r} names nothing in this answer",
            stage="response_filter",
            at=("response_filter", i),
            available=available,
            patch={"response_filter": [*paths[:i], better, *paths[i + 1 :]]} if better else None,
            ask_human="Nothing near it is there: name a path that the answer has (see available and shape).",
        )
        return  # the next one shows when this is mended: fixes replace the whole list


def _mapping(endpoint: EndpointConfig, value: Any) -> Iterator[Repair]:
    if not (is_object(value) or is_array(value)) or not value:
        return
    for name, text in (endpoint.response_mapping or {}).items():
        if _finds(text, value):
            continue
        better, available = _near(text, value)
        yield Repair(
            "mapping_found_nothing",
            f"response_mapping {name!r}: {text!r} finds nothing in this answer, so {name} is null",
            stage="response_mapping",
            at=("response_mapping", name),
            available=available,
            patch={"response_mapping": {name: better}} if better else None,
            ask_human="It may be missing in this record only; else name a path that the answer has (see available and shape).",
        )


def _key(endpoint: EndpointConfig, value: Any) -> Iterator[Repair]:
    text = endpoint.result_key
    if not text or not (is_object(value) or is_array(value)) or not value or _finds(text, value):
        return
    better, available = _near(text, value)
    yield Repair(
        "key_found_nothing",
        f"result_key {text!r} finds nothing in this answer, so the result is null",
        stage="result_key",
        at=("result_key",),
        available=available,
        patch={"result_key": better} if better else None,
        ask_human="Name a path that the answer has (see available and shape).",
    )


def _keeps(path: str, value: Any) -> bool:
    try:
        return bool(compile_mask([path]).keep(value))
    except ValueError:
        return True  # a value that a filter doesn't fit at all is the stage's own failure


def _finds(expression: str, value: Any) -> bool:
    """Whether it picks anything; an expression that can't be evaluated is the stage's own failure."""
    probe = EndpointConfig(name="probe", description="", path="/", result_key=expression)
    try:
        found = shape(compile_shaper(probe), {}, value).value
    except (ShapingFailed, ShapeSyntaxError):
        return True
    return found is not None and found != []


# ------------------------------------------------------------------ what was probably meant


def _near(text: str, value: Any) -> tuple[str | None, tuple[str, ...]]:
    """A plain path or JMESPath expression with the name that was meant."""
    if plain_path(text) is not None:
        return _near_path(text, value)
    known = list(dict.fromkeys(name for path in paths_in(value) for name in path.split(".")))
    bare = _QUOTED.sub("", text)
    for found in _WORD.finditer(bare):
        word = found[0]
        if word in known or bare[found.end() : found.end() + 1] == "(":
            continue
        close = _meant(word, [k for k in known if _WORD.fullmatch(k)])
        if close is not None and _finds(better := _renamed(text, word, close), value):
            return better, tuple(known[:20])
    return None, tuple(known[:20])


def _near_path(path: str, value: Any) -> tuple[str | None, tuple[str, ...]]:
    """(the path that was meant, the names where it went wrong)."""
    here, kept = value, list[str]()
    available: tuple[str, ...] = ()
    steps = path.split(".")
    for step in steps:
        names = names_at(here)
        if step not in names and step != "*" and not (step.isdecimal() and is_array(here)):
            available = available or tuple(names)
            close = _meant(step, names)
            if close is None:
                break
            step = close
        kept.append(step)
        here = _below(here, step)
    better = ".".join(kept)
    if len(kept) == len(steps) and better != path and plain_path(better) is not None:
        return better, available
    leaf = steps[-1]
    elsewhere = [p for p in paths_in(value) if p == leaf or p.endswith("." + leaf)]
    longer = [p for p in elsewhere if p.endswith("." + path)] or elsewhere
    return (longer[0] if len(longer) == 1 else None), available


def _meant(name: str, names: list[str]) -> str | None:
    """The name that is a misspelling of this one: nearer than a mere suggestion, since an optional field may just be missing."""
    close = nearest(name, names)
    if close is None or difflib.SequenceMatcher(None, name.lower(), close.lower()).ratio() < _TYPO:
        return None
    return close


def _renamed(text: str, name: str, to: str) -> str:
    """`text` with a word in place of another; nothing in `to` is special."""
    return re.sub(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", lambda _: to, text)


def _below(value: Any, name: str) -> Any:
    """Every value under a name, as one array where there are several."""
    if is_array(value):
        if name.isdecimal() and int(name) < len(value):
            return value[int(name)]
        found = [_below(item, name) for item in value]
        flat: list[Any] = []
        for item in found:
            flat.extend(item) if is_array(item) else flat.append(item)
        return [item for item in flat if item is not None]
    if is_object(value):
        return list(value.values()) if name == "*" else value.get(name)
    return None


# ------------------------------------------------------------------ what failed


def _template(tool: Tool, error: ShapingFailed) -> Repair:
    source = tool.endpoint.result_template or ""
    steps = error.expression.split(".")
    names = list(error.available)
    if steps[0] == "args":
        names = list(tool.arguments.names)
    wrong = steps[-1]
    # A name of the answer goes into a template only if it is one in a template.
    close = nearest(wrong, [n for n in names if n != wrong and _WORD.fullmatch(n)])
    better = _renamed(source, wrong, close) if close else source
    return Repair(
        error.code,
        error.message,
        stage=error.stage,
        at=("result_template",),
        available=tuple(names),
        patch={"result_template": better} if better != source else None,
        ask_human="Change the template to names that are there; preview_result tries it without calling the server.",
    )


def _failed(error: ShapingFailed) -> Repair:
    return Repair(
        error.code,
        error.message,
        stage=error.stage,
        at=(error.stage,),
        available=error.available,
        ask_human=f"Change {error.stage} so that it fits this answer (see shape); preview_result tries it without calling the server.",
    )


def _proved(endpoint: EndpointConfig, arguments: Mapping[str, Any], raw: Any, r: Repair) -> Repair:
    """`sure` where the patched endpoint shapes this answer."""
    if r.patch is None:
        return r
    patch = {
        k: {**(endpoint.response_mapping or {}), **v} if k == "response_mapping" else v for k, v in r.patch.items()
    }
    return replace(r, sure=_try(endpoint.model_copy(update=patch), arguments, raw) is not None)


def _try(endpoint: EndpointConfig, arguments: Mapping[str, Any], raw: Any) -> Shaped | None:
    try:
        return shape(compile_shaper(endpoint), arguments, raw)
    except (ShapingFailed, ShapeSyntaxError):
        return None
