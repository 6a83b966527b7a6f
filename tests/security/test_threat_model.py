"""docs/security.md names tests that are there, for every attack, and the figures of the attack suite."""

import re
from pathlib import Path

from tests.security.catalog import ATTEMPTS
from tests.security.frame import table
from tests.security.guards import GUARDS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/security.md").read_text("utf-8")


def test_every_attack_is_proved_by_tests_that_exist() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.partition("## How it is tested")[0], re.MULTILINE)
    assert len(rows) > 20
    for attack, _, proof in rows[1:]:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", proof)
        assert named or attack.strip("-") == "", attack
        for file, test in named:
            text = (ROOT / file).read_text("utf-8")
            assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_the_figures_are_those_of_the_suite() -> None:
    assert table(ATTEMPTS) in PAGE, "run python -m tests.security.report and paste the table"
    assert len(ATTEMPTS) >= 300
    assert {a.guard for a in ATTEMPTS} == set(GUARDS), "a guard that no attempt needs, or the other way round"


def test_no_attempt_is_listed_twice() -> None:
    ids = [(a.kind, a.entry, a.payload, a.guard, a.lenient) for a in ATTEMPTS]
    assert len(ids) == len(set(ids)), {i for i in ids if ids.count(i) > 1}
