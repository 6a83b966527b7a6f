"""What makes a set of tools hard for agents, found without a model: one rule a row, budgets per host, tool and list (agents 4.1)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tools.descriptions import MAX_DESCRIPTION_BYTES, WARN_DESCRIPTION_CHARS, estimate_tokens
from tools.host_rules import check_published
from tools.hosts import HOSTS, hosts_over
from tools.published import SchemaWarning
from tools.suspicious_text import suspicions_of_tool

TOKENS_PER_TOOL = 400
TOKENS_PER_LIST = 15_000
LONG_WAIT_S = 50
SAME_WORDS = 0.8

_SHORT_DESCRIPTION_WORDS = 4
_MAX_PAIRS = 50

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class LintedTool:
    """One endpoint tool as lint needs it. `description` and `schema` are the published ones, `result_limit` characters (0: none)."""

    name: str
    description: str
    schema: dict[str, Any]
    operator_description: str
    method: str = "GET"
    has_input_schema: bool = True
    result_limit: int = 40_000
    result_delivery: str = "interrupt"
    timeout_seconds: float | None = None
    max_retries: int = 0
    retry_statuses: tuple[int, ...] = ()
    idempotent: bool = False
    loosened: tuple[SchemaWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class LintRow:
    """`where` is the tool's name, with the argument behind a dot, or "list"."""

    rule: str
    severity: Severity
    where: str
    message: str


def lint(tools: Sequence[LintedTool]) -> list[LintRow]:
    """All rows, by tool in the order given, then those of the list. "error" is what some host refuses."""
    rows = [row for tool in tools for rule in _TOOL_RULES for row in rule(tool)]
    return rows + [row for rule in _LIST_RULES for row in rule(tools)]


def tool_tokens(tool: LintedTool) -> int:
    """What the tool costs in a list."""
    schema = json.dumps(tool.schema, ensure_ascii=False, separators=(",", ":"))
    return estimate_tokens(f"{tool.name}{tool.description}{schema}")


def _name_fits_every_host(tool: LintedTool) -> Iterator[LintRow]:
    over = [h for h in HOSTS if h.name_chars is not None and len(h.prefix) + len(tool.name) > h.name_chars]
    if over:
        names = ", ".join(f"{h.name} ({len(h.prefix) + len(tool.name)} of {h.name_chars})" for h in over)
        yield LintRow("name_length", "error", tool.name, f"its name is too long for {names}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", tool.name):
        yield LintRow("name_characters", "error", tool.name, "its name has characters beside A-Z, a-z, 0-9, _ and -")


def _description_helps(tool: LintedTool) -> Iterator[LintRow]:
    words = len(tool.operator_description.split())
    if words == 0:
        yield LintRow(
            "description_missing", "warning", tool.name, "has no description: say what it does and when to use it"
        )
    elif words < _SHORT_DESCRIPTION_WORDS:
        yield LintRow(
            "description_short", "warning", tool.name, f"its description has {words} words: say when to use it"
        )
    size = len(tool.description.encode())
    if size >= MAX_DESCRIPTION_BYTES:
        yield LintRow("description_long", "error", tool.name, f"its description has {size} bytes; hosts cut at 2 KB")
    elif len(tool.description) > WARN_DESCRIPTION_CHARS:
        said = f"its description has {len(tool.description)} characters; some hosts cut at {WARN_DESCRIPTION_CHARS}"
        yield LintRow("description_long", "warning", tool.name, said)


def _arguments_are_described(tool: LintedTool) -> Iterator[LintRow]:
    for name, prop in tool.schema.get("properties", {}).items():
        if not prop.get("description"):
            yield LintRow("argument_description", "warning", f"{tool.name}.{name}", "an argument without description")


def _text_is_for_people(tool: LintedTool) -> Iterator[LintRow]:
    for found in suspicions_of_tool({"description": tool.description, "inputSchema": tool.schema}):
        yield LintRow("suspicious_text", "warning", tool.name, found)


def _schema_is_safe(tool: LintedTool) -> Iterator[LintRow]:
    for found in check_published(tool.schema):
        place = ".".join([tool.name, *map(str, found.loc)])
        yield LintRow(f"schema_{found.rule}", "error", place, found.message)
    for loosened in tool.loosened:
        place = ".".join([tool.name, *map(str, loosened.loc)])
        yield LintRow(f"published_{loosened.rule}", "note", place, loosened.message)


def _tokens_within_budget(tool: LintedTool) -> Iterator[LintRow]:
    if (tokens := tool_tokens(tool)) > TOKENS_PER_TOOL:
        yield LintRow(
            "tool_tokens", "warning", tool.name, f"costs about {tokens} tokens; {TOKENS_PER_TOOL} are the budget"
        )


def _result_is_bounded(tool: LintedTool) -> Iterator[LintRow]:
    if tool.result_limit == 0:
        yield LintRow("unbounded_result", "warning", tool.name, "nothing limits its results: set max_result_length")


def _bodies_have_a_schema(tool: LintedTool) -> Iterator[LintRow]:
    if tool.method in ("POST", "PUT", "PATCH") and not tool.has_input_schema:
        said = f"{tool.method} without input_schema: nobody can guess its fields"
        yield LintRow("input_schema_missing", "warning", tool.name, said)


def _retries_have_an_effect(tool: LintedTool) -> Iterator[LintRow]:
    """Rules F1."""
    without = [s for s in tool.retry_statuses if s not in (429, 503)]
    if tool.method in ("POST", "PATCH") and not tool.idempotent and tool.max_retries > 0 and without:
        said = f"{tool.method} is not retried on {', '.join(map(str, without))} without annotations.idempotentHint"
        yield LintRow("retry_without_effect", "note", tool.name, said)


def _calls_end_before_hosts_give_up(tool: LintedTool) -> Iterator[LintRow]:
    if tool.result_delivery == "interrupt" and (tool.timeout_seconds or 0) > LONG_WAIT_S:
        said = f"may take {tool.timeout_seconds:g} s; hosts give up at 60 and call again: use result_delivery queue"
        yield LintRow("long_interrupt", "warning", tool.name, said)


def _list_within_budget(tools: Sequence[LintedTool]) -> Iterator[LintRow]:
    tokens = sum(map(tool_tokens, tools))
    if tokens > TOKENS_PER_LIST:
        yield LintRow(
            "list_tokens", "warning", "list", f"costs about {tokens} tokens; {TOKENS_PER_LIST} are the budget"
        )
    for host in hosts_over(len(tools)):
        severity: Severity = "error" if host.tools_are_hard else "warning"
        yield LintRow("list_length", severity, "list", f"{len(tools)} tools; {host.name} takes {host.tools}")


def _descriptions_differ(tools: Sequence[LintedTool]) -> Iterator[LintRow]:
    first: dict[str, str] = {}
    for tool in tools:
        text = " ".join(tool.operator_description.lower().split())
        if text and (other := first.setdefault(text, tool.name)) != tool.name:
            yield LintRow("description_equal", "warning", tool.name, f"has the same description as {other}")


def _tools_can_be_told_apart(tools: Sequence[LintedTool]) -> Iterator[LintRow]:
    """Pairs that share more than 0.8 of the words in name and description. By size, so that most pairs are never looked at."""
    bags = sorted(((_words(t), t.name) for t in tools), key=lambda pair: (len(pair[0]), pair[1]))
    found = 0
    for i, (words, name) in enumerate(bags):
        for others, other in bags[i + 1 :]:
            if len(words) <= SAME_WORDS * len(others) or found >= _MAX_PAIRS:
                break
            shared = len(words & others)
            if shared > SAME_WORDS * (len(words) + len(others) - shared):
                found += 1
                yield LintRow(
                    "ambiguous_pair", "warning", name, f"says nearly the same as {other}: an agent can't choose"
                )


def _words(tool: LintedTool) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", f"{tool.name} {tool.operator_description}".lower().replace("_", " ")))


_TOOL_RULES = (
    _name_fits_every_host,
    _description_helps,
    _arguments_are_described,
    _text_is_for_people,
    _schema_is_safe,
    _tokens_within_budget,
    _result_is_bounded,
    _bodies_have_a_schema,
    _retries_have_an_effect,
    _calls_end_before_hosts_give_up,
)
_LIST_RULES = (_list_within_budget, _descriptions_differ, _tools_can_be_told_apart)
