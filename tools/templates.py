"""result_template: Jinja syntax by MiniJinja, over JSON values only.

A template is compiled when an endpoint is written. It sees the value's own keys as names, `result` (the whole value) and `args`
(the call's arguments); those two (and the function `range`) win over keys of the same name, so that an answer can't change what a template means (the key is
still `result.args`). Strict: an undefined name is an error. There is no loader, so nothing can be included.

Two budgets stop a hostile template: MiniJinja's fuel (instructions, and the size of the text that they make), and `TOUCHES`, the
members and items that it reads from the answer, which fuel doesn't count. What neither counts is refused by `template_guard`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

import minijinja
from minijinja import Environment

from tools.json_values import is_array, is_object, weigh, write_json
from tools.models import MAX_TEMPLATE_BYTES
from tools.template_guard import MULTIPLIERS, TemplateSyntaxError, check

FUEL: Final = 300_000
TOUCHES: Final = 12_000
"""About 2 to 3 microseconds each; text counts one a TEXT_STEP characters."""
TEXT_STEP: Final = 20
MAX_INDENT: Final = 16
MAX_NAMES: Final = 20
MAX_RANGE: Final = 1000

_ENGINE_ERROR: Final[type[Exception]] = minijinja.TemplateError  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] - not in the package's stub
# A cast: the stub knows only filters without arguments.
_with_state = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", minijinja.pass_state)
_NAME = "t"
_METER = " meter"
"""A name that no template can write."""
_WORD = re.compile(r"[^\W\d]\w*")
_TOO_MUCH = (
    f"reads too much of this answer (more than {TOUCHES:,} values or {TOUCHES * TEXT_STEP:,} characters): filter first"
)
_PATH = re.compile(r"`(\w+(?:\.\w+|\[\d+\]|\['[^']*'\])*)` is undefined")
_STEP = re.compile(r"\w+|\['([^']*)'\]")


class TemplateFailed(ValueError):
    """Rendering failed; `available` are the names that were there where one was undefined."""

    def __init__(self, message: str, expression: str, available: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.expression = expression
        self.available = tuple(available)


class _Spent(Exception):
    """The template read more of the answer than it may."""


class _Meter:
    """What is left of a rendering's touches, and the fault that the engine would swallow."""

    __slots__ = ("fault", "left")

    def __init__(self) -> None:
        self.left = TOUCHES
        self.fault: str | None = None

    def pay(self, touches: int) -> None:
        self.left -= touches
        if self.left < 0:
            raise _Spent

    def pay_for(self, values: Iterable[Any]) -> None:
        """For what the engine had to turn into Python values, again at every call: lists and long texts made in a template."""
        for value in values:
            if isinstance(value, str):
                self.pay(len(value) // TEXT_STEP)
            elif is_array(value) or is_object(value):
                nodes, size = weigh(value, (self.left + 1) * 4, (self.left + 1) * TEXT_STEP)
                self.pay(nodes // 4 + size // TEXT_STEP)


class _Method:
    """items, keys, values and get of an object: to be called; printed they are what any missing name is, a fault."""

    __slots__ = ("_call", "_meter", "_name")

    def __init__(self, name: str, call: Any, meter: _Meter) -> None:
        self._name = name
        self._call = call
        self._meter = meter

    def __call__(self, *args: Any) -> Any:
        self._meter.pay_for(args)
        return self._call(*args)

    def __str__(self) -> str:
        self._meter.fault = f"'{self._name}' is undefined here; call the method as .{self._name}()"
        return ""

    __repr__ = __str__


class _Object(Mapping[str, Any]):
    """A JSON object as a template sees it: read-only, metered, no Python attributes but the four methods of a mapping."""

    __slots__ = ("_meter", "_value")

    def __init__(self, value: dict[str, Any], meter: _Meter) -> None:
        self._value = value
        self._meter = meter

    def __getitem__(self, name: str) -> Any:
        meter = _meter_of_object(self)
        meter.pay(1)
        meter.pay_for((name,))
        return _seen(_value_of_object(self)[name], meter)

    def __iter__(self) -> Iterator[str]:
        value = _value_of_object(self)
        _meter_of_object(self).pay(len(value))
        return iter(value)

    def __len__(self) -> int:
        return len(_value_of_object(self))

    def __str__(self) -> str:
        return _json(self, self._meter)

    __repr__ = __str__

    def _list(self, items: list[Any]) -> "_Array":
        self._meter.pay(len(items))
        return _Array(items, self._meter)

    def _get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self._value else _seen(default, self._meter)

    def __getattribute__(self, name: str) -> Any:
        # MiniJinja falls back to attributes: `pop`, `clear` and `copy` must be as undefined as any other missing name.
        if name[0] == "_":
            return object.__getattribute__(self, name)
        match name:
            case "items":
                return _Method(
                    name, lambda: self._list([[key, item] for key, item in self._value.items()]), self._meter
                )
            case "keys":
                return _Method(name, lambda: self._list(list(self._value)), self._meter)
            case "values":
                return _Method(name, lambda: self._list(list(self._value.values())), self._meter)
            case "get":
                return _Method(name, self._get, self._meter)
            case _:
                raise AttributeError(f"'{name}' is undefined")


class _Array(Sequence[Any]):
    """A JSON array as a template sees it: read-only, metered, without methods."""

    __slots__ = ("_meter", "_value")

    def __init__(self, value: list[Any], meter: _Meter) -> None:
        self._value = value
        self._meter = meter

    def __getitem__(self, index: Any) -> Any:
        meter = _meter_of_array(self)
        meter.pay(1)
        if type(index) is not int:
            meter.pay_for((index,))
        return _seen(_value_of_array(self)[index], meter)

    def __len__(self) -> int:
        return len(_value_of_array(self))

    def __str__(self) -> str:
        return _json(self, self._meter)

    __repr__ = __str__

    def __getattribute__(self, name: str) -> Any:
        if name[0] == "_":
            return object.__getattribute__(self, name)
        raise AttributeError(f"'{name}' is undefined")


# The slots themselves: `self._meter` would go through `__getattribute__` above, which is Python, at each item that is read.
_meter_of_object: Callable[[_Object], _Meter] = cast("Any", _Object)._meter.__get__
_value_of_object: Callable[[_Object], dict[str, Any]] = cast("Any", _Object)._value.__get__
_meter_of_array: Callable[[_Array], _Meter] = cast("Any", _Array)._meter.__get__
_value_of_array: Callable[[_Array], list[Any]] = cast("Any", _Array)._value.__get__


def _seen(value: Any, meter: _Meter) -> Any:
    if isinstance(value, str):
        if len(value) >= TEXT_STEP:
            meter.pay(len(value) // TEXT_STEP)
        return value
    if is_object(value):
        return _Object(value, meter)
    if is_array(value):
        return _Array(value, meter)
    return value


def _range(meter: _Meter, *bounds: int) -> _Array:
    """The function `range`: at most 1,000 numbers, metered like the answer (the engine scans its own without counting)."""
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise ValueError(f"range makes at most {MAX_RANGE:,} numbers")
    meter.pay(1 + len(numbers) // TEXT_STEP)
    return _Array(list(numbers), meter)


def _json(value: _Object | _Array, meter: _Meter) -> str:
    """Compact JSON of a metered value: what `{{ result }}` writes. The engine swallows what is raised here: `fault` keeps it."""
    plain = value._value  # pyright: ignore[reportPrivateUsage] - this module's own
    try:
        meter.pay_for((plain,))
        return write_json(plain)
    except _Spent:
        pass
    except (ValueError, TypeError) as e:
        meter.fault = " ".join(str(e).split())[:200]
    return ""


@_with_state
def _to_json(state: Any, value: Any, indent: Any = None) -> str:
    """The filter `tojson`: metered, nothing is escaped for HTML, and the indent is bounded (the engine's isn't)."""
    meter: _Meter = state.lookup(_METER)

    def plain(item: Any) -> Any:
        if not isinstance(item, (_Object, _Array)):
            raise TypeError("tojson takes JSON values")
        found = item._value  # pyright: ignore[reportPrivateUsage] - this module's own
        meter.pay_for((found,))
        return found

    meter.pay_for((value, indent))
    width = min(indent, MAX_INDENT) if isinstance(indent, int) and indent > 0 else None
    return json.dumps(value, ensure_ascii=False, indent=width, default=plain)


@_with_state
def _indent(state: Any, text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    """The filter `indent` with a bounded width: the engine's makes the blanks before it asks for fuel."""
    state.lookup(_METER).pay_for((text, width, first, blank))
    blanks = " " * min(max(width, 0), MAX_INDENT)
    lines = [blanks + line if line or blank else line for line in text.split("\n")]
    return "\n".join(lines) if first else "\n".join(lines).removeprefix(blanks)


@_with_state
def _times(state: Any, value: Any, other: Any) -> Any:
    """The filter `times`: numbers only, and no larger than the engine's own."""
    state.lookup(_METER).pay_for((value, other))
    return _number(_number(value) * _number(other))


@_with_state
def _plus(state: Any, value: Any, other: Any) -> Any:
    """The filter `plus`: numbers only."""
    state.lookup(_METER).pay_for((value, other))
    return _number(_number(value) + _number(other))


def _number(value: Any) -> Any:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 2.0**126:
        raise TypeError("times and plus take numbers")
    return value


class Template:
    """A compiled template; `render` is pure. Raises TemplateSyntaxError when made."""

    __slots__ = ("_environment", "_names", "source")

    def __init__(self, source: str) -> None:
        if len(source.encode("utf-8", "replace")) > MAX_TEMPLATE_BYTES:
            raise TemplateSyntaxError(f"a template has at most {MAX_TEMPLATE_BYTES // 1024} KB")
        check(source)
        self.source = source
        # Every word, since the engine's list of undeclared names leaves out those in slices.
        self._names = frozenset(_WORD.findall(source)) - {"result", "args", "range"}
        self._environment = Environment(
            undefined_behavior="strict",
            fuel=FUEL,
            auto_escape_callback=lambda _: False,
            filters={"tojson": _to_json, "indent": _indent, "times": _times, "plus": _plus},
        )
        for name in ("debug", "dict", "namespace", "cycler", "joiner", "range"):
            self._environment.remove_global(
                name
            )  # debug prints the engine's state, the others hold lists or make them unmetered
        for name in MULTIPLIERS:
            self._environment.remove_filter(name)
        try:
            self._environment.add_template(_NAME, source)
        except _ENGINE_ERROR as e:
            raise TemplateSyntaxError(_told(e)) from None

    def render(self, value: Any, args: Mapping[str, Any]) -> str:
        """The text for this value and these arguments. Raises TemplateFailed."""
        meter = _Meter()
        try:
            names: dict[str, Any] = {"result": _seen(value, meter), "args": _Object(dict(args), meter), _METER: meter}
            names["range"] = _Method("range", partial(_range, meter), meter)
            if is_object(value):
                names |= {name: _seen(value[name], meter) for name in self._names if name in value}
            text = self._environment.render_template(_NAME, **names)
        except BaseException as e:
            # Whatever a template makes the engine or our values raise is the template's failure; so is a panic of the engine
            # (`unique` over objects), which isn't an Exception. Cancellation and the like are not.
            if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
                raise
            if meter.left < 0 or isinstance(e, _Spent):
                raise TemplateFailed(_TOO_MUCH, "") from None
            if not isinstance(e, _ENGINE_ERROR):
                raise TemplateFailed(" ".join(str(e).split())[:300], "") from None
            raise self._failed(e, value, args) from None
        if meter.left < 0:
            raise TemplateFailed(_TOO_MUCH, "")
        if meter.fault is not None:
            raise TemplateFailed(meter.fault, "")
        return text

    def _failed(self, error: Any, value: Any, args: Mapping[str, Any]) -> TemplateFailed:
        match error.kind:
            case "OutOfFuel":
                return TemplateFailed("takes too many steps or makes too much text", "")
            case "UndefinedError":
                return self._undefined(error, value, args)
            case _:
                return TemplateFailed(_told(error), self._expression(error))

    def _undefined(self, error: Any, value: Any, args: Mapping[str, Any]) -> TemplateFailed:
        found = _PATH.match(error.detail or "")
        name = found.group(1) if found else self._expression(error)
        where: Any = value
        steps = [m.group(1) if m.group(1) is not None else m.group(0) for m in _STEP.finditer(name)]
        if steps[:1] in (["result"], ["args"]) and len(steps) > 1:
            where = {"result": value, "args": dict(args)}
        for step in steps[:-1]:
            if is_object(where):
                where = where.get(step)
            elif is_array(where) and step.isdecimal() and int(step) < len(where):
                where = where[int(step)]
            else:
                where = None
        available = list(where) if is_object(where) else []
        if not available and len(steps) < 2:
            available = ["result", "args"]
        listed = ", ".join(available[:MAX_NAMES]) + (" ..." if len(available) > MAX_NAMES else "")
        told = f"'{name}' is undefined (line {error.line})" + (f"; there are {listed}" if available else "")
        return TemplateFailed(told, name, available)

    def _expression(self, error: Any) -> str:
        """The piece of the source that the engine points at; offsets are in bytes."""
        if error.range is None:
            return ""
        start, end = error.range
        return self.source.encode("utf-8", "replace")[start:end].decode("utf-8", "replace")[:200]


def _told(error: Any) -> str:
    said = error.detail or error.message
    return f"{said} (line {error.line})" if error.line else said
