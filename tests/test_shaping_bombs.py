"""Hostile templates and expressions end in a refusal. The times are in tests/bench/bench_bombs.py, which has the table."""

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCH: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "bench" / "bench_bombs.py"))


@pytest.mark.parametrize("bomb", BENCH["BOMBS"], ids=[f"{i} {bomb.name}" for i, bomb in enumerate(BENCH["BOMBS"])])
def test_a_bomb_ends_as_the_table_says(bomb: Any) -> None:
    assert BENCH["run"](bomb)[0] == bomb.stops
