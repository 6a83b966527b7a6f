"""What the registry promises, on SQLite and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from server.store.database import Database, open_database
from server.store.registry import SqlRegistry
from tools.errors import NameTaken, NotFound, VersionMismatch
from tools.models import AuthConfig, Binding, EndpointConfig, Integration
from tools.registry import ListQuery, Registry, SecretRecord

pytestmark = pytest.mark.anyio
pytest_plugins = ("tests.postgres",)

MORNING = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def registry(database: Database) -> Registry:
    return SqlRegistry(database)


def integration(number: int = 1, **fields: Any) -> Integration:
    moment = MORNING + timedelta(minutes=number)
    given = {
        "id": str(UUID(int=number)),
        "workspace_id": "Acme",
        "name": f"system-{number}",
        "display_name": f"System {number}",
        "created_at": moment,
        "updated_at": moment,
    }
    return Integration.model_validate({**given, **fields})


async def test_what_is_inserted_comes_back_whole(registry: Registry) -> None:
    written = integration(
        protocol="fhir",
        base_url="https://fhir.example",
        auth=AuthConfig(type="bearer_token", token_ssm_param_path="/gw/Acme/integrations/1/token"),
        endpoints=[
            EndpointConfig(
                name="search",
                description="Finds \x00 things",
                path="/x/{id}",
                input_schema={"type": "object", "z": None, "properties": {"b": {"default": None}, "a": {}}},
                response_filter=("a.b",),
                timeout_seconds=2.5,
            )
        ],
        bindings={
            "/gw/Acme/integrations/1/token": Binding(version="v1", origins=("https://fhir.example:443",), owned=True)
        },
        last_test_status="healthy",
        last_tested_at=MORNING,
    )
    await registry.insert(written, {})
    read = await registry.get("acme", written.name)
    assert read == written
    assert list(read.endpoints[0].input_schema["properties"]) == ["b", "a"]  # key order is part of what agents see


async def test_moments_come_back_in_utc_to_the_microsecond(registry: Registry) -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    await registry.insert(integration(created_at=MORNING.astimezone(there)), {})
    read = await registry.get("Acme", "system-1")
    assert read.created_at == MORNING
    assert read.created_at.utcoffset() == timedelta(0)


async def test_an_integration_is_found_by_id_before_name(registry: Registry) -> None:
    first, second = integration(1), integration(2, name=str(UUID(int=1)))
    await registry.insert(first, {})
    await registry.insert(second, {})
    assert (await registry.get("Acme", first.id)).id == first.id


async def test_a_workspace_keeps_the_id_it_was_first_written_with(registry: Registry) -> None:
    assert await registry.ensure_workspace("Acme") == "Acme"
    assert await registry.ensure_workspace("ACME") == "Acme"
    await registry.insert(integration(workspace_id="aCME"), {})
    assert (await registry.get("acme", "system-1")).workspace_id == "Acme"


async def test_a_workspace_that_was_never_written_is_empty_at_version_0(registry: Registry) -> None:
    assert await registry.version("nobody") == 0
    assert await registry.load("nobody") == (0, ())
    assert await registry.page("nobody", ListQuery()) == await registry.page("nobody", ListQuery(search="x"))
    with pytest.raises(NotFound):
        await registry.get("nobody", "system-1")


async def test_another_workspace_sees_nothing(registry: Registry) -> None:
    await registry.insert(integration(), {})
    id = integration().id
    await registry.ensure_workspace("other")
    with pytest.raises(NotFound):
        await registry.get("other", id)
    with pytest.raises(NotFound):
        await registry.replace(integration(workspace_id="other"), 1, {})
    with pytest.raises(NotFound):
        await registry.delete("other", id, None, {})
    with pytest.raises(NotFound):
        await registry.record_test("other", id, MORNING, "healthy")
    assert (await registry.page("other", ListQuery())).total == 0
    assert (await registry.get("Acme", id)).version == 1


async def test_every_write_raises_its_workspace_s_version_and_no_other_s(registry: Registry) -> None:
    await registry.insert(integration(9, workspace_id="other"), {})
    other = await registry.version("other")
    seen = [await registry.version("acme")]
    await registry.insert(integration(), {})
    seen.append(await registry.version("acme"))
    await registry.replace(integration(enabled=False), 1, {})
    seen.append(await registry.version("acme"))
    await registry.delete("acme", integration().id, 2, {})
    seen.append(await registry.version("acme"))
    assert seen == sorted(set(seen))
    assert await registry.version("other") == other


async def test_a_refused_write_raises_no_version(registry: Registry) -> None:
    await registry.insert(integration(), {})
    before = await registry.version("acme")
    with pytest.raises(NameTaken):
        await registry.insert(integration(2, name="system-1"), {})
    with pytest.raises(VersionMismatch):
        await registry.replace(integration(), 7, {"/gw/a/b": MORNING})
    with pytest.raises(VersionMismatch):
        await registry.delete("acme", integration().id, 7, {"/gw/a/b": MORNING})
    assert await registry.version("acme") == before
    assert await registry.due_sweeps(MORNING) == []


async def test_a_name_is_free_again_after_a_delete_and_in_another_workspace(registry: Registry) -> None:
    await registry.insert(integration(1), {})
    await registry.insert(integration(2, name="system-1", workspace_id="other"), {})
    await registry.delete("acme", integration(1).id, None, {})
    await registry.insert(integration(3, name="system-1"), {})
    assert (await registry.get("acme", "system-1")).id == integration(3).id


async def test_of_twenty_inserts_of_one_name_at_once_one_wins(registry: Registry) -> None:
    attempts = (registry.insert(integration(n, name="wanted"), {}) for n in range(1, 21))
    ends = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["NameTaken"] * 19 + ["NoneType"]
    assert (await registry.page("acme", ListQuery())).total == 1


async def test_of_ten_replacements_of_one_version_one_wins_and_ten_inserts_all_count(registry: Registry) -> None:
    await asyncio.gather(*(registry.insert(integration(n), {}) for n in range(1, 11)))
    before = await registry.version("acme")
    assert before == 11  # 1 for the workspace, 1 for each write: none was lost
    changed = (registry.replace(integration(display_name=f"by {n}"), 1, {}) for n in range(10))
    ends = await asyncio.gather(*changed, return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["NoneType"] + ["VersionMismatch"] * 9
    assert (await registry.get("acme", "system-1")).version == 2
    assert await registry.version("acme") == before + 1


async def test_a_replaced_row_counts_its_own_version_and_keeps_its_last_test(registry: Registry) -> None:
    await registry.insert(integration(), {})
    before = await registry.version("acme")
    await registry.record_test("acme", integration().id, MORNING, "auth_failed")
    assert await registry.version("acme") == before
    await registry.replace(integration(version=40, display_name="New"), 1, {})
    read = await registry.get("acme", "system-1")
    assert (read.version, read.display_name) == (2, "New")
    assert (read.last_tested_at, read.last_test_status) == (MORNING, "auth_failed")


async def test_load_gives_everything_by_name(registry: Registry) -> None:
    for number, name in enumerate(["b-x", "a_x", "a-x", "aa"], 1):
        await registry.insert(integration(number, name=name), {})
    version, loaded = await registry.load("acme")
    assert [i.name for i in loaded] == ["a-x", "a_x", "aa", "b-x"]
    assert version == await registry.version("acme")


LISTED = [
    # number, name, display_name, protocol, enabled
    (1, "clinic", "Ärzte_Haus", "fhir", True),
    (2, "billing", "ABRECHNUNG 100%", "rest", True),
    (3, "archive", "straße", "rest", False),
    (4, "zoo", "abrechnung 2", "mcp", True),
]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        (ListQuery(), [4, 3, 2, 1]),
        (ListQuery(descending=False), [1, 2, 3, 4]),
        (ListQuery(sort="name", descending=False), [3, 2, 1, 4]),
        (ListQuery(sort="display_name", descending=False), [2, 4, 3, 1]),
        (ListQuery(sort="display_name", descending=True), [1, 3, 4, 2]),
        (ListQuery(sort="updated_at", limit=2, offset=1), [3, 2]),
        (ListQuery(offset=9), []),
        (ListQuery(enabled=False), [3]),
        (ListQuery(enabled=True, protocol="rest"), [2]),
        (ListQuery(protocol="soap"), []),
        (ListQuery(search="abRECHnung"), [4, 2]),
        (ListQuery(search="ÄRZTE"), [1]),
        (ListQuery(search="ärzte_h"), [1]),
        (ListQuery(search="e_z"), []),  # _ is no wildcard
        (ListQuery(search="0%"), [2]),
        (ListQuery(search="%"), [2]),
        (ListQuery(search="STRASSE"), [3]),
        (ListQuery(search="/"), []),
        (ListQuery(search="\x00"), []),
        (ListQuery(search="ICH"), []),
        (ListQuery(search="cLin"), [1]),
        (ListQuery(search="0000-000000000003"), [3]),
        (ListQuery(search="clinicärzte"), []),
        (ListQuery(ids=frozenset({str(UUID(int=2)), str(UUID(int=4))})), [4, 2]),
        (ListQuery(ids=frozenset()), []),
    ],
)
async def test_lists_filter_sort_and_page(registry: Registry, query: ListQuery, numbers: list[int]) -> None:
    for number, name, display_name, protocol, enabled in LISTED:
        await registry.insert(
            integration(number, name=name, display_name=display_name, protocol=protocol, enabled=enabled), {}
        )
    page = await registry.page("acme", query)
    assert [UUID(i.id).int for i in page.items] == numbers
    if query.offset == 0 and query.limit == 10:
        assert page.total == len(numbers)


async def test_pages_of_equal_sort_keys_hold_each_row_once(registry: Registry) -> None:
    for number in range(1, 8):
        await registry.insert(integration(number, display_name="Same", created_at=MORNING, updated_at=MORNING), {})
    for sort in ("display_name", "created_at", "updated_at"):
        pages = [await registry.page("acme", ListQuery(sort=sort, limit=2, offset=o)) for o in (0, 2, 4, 6)]
        assert [UUID(i.id).int for page in pages for i in page.items] == [7, 6, 5, 4, 3, 2, 1]
        assert {page.total for page in pages} == {7}


# -- secrets

LATER = MORNING + timedelta(minutes=10)


def bound(number: int, **versions: str | None) -> Integration:
    return integration(number, bindings={f"/gw/acme/{name}": Binding(version=v) for name, v in versions.items()})


async def test_references_follow_the_row(registry: Registry) -> None:
    one, two = integration(1).id, integration(2).id
    await registry.insert(bound(1, a="v1", shared=None), {})
    await registry.insert(bound(2, shared=None), {})
    assert await registry.secret_versions("/gw/acme/a") == {"v1"}
    assert await registry.secret_versions("/gw/acme/shared") == set()
    assert await registry.secret_users("/gw/acme/shared") == {one, two}
    await registry.replace(bound(1, a="v2"), 1, {})
    assert await registry.secret_versions("/gw/acme/a") == {"v2"}
    assert await registry.secret_users("/gw/acme/shared") == {two}
    await registry.delete("acme", one, 2, {})
    assert await registry.secret_versions("/gw/acme/a") == set()
    assert await registry.secret_users("/gw/acme/a") == set()


async def test_a_sweep_is_due_until_it_is_done(registry: Registry) -> None:
    await registry.schedule_sweep(["/gw/a/b", "/gw/a/a", "/gw/a/a"], MORNING)
    assert await registry.due_sweeps(MORNING - timedelta(microseconds=1)) == []
    assert await registry.due_sweeps(MORNING) == ["/gw/a/a", "/gw/a/b"]
    await registry.sweep_done("/gw/a/a", MORNING)
    assert await registry.due_sweeps(LATER) == ["/gw/a/b"]


async def test_a_sweep_scheduled_anew_meanwhile_is_not_forgotten(registry: Registry) -> None:
    await registry.schedule_sweep(["/gw/a/a"], MORNING)
    await registry.schedule_sweep(["/gw/a/a"], LATER)
    await registry.sweep_done("/gw/a/a", MORNING)
    assert await registry.due_sweeps(LATER) == ["/gw/a/a"]


async def test_scheduling_never_brings_a_sweep_forward(registry: Registry) -> None:
    await registry.schedule_sweep(["/gw/a/a"], LATER)
    await registry.schedule_sweep(["/gw/a/a"], MORNING)
    assert await registry.due_sweeps(MORNING) == []


@pytest.mark.parametrize("verb", ["insert", "replace", "delete"])
async def test_sweeps_are_set_by_the_write_itself(registry: Registry, verb: str) -> None:
    if verb != "insert":
        await registry.insert(integration(), {})
    await registry.schedule_sweep(["/gw/a/gone", "/gw/a/moved"], LATER)
    sweeps = {"/gw/a/gone": None, "/gw/a/moved": MORNING, "/gw/a/new": MORNING}
    match verb:
        case "insert":
            await registry.insert(integration(), sweeps)
        case "replace":
            await registry.replace(integration(), 1, sweeps)
        case _:
            await registry.delete("acme", integration().id, 1, sweeps)
    assert await registry.due_sweeps(MORNING) == ["/gw/a/moved", "/gw/a/new"]
    assert await registry.due_sweeps(LATER) == ["/gw/a/moved", "/gw/a/new"]


async def test_records_of_stored_secrets_are_kept_by_path(registry: Registry) -> None:
    mine = SecretRecord("/gw/acme/shared/b", "Acme", ("https://a:443", "https://b:443"), MORNING, MORNING)
    operators = SecretRecord("/gw/a", None, (), MORNING, LATER)
    await registry.put_secret_record(mine)
    await registry.put_secret_record(operators)
    assert await registry.secret_record(mine.path) == mine
    assert await registry.secret_record("/gw/none") is None
    assert await registry.secret_records("ACME") == [mine]
    assert await registry.secret_records("other") == []
    assert await registry.secret_records(None) == [operators, mine]
    changed = SecretRecord(mine.path, "Acme", (), MORNING, LATER)
    await registry.put_secret_record(changed)
    assert await registry.secret_records("Acme") == [changed]
    await registry.delete_secret_record(mine.path)
    await registry.delete_secret_record(mine.path)
    assert await registry.secret_records(None) == [operators]
