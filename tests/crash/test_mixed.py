"""Two replicas, killed in a mixed load: nothing acknowledged is lost, nothing accepted is lost, nothing is done twice.

A few moments of what `python -m tests.crash.mixed sqlite|postgresql 200` does at length.
"""

from pathlib import Path

import pytest

from tests.crash.mixed import run

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
pytest_plugins = ("tests.postgres",)


async def test_a_mixed_load_survives_the_killing_of_its_servers(tmp_path: Path, database_url: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    figures = await run(database_url, home, moments=2, seed=3)
    assert figures["wrong"] == []
    assert figures["edits"]
    assert figures["background calls accepted"]
