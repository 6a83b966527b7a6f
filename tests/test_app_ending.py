"""An app that ends at any moment leaves no task behind: a cancelled look at the registry must not hang the process."""

import asyncio
from pathlib import Path

import pytest

from tests.world import gateway

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("rounds", range(12))
async def test_a_fault_inside_the_block_ends_it_and_leaves_no_task(tmp_path: Path, rounds: int) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what ends
        async with gateway(tmp_path) as world:
            for _ in range(rounds):  # each round ends the block at another step of the background tasks
                await world.app.registry.version("acme")
            raise ZeroDivisionError
    assert asyncio.all_tasks() == before
