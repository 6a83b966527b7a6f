"""History written behind: recording costs an append, survives an outage within its bound, and is forgotten by age."""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.calls import HistoryRules, WrittenBehind
from server.store.database import open_database
from server.store.history import MAX_ARGUMENTS, SqlHistory
from tests.rest import rest_world
from tests.world import listening
from tools.errors import StorageUnavailable
from tools.history import AuditQuery, AuditRecord, CallQuery, CallRecord, without_secrets

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EVERYTHING = frozenset[Any]({"integration", "api_key", "secret"})


def call(n: int, at: datetime = NOW, **more: Any) -> CallRecord:
    row = {"tool": "shop_get_item", "integration": "i", "status": 200, "error_code": None, "ms": 1.5, "attempts": 1}
    return CallRecord(at, "Acme", "key_1", "key", f"c_{n}", **{**row, "bytes": 10, **more})


def change(n: int, at: datetime = NOW, **more: Any) -> AuditRecord:
    row = {"action": "integration.update", "kind": "integration", "target": f"i{n}", "name": "shop"}
    return AuditRecord(
        at, "acme", "key_1", "key", **{**row, **more}, changes=[{"at": "/x", "before": n, "after": None}]
    )


@pytest.fixture
async def store(database_url: str) -> AsyncGenerator[SqlHistory, None]:
    async with open_database(database_url) as database:
        yield SqlHistory(database)


class Outage(SqlHistory):
    """A registry that is out until it is mended; `batches` are the sizes that were written."""

    def __init__(self) -> None:
        self.out, self.batches, self.rows = True, list[int](), list[CallRecord]()

    async def append(self, made: Sequence[CallRecord], changed: Sequence[AuditRecord]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.out:
            raise StorageUnavailable("out")
        self.batches.append(len(made))
        self.rows += made


async def test_what_was_recorded_is_read_back_newest_first(store: SqlHistory) -> None:
    history = WrittenBehind(store, HistoryRules())
    rows = [call(1, arguments={"id": "7"}), call(2, status=None, error_code="outcome_unknown", integration=None)]
    for row in rows:
        history.call(row)
    history.change(change(1))
    found = await history.calls("ACME", CallQuery())
    assert [(r.call_id, r.status, r.error_code, r.arguments, r.at) for r in found] == [
        ("c_2", None, "outcome_unknown", None, NOW),
        ("c_1", 200, None, {"id": "7"}, NOW),
    ]
    changes = await history.changes("acme", AuditQuery(EVERYTHING))
    assert [(r.target, r.changes) for r in changes] == [("i1", [{"at": "/x", "before": 1, "after": None}])]
    assert await history.calls("other", CallQuery()) == []


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (CallQuery(), ["c_3", "c_2", "c_1"]),
        (CallQuery(limit=1), ["c_3"]),
        (CallQuery(tool="b"), ["c_2"]),
        (CallQuery(failed=True), ["c_3"]),
        (CallQuery(failed=False), ["c_2", "c_1"]),
        (CallQuery(integration="j"), ["c_3"]),
        (CallQuery(integrations=frozenset({"i"})), ["c_2", "c_1"]),
        (CallQuery(integrations=frozenset()), []),
        (CallQuery(tools=frozenset({"a"})), ["c_3", "c_1"]),
        (CallQuery(integration="j", integrations=frozenset({"i"})), []),
    ],
)
async def test_calls_are_filtered_and_narrowed(store: SqlHistory, query: CallQuery, ids: list[str]) -> None:
    rows = [call(1, tool="a"), call(2, tool="b"), call(3, tool="a", integration="j", error_code="upstream_404")]
    await store.append(rows, [])
    assert [row.call_id for row in await store.calls("acme", query)] == ids


async def test_no_row_is_lost_or_written_twice_through_an_outage() -> None:
    store = Outage()
    history = WrittenBehind(store, HistoryRules())
    for n in range(1200):
        history.call(call(n))
    with pytest.raises(StorageUnavailable):
        await history.flush()
    store.out = False
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(history.flush)
        history.call(call(1200))
    await history.flush()
    assert [row.call_id for row in store.rows] == [f"c_{n}" for n in range(1201)]
    assert max(store.batches) <= 500


async def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    history = WrittenBehind(Outage(), HistoryRules(queue=10))
    for n in range(25):
        history.call(call(n))
        history.change(change(n))
    assert history.dropped == 30


async def test_zero_days_keep_no_calls_and_all_changes(store: SqlHistory) -> None:
    history = WrittenBehind(store, HistoryRules(calls_days=0))
    history.call(call(1))
    history.change(change(1))
    assert await history.calls("acme", CallQuery()) == []
    assert len(await history.changes("acme", AuditQuery(EVERYTHING))) == 1


async def test_rows_are_forgotten_when_they_are_older_than_the_settings_say(store: SqlHistory) -> None:
    ages = [timedelta(days=days) for days in (0, 29, 31, 364, 366)]
    await store.append(
        [call(n, NOW - age) for n, age in enumerate(ages)], [change(n, NOW - a) for n, a in enumerate(ages)]
    )
    history = WrittenBehind(store, HistoryRules(calls_days=30, audit_days=365), now=lambda: NOW)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.run)
        with anyio.fail_after(10):
            while len(await store.calls("acme", CallQuery())) != 2:
                await anyio.lowlevel.checkpoint()
            while len(await store.changes("acme", AuditQuery(EVERYTHING))) != 4:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert [row.call_id for row in await store.calls("acme", CallQuery())] == ["c_1", "c_0"]


async def test_what_a_caller_wrote_cant_break_the_row(store: SqlHistory) -> None:
    odd = [call(1, tool="x\x00\ud800" * 200), call(2, arguments={"text": "a" * MAX_ARGUMENTS})]
    await store.append(odd, [change(1, name="\x00")])
    long, strange = await store.calls("acme", CallQuery())
    assert long.arguments is None
    assert len(strange.tool) == 128


def test_members_with_secret_looking_names_are_masked_at_any_depth() -> None:
    given = {"id": 1, "apiKey": "a", "items": [{"password": {"x": 1}, "name": "n"}]}
    assert without_secrets(given) == {
        "id": 1,
        "apiKey": "[secret]",
        "items": [{"password": "[secret]", "name": "n"}],
    }


async def test_a_cancelled_call_is_recorded(tmp_path: Path) -> None:
    arrived, over = anyio.Event(), anyio.Event()

    async def slow(_: Request) -> JSONResponse:
        arrived.set()
        await over.wait()
        return JSONResponse({})

    async with rest_world(tmp_path) as rest, listening(Starlette(routes=[Route("/items/{id}", slow)])) as upstream:
        await rest.create(base_url=upstream)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: rest.world.call("shop_get_item", id="1"))
                await arrived.wait()
                tasks.cancel_scope.cancel()
            over.set()
        rows = await rest.world.app.history.calls("acme", CallQuery())
    assert [(row.error_code, row.tool) for row in rows] == [("cancelled", "shop_get_item")]


async def test_what_was_recorded_is_written_when_the_gateway_ends(tmp_path: Path) -> None:
    async with rest_world(tmp_path) as rest:
        await rest.create()
        for n in range(3):
            await rest.world.call("shop_get_item", id=str(n + 1))
    async with open_database(f"sqlite:///{tmp_path / 'registry.db'}") as database:
        assert len(await SqlHistory(database).calls("acme", CallQuery())) == 3
        assert len(await SqlHistory(database).changes("acme", AuditQuery(EVERYTHING))) == 1
