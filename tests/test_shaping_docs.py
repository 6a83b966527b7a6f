"""Every example of docs/shaping.md is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.cutting import Cut, cut_note
from tools.errors import ShapingFailed
from tools.models import EndpointConfig
from tools.shaping import ShapeSyntaxError, compile_shaper, shape

BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((Path(__file__).parents[1] / "docs" / "shaping.md").read_text("utf-8"))
EXPECTED = ("result", "error", "refused")


def examples() -> list[tuple[Any, dict[str, Any], str, str]]:
    """(answer, endpoint fields, kind of what is expected, its text), in the page's order."""
    found: list[tuple[Any, dict[str, Any], str, str]] = []
    answer: Any = None
    fields: dict[str, Any] = {}
    for _, kind, body in BLOCKS:
        if kind == "answer":
            answer = json.loads(body)
        elif kind == "endpoint":
            fields = json.loads(body)
        elif kind in EXPECTED:
            found.append((answer, fields, kind, body.removesuffix("\n")))
    return found


def test_every_block_of_the_page_is_an_example_of_a_known_kind() -> None:
    kinds = [kind for _, kind, _ in BLOCKS]
    assert set(kinds) == {"answer", "endpoint", "note", *EXPECTED}
    assert kinds.count("endpoint") == len(examples()) == sum(kinds.count(kind) for kind in EXPECTED)


@pytest.mark.parametrize(("answer", "fields", "kind", "expected"), examples())
def test_an_example_of_the_page_is_true(answer: Any, fields: dict[str, Any], kind: str, expected: str) -> None:
    endpoint = EndpointConfig(name="e", description="", path="/", **fields)
    if kind == "refused":
        with pytest.raises(ShapeSyntaxError) as refused:
            compile_shaper(endpoint)
        assert [".".join(map(str, fault.field)) for fault in refused.value.faults] == expected.split("\n")
    elif kind == "error":
        with pytest.raises(ShapingFailed) as failed:
            shape(compile_shaper(endpoint), {}, answer)
        assert failed.value.message.startswith(expected)
    else:
        assert shape(compile_shaper(endpoint), {}, answer).text.removesuffix("\n") == expected


def test_the_note_of_the_page_is_the_one_that_agents_get() -> None:
    (note,) = [body for _, kind, body in BLOCKS if kind == "note"]
    cut = Cut("", "items", 0, 118, 642, 39870, 214332, 119)
    told = cut_note(cut, narrowing=("family", "birthdate", "limit"), result_id="r_7hK2mQ", kept_until="14:32")
    assert note == told + "\n"
