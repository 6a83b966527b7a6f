"""The machine's clock is set, forward or back by hours, while a gateway runs: what goes on, and what ends (docs/operating.md).

`time_machine` sets the wall clock of the process; the monotonic clock goes on as it does when a real one is set.
"""

import json
import re
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from tests.fhir_servers.small import bundle, fhir, integration, patient, search, statement
from tests.issuer import REST, issuer
from tests.rest import INTEGRATIONS, Rest, rest_world
from tests.test_background import DONE, JSON, ended, settings, write
from tests.upstreams import Hostile, answer
from tests.world import World, gateway, http, served
from tools.call import CallContext
from tools.errors import NotFound
from tools.outcome import Outcome

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("hours", [5, -5])


@contextmanager
def clock_set(hours: float) -> Generator[None]:
    """The wall clock is `hours` off within; then it is right again."""
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        yield


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Rest]:
    async with rest_world(tmp_path) as shop:
        yield shop


async def swept(world: World) -> None:
    """What housekeeping does every half minute."""
    for table in world.app.expiring:
        await table.forget_expired(datetime.now(UTC))
    await world.app.writer.sweep()


def minting(upstream: Hostile, life_s: int) -> dict[str, Any]:
    token = {"access_token": "tok-1-abcdefgh", "token_type": "Bearer", "expires_in": life_s}
    upstream.script("/token", answer(200, json.dumps(token).encode(), JSON))
    upstream.script("/items", answer(200, b"[1]", JSON))
    auth = {
        "type": "oauth2_client_credentials",
        "token_url": f"{upstream.url}/token",
        "client_id": "me",
        "client_secret_value": {"value": "canary-0123456789"},
        "client_auth_method": "post",
    }
    rows = [{"name": "items", "description": "Lists.", "method": "GET", "path": "/items"}]
    return {"name": "up", "display_name": "Up", "base_url": upstream.url, "auth": auth, "endpoints": rows}


@BOTH
async def test_a_minted_token_goes_on_and_is_not_minted_anew(tmp_path: Path, upstream: Hostile, hours: int) -> None:
    """Its life counts on the monotonic clock: in a step forward it isn't over, in one back it isn't sent for longer."""
    async with gateway(tmp_path) as world:
        await world.create(minting(upstream, 3600))
        assert await world.call("up_items") == "[1]"
        with clock_set(hours):
            assert await world.call("up_items") == "[1]"
        assert await world.call("up_items") == "[1]"
    assert [r.path for r in upstream.received] == ["/token", "/items", "/items", "/items"]


async def test_a_token_that_was_for_one_call_is_not_sent_again_because_the_clock_went_back(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path) as world:
        await world.create(minting(upstream, 0))
        assert await world.call("up_items") == "[1]"
        with clock_set(-5):
            assert await world.call("up_items") == "[1]"
    assert [r.path for r in upstream.received] == ["/token", "/items"] * 2


async def cut_result(world: World, upstream: Hostile) -> str:
    upstream.script("/many", answer(200, json.dumps([{"n": n} for n in range(200)]).encode(), JSON))
    row = {"name": "many", "description": "Lists.", "method": "GET", "path": "/many", "max_result_length": 200}
    await world.create({"name": "up", "display_name": "Up", "base_url": upstream.url, "endpoints": [row]})
    found = re.search(r'get_result \{"result_id":"(r_\w+)"', await world.call("up_many"))
    assert found is not None
    return found[1]


async def test_a_kept_result_ends_by_the_new_time_and_is_there_again_when_the_clock_is_right(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path) as world:
        id = await cut_result(world, upstream)
        with clock_set(-5):
            assert '{"n":199}' in await world.call("get_result", result_id=id, find="199")
        with clock_set(5):
            assert "[result_expired]" in await world.call("get_result", result_id=id)
        assert '{"n":199}' in await world.call("get_result", result_id=id, find="199")


async def test_a_sweep_while_the_clock_is_ahead_takes_kept_results_and_never_keys(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path) as world, served(world) as url, http(url, await world.key(days=1)) as client:
        id = await cut_result(world, upstream)
        with clock_set(50):
            assert (await client.get(INTEGRATIONS)).status_code == 401
            await swept(world)
        assert (await client.get(INTEGRATIONS)).status_code == 200
        assert "[result_expired]" in await world.call("get_result", result_id=id)


async def test_a_key_ends_by_the_new_time_and_lives_again_when_the_clock_is_right(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world) as url, http(url, await world.key(days=1)) as client:
        for hours, status in [(-50, 200), (23, 200), (25, 401), (0, 200)]:
            with clock_set(hours):
                assert (await client.get(INTEGRATIONS)).status_code == status, hours


async def test_an_access_token_ends_by_the_new_time_and_is_refused_before_it_begins(tmp_path: Path) -> None:
    async with (
        issuer() as idp,
        gateway(tmp_path, **idp.settings()) as world,
        served(world) as url,
        http(url, idp.token(aud=REST)) as client,
        http(url, idp.token(aud=REST, sub="user-2")) as unseen,
    ):
        assert (await client.get(INTEGRATIONS)).status_code == 200
        with clock_set(5):
            ended = await client.get(INTEGRATIONS)
            assert (ended.status_code, "expired" in ended.text) == (401, True)
        with clock_set(-5):
            early = await unseen.get(INTEGRATIONS)
            assert (early.status_code, "isn't valid yet" in early.text) == (401, True)
        assert [(await c.get(INTEGRATIONS)).status_code for c in (client, unseen)] == [200, 200]


async def deleted(shop: Rest) -> Outcome:
    return await shop.world.app.toolbox.call(shop.world.owner, "shop_delete_item", {"id": "7"})


def approval_in(outcome: Outcome) -> str:
    found = re.search(r"\(approval (a_[0-9a-f]{16}), valid 15 minutes\)", outcome.text)
    assert found is not None, outcome.text
    return found[1]


@BOTH
async def test_an_approval_that_was_given_before_a_step_lets_nothing_through_after_it(shop: Rest, hours: int) -> None:
    """Also when the clock is set back: an approval never lasts for longer than it was given for."""
    await shop.create(approval_policy="writes")
    id = approval_in(await deleted(shop))
    await shop.world.app.approval_admin.approve(shop.world.owner, id)
    with clock_set(hours):
        assert approval_in(await deleted(shop)) != id
    assert shop.sent == []


@BOTH
async def test_an_approval_that_waited_before_a_step_is_asked_for_again_after_it(shop: Rest, hours: int) -> None:
    admin = shop.world.app.approval_admin
    await shop.create(approval_policy="writes")
    id = approval_in(await deleted(shop))
    with clock_set(hours):
        assert await admin.list(shop.world.owner) == []
        with pytest.raises(NotFound):
            await admin.approve(shop.world.owner, id)
        await admin.approve(shop.world.owner, approval_in(await deleted(shop)))
        assert not (await deleted(shop)).is_error
    assert shop.sent == ["DELETE /items/7"]


async def test_a_fhir_cursor_ends_by_the_new_time_and_leads_on_when_the_clock_is_right(
    tmp_path: Path, upstream: Hostile
) -> None:
    async with gateway(tmp_path) as world:
        upstream.script("/fhir/metadata", fhir(200, statement()))
        more = f"{upstream.url}/fhir/Patient?page=2"
        upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), total=2, next=more)))
        await integration(world, upstream, search() | {"max_result_length": 400})
        found = re.search(r'"cursor":"([^"]+)"', await world.call("ehr_find", _count=1))
        assert found is not None
        upstream.script("/fhir/Patient", fhir(200, bundle(patient("2"), total=2)))
        with clock_set(5):
            assert "older than an hour" in await world.call("ehr_find", _count=1, cursor=found[1])
        for hours in (-5, 0):
            with clock_set(hours):
                assert '"id":"2"' in await world.call("ehr_find", _count=1, cursor=found[1]), hours


@BOTH
async def test_a_callers_idempotency_key_stays_bound_through_a_step(
    tmp_path: Path, upstream: Hostile, hours: int
) -> None:
    """A step of less than its day."""
    upstream.script("/do", answer(200, b"1", JSON))
    n = {"type": "object", "properties": {"n": {"type": "integer"}}}
    row = {"name": "do", "description": "Does.", "method": "POST", "path": "/do", "input_schema": n}
    async with gateway(tmp_path) as world:
        await world.create({"name": "up", "display_name": "Up", "base_url": upstream.url, "endpoints": [row]})
        context = CallContext(idempotency_key="k1")
        assert not (await world.app.toolbox.call(world.owner, "up_do", {"n": 1}, context)).is_error
        with clock_set(hours):
            await swept(world)
            same = await world.app.toolbox.call(world.owner, "up_do", {"n": 1}, context)
            other = await world.app.toolbox.call(world.owner, "up_do", {"n": 2}, context)
        assert (same.is_error, "was used" in other.text) == (False, True)
    assert len({r.header("idempotency-key") for r in upstream.received}) == 1
    assert len(upstream.received) == 2


@BOTH
async def test_a_background_call_that_ended_can_be_read_through_a_step_and_is_never_sent_again(
    tmp_path: Path, upstream: Hostile, hours: int
) -> None:
    upstream.script("/export", answer(200, DONE, JSON))
    async with gateway(tmp_path, **settings()) as world:
        tool = await write(world, upstream)
        context = CallContext(idempotency_key="k1")
        first = await world.app.toolbox.call(world.owner, tool, {}, context)
        found = re.search(r'"result_id":"(c_\w+)"', first.text)
        assert found is not None, first.text
        assert json.loads((await ended(world, found[1])).text) == json.loads(DONE)
        with clock_set(hours):
            await swept(world)
            assert json.loads((await ended(world, found[1])).text) == json.loads(DONE)
            await world.app.toolbox.call(world.owner, tool, {}, context)
            assert world.app.worker is not None
            await world.app.worker.look()
        await world.app.worker.drain(10)
    assert len(upstream.received) == 1
