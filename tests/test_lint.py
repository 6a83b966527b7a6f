"""Lint: one fixture that fails for each rule, and a good list that passes all."""

from dataclasses import replace
from typing import Any

import pytest

from tools.hosts import HOSTS, hosts_over
from tools.lint import LintedTool, LintRow, lint, tool_tokens
from tools.published import SchemaWarning


def arguments(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


FAMILY = {"type": "string", "description": "Surname."}
GOOD = LintedTool(
    name="clinic_search_patients",
    description="Finds patients by family name and day of birth. Returns: id, name.",
    operator_description="Finds patients by family name and day of birth.",
    schema=arguments(family=FAMILY),
)
OTHER = LintedTool(
    name="billing_create_invoice",
    description="Writes one invoice for a visit that is over; needs the visit's id.",
    operator_description="Writes one invoice for a visit that is over; needs the visit's id.",
    schema=arguments(visit={"type": "string", "description": "The visit's id."}),
    method="POST",
)


def test_good_tools_have_no_rows() -> None:
    assert lint([GOOD, OTHER]) == []


@pytest.mark.parametrize(
    ("tool", "rule", "severity", "where"),
    [
        (replace(GOOD, name="n" * 60), "name_length", "error", "n" * 60),
        (replace(GOOD, name="a b"), "name_characters", "error", "a b"),
        (replace(GOOD, operator_description=""), "description_missing", "warning", GOOD.name),
        (replace(GOOD, operator_description="Finds patients."), "description_short", "warning", GOOD.name),
        (replace(GOOD, description="x" * 1100), "description_long", "warning", GOOD.name),
        (replace(GOOD, description="x" * 2000), "description_long", "error", GOOD.name),
        (replace(GOOD, schema=arguments(a={"type": "string"})), "argument_description", "warning", f"{GOOD.name}.a"),
        (
            replace(GOOD, schema=arguments(a={**FAMILY, "type": "array"})),
            "schema_items",
            "error",
            f"{GOOD.name}.properties.a",
        ),
        (replace(GOOD, schema={"type": "object"}), "schema_properties", "error", GOOD.name),
        (
            replace(GOOD, loosened=(SchemaWarning("pattern", ("properties", "a"), "is told"),)),
            "published_pattern",
            "note",
            f"{GOOD.name}.properties.a",
        ),
        (
            replace(GOOD, schema=arguments(**{f"a{i}": FAMILY for i in range(40)})),
            "tool_tokens",
            "warning",
            GOOD.name,
        ),
        (replace(GOOD, result_limit=0), "unbounded_result", "warning", GOOD.name),
        (replace(GOOD, method="POST", has_input_schema=False), "input_schema_missing", "warning", GOOD.name),
        (
            replace(GOOD, method="POST", max_retries=2, retry_statuses=(429, 502)),
            "retry_without_effect",
            "note",
            GOOD.name,
        ),
        (replace(GOOD, timeout_seconds=51), "long_interrupt", "warning", GOOD.name),
    ],
)
def test_a_tool_that_breaks_a_rule_gets_its_row(tool: LintedTool, rule: str, severity: str, where: str) -> None:
    assert [(r.severity, r.where) for r in lint([tool]) if r.rule == rule] == [(severity, where)]


@pytest.mark.parametrize(
    "tool",
    [
        replace(GOOD, method="POST", max_retries=2, retry_statuses=(429, 503)),
        replace(GOOD, method="POST", max_retries=2, retry_statuses=(500,), idempotent=True),
        replace(GOOD, method="POST", max_retries=0, retry_statuses=(500,)),
        replace(GOOD, method="PUT", max_retries=2, retry_statuses=(500,)),
        replace(GOOD, timeout_seconds=50),
        replace(GOOD, timeout_seconds=300, result_delivery="queue"),
        replace(GOOD, method="GET", has_input_schema=False),
        replace(GOOD, name="n" * 48),
    ],
)
def test_what_is_fine_has_no_row(tool: LintedTool) -> None:
    assert lint([tool]) == []


def rules_of(rows: list[LintRow]) -> set[str]:
    return {r.rule for r in rows}


def test_equal_descriptions_are_told_with_the_other_tool() -> None:
    twin = replace(GOOD, name="zoo_feed", operator_description="finds patients by family  name and day of birth.")
    (row,) = [r for r in lint([GOOD, twin]) if r.rule == "description_equal"]
    assert row.where == "zoo_feed"
    assert GOOD.name in row.message


def test_tools_that_say_nearly_the_same_are_a_pair() -> None:
    near = replace(
        GOOD, name="clinic_search_patient", operator_description="Finds patients by family name and date of birth."
    )
    assert "ambiguous_pair" not in rules_of(lint([GOOD, near]))
    nearer = replace(GOOD, name="clinic_search_patients2", operator_description=GOOD.operator_description)
    (row,) = [r for r in lint([GOOD, nearer]) if r.rule == "ambiguous_pair"]
    assert {row.where, *row.message.split()} >= {GOOD.name}


def many(count: int) -> list[LintedTool]:
    return [
        replace(GOOD, name=f"t{i}", operator_description=" ".join(f"w{i}{k}" for k in range(6)), description="d")
        for i in range(count)
    ]


def test_a_list_over_a_hosts_limit_names_the_host() -> None:
    rows = {(r.severity, r.message) for r in lint(many(129)) if r.rule == "list_length"}
    assert ("error", "129 tools; VS Code takes 128") in rows
    assert ("warning", "129 tools; Cursor takes 40") in rows
    assert hosts_over(40) == ()
    assert [h.name for h in hosts_over(41)] == ["Cursor"]


def test_a_list_over_the_budget_of_tokens_is_told() -> None:
    tools = many(650)
    total = sum(tool_tokens(t) for t in tools)
    assert total > 15_000
    assert "list_tokens" in rules_of(lint(tools))
    assert "list_tokens" not in rules_of(lint(tools[:50]))


def test_the_default_name_limit_fits_every_host_that_prefixes() -> None:
    prefixed = [h for h in HOSTS if h.prefix and h.name_chars]
    assert prefixed
    assert all(len(h.prefix) + 48 <= (h.name_chars or 0) for h in prefixed)
