"""Nothing gets through, and every attempt would without its guard (rules I2, I7, J)."""

from collections.abc import AsyncGenerator

import pytest

from tests.security.catalog import ATTEMPTS
from tests.security.doors import ready
from tests.security.frame import Attempt
from tests.security.ground import Ground, ground
from tests.security.guards import GUARDS

pytestmark = pytest.mark.anyio
each = pytest.mark.parametrize("attempt", ATTEMPTS, ids=[a.id for a in ATTEMPTS])


@pytest.fixture(scope="module")
async def strict_ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Ground, None]:
    async with ground(tmp_path_factory.mktemp("strict"), lenient=False) as made:
        await ready(made)
        yield made


@pytest.fixture(scope="module")
async def lenient_ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Ground, None]:
    async with ground(tmp_path_factory.mktemp("lenient"), lenient=True) as made:
        await ready(made)
        yield made


@each
async def test_nothing_gets_through(attempt: Attempt, strict_ground: Ground, lenient_ground: Ground) -> None:
    place = lenient_ground if attempt.lenient else strict_ground
    place.clean()
    assert not await attempt.strike(place)


@each
async def test_without_its_guard_it_does(
    attempt: Attempt, strict_ground: Ground, lenient_ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = lenient_ground if attempt.lenient else strict_ground
    place.clean()
    GUARDS[attempt.guard](monkeypatch)
    try:
        assert await attempt.strike(place)
    finally:
        monkeypatch.undo()
        place.clean()
