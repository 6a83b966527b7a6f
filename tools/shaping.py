"""From a response to a result: response_filter, response_mapping, result_key, result_template, in this order.

A pure function of (endpoint, arguments, response): the same code serves calls, tests and replays. An endpoint's shaping is
compiled once, when it is written and when the catalog is built. The last stage, max_result_length, is `cutting`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tools.cutting import write
from tools.errors import ShapingFailed
from tools.expressions import Budget, Expression, ExpressionFailed, ExpressionSyntaxError, compile_expression
from tools.json_values import ValueTooDeep, is_object
from tools.models import EndpointConfig
from tools.paths import Mask, PathFailed, PathSyntaxError, compile_mask, path_fault
from tools.template_guard import TemplateSyntaxError
from tools.templates import Template, TemplateFailed

Stage = Literal["response_filter", "response_mapping", "result_key", "result_template"]


@dataclass(frozen=True, slots=True)
class ShapeFault:
    """One thing that doesn't parse: `field` is its path in the endpoint, e.g. ("response_filter", 0)."""

    field: tuple[str | int, ...]
    message: str


class ShapeSyntaxError(ValueError):
    """An endpoint's shaping doesn't parse; `faults` has all of it."""

    def __init__(self, faults: tuple[ShapeFault, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, f.field))}: {f.message}" for f in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Shaper:
    """An endpoint's shaping, compiled. What isn't configured is None."""

    filter: Mask | None
    filter_text: str
    mapping: tuple[tuple[str, Expression], ...] | None
    key: Expression | None
    template: Template | None
    names: tuple[str, ...]
    """For "Returns: id, name": the mapping's names, else the filter's leaves; empty with a template or a key."""

    @property
    def shapes(self) -> bool:
        """Whether anything is configured."""
        return any(part is not None for part in (self.filter, self.mapping, self.key, self.template))


@dataclass(slots=True)
class Shaped:
    """Each stage's value; a stage that isn't configured repeats the one before. `text` is whole, uncut."""

    raw: Any
    after_filter: Any = None
    after_mapping: Any = None
    value: Any = None
    text: str = ""
    templated: bool = False

    @property
    def written_from(self) -> Any:
        """What `cutting.divide` takes beside `text`: the value, or the text itself where a template wrote it."""
        return self.text if self.templated else self.value


def compile_shaper(endpoint: EndpointConfig) -> Shaper:
    """Raises ShapeSyntaxError with all faults at once. An empty filter or mapping and an empty key or template are none."""
    faults: list[ShapeFault] = []
    paths = tuple(endpoint.response_filter or ())
    for index, path in enumerate(paths):
        if (fault := path_fault(path)) is not None:
            faults.append(ShapeFault(("response_filter", index), fault))
    mask: Mask | None = None
    if paths and not faults:
        try:
            mask = compile_mask(paths)
        except PathSyntaxError as e:
            faults.append(ShapeFault(("response_filter",), str(e)))
    mapping: list[tuple[str, Expression]] = []
    for name, text in (endpoint.response_mapping or {}).items():
        if (expression := _expression(text, ("response_mapping", name), faults)) is not None:
            mapping.append((name, expression))
    key = _expression(endpoint.result_key, ("result_key",), faults) if endpoint.result_key else None
    template: Template | None = None
    if endpoint.result_template:
        try:
            template = Template(endpoint.result_template)
        except TemplateSyntaxError as e:
            faults.append(ShapeFault(("result_template",), str(e)))
    if faults:
        raise ShapeSyntaxError(tuple(faults))
    names: tuple[str, ...] = ()
    if template is None and key is None:
        leaves = (path.rsplit(".", 1)[-1] for path in paths)
        names = tuple(endpoint.response_mapping or ()) or tuple(
            dict.fromkeys(leaf for leaf in leaves if leaf != "*" and not leaf.isdecimal())
        )
    return Shaper(mask, ", ".join(paths), tuple(mapping) or None, key, template, names)


def _expression(text: str, field: tuple[str | int, ...], faults: list[ShapeFault]) -> Expression | None:
    try:
        return compile_expression(text)
    except ExpressionSyntaxError as e:
        faults.append(ShapeFault(field, str(e)))
        return None


def shape(shaper: Shaper, args: Mapping[str, Any], raw: Any) -> Shaped:
    """Every stage over one successful answer. Raises ShapingFailed, whose `partial` is a Shaped of the stages reached."""
    reached = Shaped(raw)
    budget = Budget()
    try:
        value = reached.after_filter = _filter(shaper, raw)
        value = reached.after_mapping = _map(shaper, value, budget)
        if shaper.key:
            value = _evaluate(shaper.key, value, budget, "result_key", "")
        reached.value = value
        reached.text = _text(shaper, value, args)
        reached.templated = shaper.template is not None
    except ShapingFailed as e:
        e.partial = reached
        raise
    return reached


def _filter(shaper: Shaper, raw: Any) -> Any:
    if shaper.filter is None:
        return raw
    try:
        return shaper.filter.keep(raw)
    except PathFailed as e:
        raise _failed("response_filter", shaper.filter_text, str(e)) from None
    except RecursionError:
        raise _failed("response_filter", shaper.filter_text, "the answer is nested too deeply") from None


def _map(shaper: Shaper, value: Any, budget: Budget) -> Any:
    if shaper.mapping is None:
        return value
    return {name: _evaluate(expression, value, budget, "response_mapping", name) for name, expression in shaper.mapping}


def _evaluate(expression: Expression, value: Any, budget: Budget, stage: Stage, name: str) -> Any:
    said = f"{name}: " if name else ""
    try:
        return expression.evaluate(value, budget)
    except ExpressionFailed as e:
        raise _failed(stage, expression.text, f"{said}{e}", value) from None
    except RecursionError:
        raise _failed(stage, expression.text, f"{said}the answer is nested too deeply") from None


def _text(shaper: Shaper, value: Any, args: Mapping[str, Any]) -> str:
    if shaper.template is None:
        try:
            return write(value)
        except ValueTooDeep as e:
            raise _failed("result_template", "", str(e)) from None
    try:
        return shaper.template.render(value, args)
    except TemplateFailed as e:
        raise ShapingFailed(
            f"result_template failed: {e.message}",
            stage="result_template",
            expression=e.expression or shaper.template.source[:200],
            available=e.available,
        ) from None


def _failed(stage: Stage, expression: str, said: str, value: Any = None) -> ShapingFailed:
    available = tuple(value)[:20] if is_object(value) else ()
    return ShapingFailed(f"{stage} failed: {said}", stage=stage, expression=expression, available=available)
