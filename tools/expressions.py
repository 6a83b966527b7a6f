"""Expressions of response_mapping and result_key: a plain path, else JMESPath.

Compiled when an endpoint is written and evaluated on every call. An evaluation spends a budget, so that no expression over any
answer holds the process for more than some tens of milliseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jmespath import exceptions, functions, parser, visitor

from tools.json_values import MAX_RESULT, is_array, is_object, kind_of, weigh, write_json
from tools.models import MAX_EXPRESSION_CHARS
from tools.paths import follow, plain_path

MAX_NODES: Final = 100
BUDGET: Final = 40_000
"""Steps of all expressions over one answer, about 1 microsecond each; scanning 8 values or 256 characters is a step too."""


_EXPREF: Final = "& is for the second argument of sort_by, min_by and max_by and the first of map: it isn't a value"


class ExpressionSyntaxError(ValueError):
    """The expression doesn't parse or is over a limit. The message is for the person who wrote it."""


class ExpressionFailed(ValueError):
    """The expression can't be evaluated over this value, or spends more than its budget."""


class Budget:
    """What the expressions of one endpoint may still spend over one answer."""

    __slots__ = ("left",)

    def __init__(self, steps: int = BUDGET) -> None:
        self.left = steps

    def pay(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ExpressionFailed(f"takes more than {BUDGET:,} steps over this answer: filter first, or simplify it")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression: a plain path, or a JMESPath tree."""

    text: str
    path: tuple[str, ...] | None
    tree: dict[str, Any] | None

    def evaluate(self, value: Any, budget: Budget) -> Any:
        """What the expression picks; None when nothing. Raises ExpressionFailed."""
        if self.path is not None:
            if isinstance(value, (str, bool, int, float)):
                raise ExpressionFailed(f"a path needs an object or an array; there was {kind_of(value)}")
            return follow(value, self.path, budget.pay)
        return _Interpreter(budget).run(self.tree, value)


def compile_expression(text: str) -> Expression:
    """Parses a plain path or JMESPath. Raises ExpressionSyntaxError."""
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionSyntaxError(f"an expression has at most {MAX_EXPRESSION_CHARS} characters")
    if (path := plain_path(text)) is not None:
        return Expression(text, path, None)
    try:
        tree: Any = parser.Parser().parse(text).parsed  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped
    except exceptions.JMESPathError as e:
        said = " ".join(line.strip() for line in str(e).splitlines() if line.strip(" ^"))
        raise ExpressionSyntaxError(f"not a path and not JMESPath: {said}") from None
    except (RecursionError, ValueError, IndexError, KeyError, TypeError):
        raise ExpressionSyntaxError("not a path and not JMESPath") from None
    _check_tree(tree)  # pyright: ignore[reportUnknownArgumentType] - untyped
    return Expression(text, None, tree)  # pyright: ignore[reportUnknownArgumentType] - untyped


def _check_tree(tree: dict[str, Any]) -> None:
    nodes = 0
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        if not is_object(node):
            continue  # a slice's numbers
        nodes += 1
        kind: Any = node.get("type")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped tree
        name: Any = node.get("value")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped tree
        children: list[Any] = node.get("children", [])  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped tree
        if kind == "function_expression":
            _check_call(name, children)
        elif any(is_object(n) and n.get("type") == "expref" for n in ([node] if node is tree else []) + children):  # pyright: ignore[reportUnknownMemberType] - untyped tree
            raise ExpressionSyntaxError(_EXPREF)
        if kind == "slice" and children[2] == 0:
            raise ExpressionSyntaxError("a slice's step can't be 0")
        stack.extend(children)
    if nodes > MAX_NODES:
        raise ExpressionSyntaxError(f"an expression has at most {MAX_NODES} nodes; this one has {nodes}")


def _check_call(name: str, arguments: list[Any]) -> None:
    table: dict[str, Any] = _Functions.FUNCTION_TABLE
    if name not in table:
        raise ExpressionSyntaxError(f"there is no function {name}(); there are {', '.join(sorted(table))}")
    takes = table[name]["signature"]
    variadic = bool(takes) and bool(takes[-1].get("variadic"))
    if len(arguments) < len(takes) or (len(arguments) > len(takes) and not variadic):
        raise ExpressionSyntaxError(f"{name}() takes {'at least ' if variadic else ''}{len(takes)} argument(s)")
    for i, argument in enumerate(arguments):
        if argument.get("type") == "expref" and "expref" not in takes[min(i, len(takes) - 1)]["types"]:
            raise ExpressionSyntaxError(_EXPREF)


# --------------------------------------------------------------------------- JMESPath on a budget


class _Functions(functions.Functions):
    """JMESPath's functions; to_string writes JSON as the rest of a result is written."""

    def __init__(self, write: Callable[[Any], str]) -> None:
        self._write = write

    @functions.signature({"types": []})  # pyright: ignore[reportUntypedFunctionDecorator, reportUnknownMemberType] - untyped
    def _func_to_string(self, arg: Any) -> str:
        return arg if isinstance(arg, str) else self._write(arg)


class _Interpreter(visitor.TreeInterpreter):
    """One evaluation: every visit is a step, and what a node scans or makes is paid for before it is done."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._calls: Any = _Functions(write_json)
        self._budget = budget
        self._methods: dict[str, Callable[..., Any]] = {}

    def run(self, tree: Any, value: Any) -> Any:
        try:
            result = self.visit(tree, value)
            if is_array(result) or is_object(result) or isinstance(result, str):
                self._bounded(result)
            return result
        except exceptions.JMESPathError as e:
            raise ExpressionFailed(" ".join(str(e).split())[:300]) from None
        except RecursionError:
            raise ExpressionFailed("the value is nested too deeply") from None
        except (TypeError, ValueError, ArithmeticError) as e:
            if isinstance(e, ExpressionFailed):
                raise
            raise ExpressionFailed(f"can't be evaluated: {' '.join(str(e).split())[:200]}") from None

    def _pay(self, steps: int) -> None:
        self._budget.pay(steps)

    def _bounded(self, value: Any) -> None:
        nodes, size = weigh(value, self._budget.left * 3 + 3)
        self._pay(nodes // 3)
        self._limit(size)

    def _limit(self, size: int) -> None:
        if size > MAX_RESULT:
            raise ExpressionFailed(f"makes more than {MAX_RESULT // 1024 // 1024} MiB")

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._budget.left -= 1
        if self._budget.left < 0:
            self._budget.pay(0)
        kind: str = node["type"]
        method = self._methods.get(kind)
        if method is None:
            method = self._methods[kind] = getattr(self, f"visit_{kind}")
        return method(node, *args)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        base: Any = self.visit(node["children"][0], value)
        if not is_array(base):
            return None
        flat: list[Any] = []
        for item in base:
            part: list[Any] = item if is_array(item) else [item]
            self._pay(1 + len(part) // 8)
            flat.extend(part)
        return flat

    def visit_slice(self, node: Any, value: Any) -> Any:
        if is_array(value):
            self._pay(len(value) // 8)
        return super().visit_slice(node, value)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped

    def visit_comparator(self, node: Any, value: Any) -> Any:
        left: Any = self.visit(node["children"][0], value)
        right: Any = self.visit(node["children"][1], value)
        if isinstance(left, str):
            self._pay(len(left) // 256)
        elif (is_object(left) or is_array(left)) and (is_object(right) or is_array(right)):
            self._bounded(left)
        compare: Callable[[Any, Any], Any] = self.COMPARATOR_FUNC[node["value"]]
        if node["value"] in ("eq", "ne"):
            return compare(left, right)
        numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (left, right))
        texts = isinstance(left, str) and isinstance(right, str)
        return compare(left, right) if numbers or texts else None

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        name: str = node["value"]
        given: list[Any] = [self.visit(child, value) for child in node["children"]]
        self._pay(3)
        for argument in given:
            if isinstance(argument, str):
                self._pay(len(argument) // 256)
            elif is_array(argument) or is_object(argument):
                length = len(argument)
                self._pay(length * max(length.bit_length() // 4, 1) // 8 if name.startswith("sort") else length // 8)
        match name:
            case "to_string" | "contains":
                self._bounded(given[0])
            case "join" if isinstance(given[0], str) and is_array(given[1]):
                # The separator is written once an item: known before a byte of it is.
                parts: list[Any] = given[1]
                self._limit(len(given[0]) * len(parts) + sum(len(p) for p in parts if isinstance(p, str)))
            case _:
                pass
        result: Any = self._calls.call_function(name, given)
        if isinstance(result, str):
            self._pay(len(result) // 256)
        return result
