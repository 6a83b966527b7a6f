"""Golden transcripts: a change of what agents read is a diff in tests/transcripts, to be read by a person.

After a wanted change: `python -m tests.write_transcripts`.
"""

import pytest

from tests.scenarios import AGENT, OWNER
from tests.write_transcripts import FOLDER, transcript

pytestmark = pytest.mark.anyio
NAMES = sorted(({*AGENT} | {*OWNER}) - {"all_of_642"})


@pytest.mark.parametrize("name", NAMES)
async def test_what_agents_read_is_what_was_reviewed(name: str) -> None:
    role, scenario = ("agent", AGENT[name]) if name in AGENT else ("owner", OWNER[name])
    assert await transcript(scenario, role) == (FOLDER / f"{name}.jsonl").read_text("utf-8")


def test_each_transcript_belongs_to_a_scenario() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.jsonl")) == NAMES
