"""Every bomb of a template or an expression stops: `python -m tests.bench.bench_bombs` prints bomb -> ms, MB and what stopped it.

`BOMBS` is also the fast test's table (tests/test_shaping_bombs.py), which asks for the refusal and not for the time.
"""

import json
import resource
import time
from dataclasses import dataclass
from typing import Any

from tools.errors import ShapingFailed
from tools.models import EndpointConfig
from tools.shaping import ShapeSyntaxError, compile_shaper, shape

ROWS: list[dict[str, Any]] = [
    {"id": i, "name": f"name {i}", "tags": ["a", "b", "c"], "nested": {"x": {"y": i}}} for i in range(20_000)
]
TEXT = "x," * 2_000_000
NUMBERS = list(range(300_000, 0, -1))
LIMIT_MS = 100


@dataclass(frozen=True, slots=True)
class Bomb:
    """`stops` says how it ends: "written" (refused when the endpoint is written), "called" (ShapingFailed) or "done" (harmless)."""

    name: str
    stops: str
    raw: Any
    expression: str = ""
    template: str = ""

    def endpoint(self) -> EndpointConfig:
        mapping = {"x": self.expression} if self.expression else None
        return EndpointConfig(
            name="bomb", description="", path="/", response_mapping=mapping, result_template=self.template or None
        )


def _loop(body: str) -> str:
    return "{% for i in range(1000) %}{% for j in range(1000) %}" + body + "{% endfor %}{% endfor %}"


EXPRESSIONS = (
    Bomb("flatten doubling", "called", {"a": 1}, " | ".join(["[@,@,@,@][]"] * 11)),
    Bomb("nested doubling", "called", {"a": 1}, " | ".join(["[@,@]"] * 24)),
    Bomb("nested doubling, written", "called", {"a": 1}, "to_string(" + " | ".join(["[@,@]"] * 24) + ")"),
    Bomb(
        "nested doubling, compared",
        "called",
        {"a": 1},
        " | ".join(["[@,@]"] * 18) + " | {a: @, b: [@,@]} | [a[0], b[0]] | @[0] == @[1]",
    ),
    Bomb("nested doubling, contains", "called", {"a": 1}, " | ".join(["[@,@]"] * 23) + " | contains(@, [@,@])"),
    Bomb("object doubling", "called", {"a": 1}, " | ".join(["{a:@,b:@}"] * 16)),
    Bomb("join doubling", "called", "x" * 1000, " | ".join(["join('', [@,@])"] * 16)),
    Bomb("join of a long separator", "called", TEXT, "join(@, ['a','b','c','d','e'])"),
    Bomb("to_string escaping", "called", '"' * 1000, " | ".join(["to_string([@])"] * 24)),
    Bomb("projections in projections", "called", ROWS, "[*].tags[*].[@,@][*].[@,@][*].[@,@][]"),
    Bomb("value projections", "called", {str(i): {"a": {"b": i}} for i in range(100_000)}, "*.*.* || *.*"),
    Bomb("sort_by a nested expression", "called", ROWS, "sort_by(@, &nested.x.y)"),
    Bomb("sort again and again", "called", NUMBERS, " | ".join(["sort(@)"] * 32)),
    Bomb("reverse again and again", "called", NUMBERS, " | ".join(["reverse(@)"] * 32)),
    Bomb("map of map", "called", ROWS, "map(&map(&[@,@], tags), @)"),
    Bomb("filter over filter", "called", ROWS, "[?tags[?@ == 'c']] | [?tags[?@ == 'a']]"),
    Bomb("contains over and over", "called", NUMBERS, "[?contains(`[1,2,3]`, @)]"),
    Bomb("slices", "called", NUMBERS, " | ".join(["[::-1]"] * 16)),
    Bomb("literal in each", "called", ROWS, "[*].[`[[1,2,3],[4,5,6]]`][][]"),
    Bomb("big numbers", "called", {"a": "9" * 4000}, "avg([to_number(a), to_number(a)])"),
    Bomb("infinity rounded", "called", {"a": "inf"}, "ceil(to_number(a))"),
    Bomb("more than 100 nodes", "written", {}, "a" + " || a" * 100),
    Bomb("brackets in brackets", "written", {}, "[" * 900),
    Bomb("parentheses in parentheses", "written", {}, "(" * 499 + "a" + ")" * 499),
    Bomb("nots", "written", {}, "!" * 900 + "a"),
)
TEMPLATES = (
    Bomb("loop in a loop", "called", None, template=_loop("x")),
    Bomb("text doubling", "called", {"x": "x"}, template="{% set a = x %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}"),
    Bomb("text times", "written", None, template="{{ 'x' * 1000000000 }}"),
    Bomb("list times", "written", None, template="{{ ([1] * 1000000000000) | list }}"),
    Bomb("list plus list", "written", None, template="{% set a = [1] %}" + "{% set a = a + a %}" * 40),
    Bomb("list in a list", "written", None, template="{% set a = [1] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}"),
    Bomb("tuple in a tuple", "written", None, template="{% set a = 1 %}" + "{% set a = (a, a) %}" * 40 + "{{ a }}"),
    Bomb("namespace", "called", None, template="{% set n = namespace(a=1) %}"),
    Bomb("zip doubling", "called", [1], template="{% set a = result %}" + "{% set a = a | zip(a) %}" * 40 + "{{ a }}"),
    Bomb("batch fill", "called", [1], template="{{ result | batch(1000000000, 1) | list }}"),
    Bomb("range", "called", None, template="{{ range(1000000000) | list }}"),
    Bomb("ranges in loops", "called", None, template=_loop("{{ 5000 in range(1000) }}")),
    Bomb("power", "written", None, template="{{ 10 ** 10 ** 10 }}"),
    Bomb("times grows", "called", None, template="{% set a = 10 %}" + "{% set a = a | times(a) %}" * 40 + "{{ a }}"),
    Bomb("join of a long separator", "called", {"x": "x" * 500_000}, template="{{ x | list | join(x) }}"),
    Bomb("replace", "called", {"x": "x" * 500_000}, template="{{ x | replace('x', x) }}"),
    Bomb("replace of nothing", "called", {"x": "x" * 100_000}, template="{{ x | replace('', x) }}"),
    Bomb("indent", "done", None, template="{{ 'a\nb' | indent(1000000000) }}"),
    Bomb(
        "indents",
        "done",
        [f"k{i}" for i in range(10_000)],
        template="{{ result | map('indent', 1000000000) | join | length }}",
    ),
    Bomb(
        "tojson of a list made here",
        "called",
        [f"k{i}" for i in range(10_000)],
        template="{% set a = result | list %}" + _loop("{{ a | tojson | length }}"),
    ),
    Bomb(
        "comparisons in a row", "done", {"x": "x" * 200_000}, template="{{ " + " and ".join(["x == x"] * 1000) + " }}"
    ),
    Bomb(
        "lists in lists",
        "done",
        {"a": [[i] for i in range(5_000)], "b": [{"i": i} for i in range(5_000)]},
        template="{{ a in b }}",
    ),
    Bomb(
        "lists handed to methods",
        "called",
        {"x": "x," * 100_000},
        template="{% set a = x | list %}" + _loop("{{ result.get('q', a) | length }}"),
    ),
    Bomb(
        "lists handed to filters",
        "called",
        {"x": "x," * 100_000},
        template="{% set a = x | list %}" + _loop("{{ 1 | tojson(a) }}"),
    ),
    Bomb(
        "lists as keys",
        "called",
        {"x": "x," * 100_000},
        template="{% set a = x | list %}" + _loop("{{ result[a] | default('') }}"),
    ),
    Bomb(
        "lists looked for",
        "called",
        {"x": "x," * 100_000},
        template="{% set a = x | list %}" + _loop("{{ a in result }}"),
    ),
    Bomb(
        "lists of methods",
        "called",
        {str(i): i for i in range(5_000)},
        template="{% set a = result.items() %}" + _loop("{{ 5 in a }}"),
    ),
    Bomb("format width", "called", None, template="{{ '%1000000000d' | format(1) }}"),
    Bomb("format precision", "called", None, template="{{ '%.1000000000f' | format(1.5) }}"),
    Bomb("format method", "written", None, template="{{ '{:1000000000}'.format(1) }}"),
    Bomb("tojson indent", "done", [1], template="{{ result | tojson(indent=1000000000) }}"),
    Bomb("tojson in loops", "called", ROWS, template=_loop("{{ result | tojson | length }}")),
    Bomb("search in loops", "called", ROWS, template=_loop("{{ 5 in result }}")),
    Bomb("lists in loops", "called", ROWS, template=_loop("{{ (result | list) | length }}")),
    Bomb("sorts in loops", "called", ROWS, template=_loop("{{ result | sort(attribute='name') | length }}")),
    Bomb("comparisons in loops", "called", {"a": ROWS, "b": [dict(r) for r in ROWS]}, template=_loop("{{ a == b }}")),
    Bomb("printed in loops", "called", ROWS, template=_loop("{{ result }}")),
    Bomb("every row", "called", ROWS, template="{% for r in result %}{{ r.name }}{{ r.nested.x.y }}{% endfor %}"),
    Bomb("groupby", "called", ROWS, template="{{ result | groupby('id') | list | length }}"),
    Bomb("long text", "called", {"x": TEXT}, template="{{ x.split(',') | length }}"),
    Bomb("split in loops", "called", {"x": "x," * 300_000}, template=_loop("{{ x.split(',') | length }}")),
    Bomb(
        "split of text made here",
        "called",
        {"x": "x," * 300_000},
        template="{% set a = x %}" + "{% set a = a ~ a %}" * 5 + "{{ a.split(',') | length }}",
    ),
    Bomb("characters in loops", "called", {"x": "x" * 600_000}, template=_loop("{{ (x | list) | length }}")),
    Bomb("text in loops", "called", {"x": "x" * 600_000}, template=_loop("{{ x | urlencode | title | length }}")),
    Bomb("a panic of the engine", "called", ROWS, template="{{ result | unique | length }}"),
    Bomb("macro recursion", "called", None, template="{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    Bomb(
        "macro doubling",
        "called",
        None,
        template="{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    ),
    Bomb("loop recursion", "called", [1], template="{% for x in result recursive %}{{ loop(result) }}{% endfor %}"),
    Bomb("block recursion", "called", None, template="{% block a %}{{ self.a() }}{% endblock %}"),
    Bomb("parentheses in parentheses", "written", None, template="{{ " + "(" * 8000),
    Bomb("blocks in blocks", "written", None, template="{% if 1 %}" * 1600),
    Bomb("a chain of 8,000 ~", "written", None, template="{{ 1" + "~1" * 8000 + " }}"),
    Bomb("a chain of 1,000 ~", "done", None, template="{{ 1" + "~1" * 1000 + " }}"),
    Bomb("a chain of -", "done", None, template="{{ 1" + "-1" * 8000 + " }}"),
    Bomb("2,300 tags", "done", {"x": 1}, template="{{ x }}" * 2300),
    Bomb(
        "hidden from the guard in raw",
        "written",
        None,
        template="{% raw %}{{ ' {% endraw %}{{ [1] * 99 }}{% raw %} ' }}{% endraw %}",
    ),
    Bomb("hidden from the guard in a comment", "written", None, template="{# {{ ' #}{{ [1] * 99 }}{# ' }} #}"),
    Bomb("hidden from the guard in a string", "written", None, template="{{ '}}' ~ [1] * 99 }}"),
    Bomb("hidden from the guard in braces", "written", None, template="{{ {'a': {}} * 99 }}"),
    Bomb("open for ever", "written", None, template="{{ '" + "\\'" * 7000),
)
BOMBS = EXPRESSIONS + TEMPLATES


def run(bomb: Bomb) -> tuple[str, str]:
    """(how it ended: written | called | done, what was said)."""
    try:
        text = shape(compile_shaper(bomb.endpoint()), {}, bomb.raw).text
    except ShapeSyntaxError as e:
        return "written", str(e)
    except ShapingFailed as e:
        return "called", e.message
    return "done", f"{len(text):,} characters"


def main() -> int:
    failed = 0
    print(f"{'bomb':36} {'ms':>7} {'MB':>5}  ends     said")
    for bomb in BOMBS:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        ended, said = run(bomb)
        ms = (time.perf_counter() - started) * 1000
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        bad = ended != bomb.stops or ms > LIMIT_MS or grown > 50
        failed += bad
        print(
            f"{bomb.name:36} {ms:7.1f} {grown:5}  {ended:8} {json.dumps(said[:90])}{'   <-- FAILED' if bad else ''}",
            flush=True,
        )
    print(f"{len(BOMBS)} bombs, {failed} over {LIMIT_MS} ms, over 50 MB, or ended otherwise than told")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
