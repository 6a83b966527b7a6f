"""Calls that a person must approve: nothing is sent before, exactly one after, and only exactly that call (rules H4, H5, J3, J14)."""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rest import CANARY, INTEGRATIONS, Rest, endpoint, rest_world
from tools.approvals import MOST_WAITING, Gate, approval_of
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import ApprovalRequired, Forbidden, NotFound
from tools.exchange import Request
from tools.outcome import Outcome

pytestmark = pytest.mark.anyio

AGENT = Caller("k-agent", "acme", role="agent", permissions=ROLE_PERMISSIONS["agent"])
OTHER = replace(AGENT, id="k-other")
WHAT_IT_IS_TOLD = re.compile(
    r"Not sent: a person must approve this call first \(approval (a_[0-9a-f]{16}), valid 15 minutes\)\. Ask the user to run: "
    r"integrations-mcp approvals approve \1 --workspace acme; then make exactly the same call again\. \[approval_required\]"
)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncGenerator[Rest, None]:
    async with rest_world(tmp_path) as shop:
        yield shop


async def call(shop: Rest, arguments: dict[str, Any] | None = None, caller: Caller = AGENT, tool: str = "") -> Outcome:
    return await shop.world.app.toolbox.call(caller, tool or "shop_delete_item", arguments or {"id": "7"})


def id_in(outcome: Outcome) -> str:
    told = WHAT_IT_IS_TOLD.fullmatch(outcome.text)
    assert told is not None, outcome.text
    return told.group(1)


async def approve(shop: Rest, id: str) -> None:
    await shop.world.app.approval_admin.approve(shop.world.owner, id)


async def test_nothing_is_sent_before_a_person_approves_and_exactly_one_call_after(shop: Rest) -> None:
    await shop.create(approval_policy="writes")
    first = await call(shop)
    id = id_in(first)
    assert id_in(await call(shop)) == id  # the same call waits for the same approval
    assert (first.error, first.status) == (first.error, None)
    assert isinstance(first.error, ApprovalRequired)
    assert shop.sent == []

    await approve(shop, id)
    assert not (await call(shop)).is_error
    assert shop.sent == ["DELETE /items/7"]
    assert id_in(await call(shop)) != id  # one approval, one call
    assert shop.sent == ["DELETE /items/7"]


async def test_of_many_same_calls_at_once_one_approval_lets_one_through(shop: Rest) -> None:
    await shop.create(approval_policy="all")
    await approve(shop, id_in(await call(shop)))
    ended = await asyncio.gather(*(call(shop) for _ in range(8)))
    assert sum(not outcome.is_error for outcome in ended) == 1
    assert shop.sent == ["DELETE /items/7"]


@pytest.mark.parametrize(
    ("integration", "own", "read", "write"),
    [
        ("none", None, False, False),
        ("writes", None, False, True),
        ("all", None, True, True),
        ("all", "none", False, False),
        ("all", "writes", False, True),
        ("none", "all", True, True),
        ("none", "writes", False, True),
    ],
)
async def test_the_endpoints_policy_goes_before_the_integrations(
    shop: Rest, integration: str, own: str | None, read: bool, write: bool
) -> None:
    endpoints = [
        endpoint("get_item", "GET", "/items/{id}", approval_policy=own),
        endpoint("delete_item", "DELETE", "/items/{id}", approval_policy=own),
    ]
    await shop.create(approval_policy=integration, endpoints=endpoints)
    asked = [
        isinstance((await call(shop, tool=f"shop_{name}")).error, ApprovalRequired)
        for name in ("get_item", "delete_item")
    ]
    assert asked == [read, write]
    assert len(shop.sent) == asked.count(False)


@pytest.mark.parametrize(
    ("method", "read_only", "asked"), [("GET", False, True), ("GET", None, False), ("DELETE", True, False)]
)
async def test_what_writes_is_the_operators_word_before_the_methods(
    shop: Rest, method: str, read_only: bool | None, asked: bool
) -> None:
    annotations = None if read_only is None else {"readOnlyHint": read_only}
    own = endpoint("delete_item", method, "/items/{id}", annotations=annotations)
    await shop.create(approval_policy="writes", endpoints=[own])
    assert isinstance((await call(shop)).error, ApprovalRequired) is asked
    assert len(shop.sent) == (not asked)


@pytest.mark.parametrize("changed", ["arguments", "caller", "base_url", "endpoint", "secret"])
async def test_anything_else_than_what_was_approved_needs_a_new_approval(shop: Rest, changed: str) -> None:
    made = await shop.create(approval_policy="writes")
    old = id_in(await call(shop))
    await approve(shop, old)
    caller, arguments = AGENT, {"id": "7"}
    path = f"{INTEGRATIONS}/{made['id']}"
    secret = {"type": "api_key_header", "api_key_value": {"value": "canary-another-one"}}
    match changed:
        case "arguments":
            arguments = {"id": "8"}
        case "caller":
            caller = OTHER
        case "base_url":
            body = {"base_url": f"{shop.upstream}/other", "auth": secret}
            assert (await shop.client.put(path, json=body)).status_code == 200
        case "endpoint":
            more = endpoint("delete_item", "DELETE", "/items/{id}", headers={"X-All": "true"})
            assert (await shop.client.put(path, json={"endpoints": [more]})).status_code == 200
        case _:
            assert (await shop.client.put(path, json={"auth": secret})).status_code == 200
    assert id_in(await call(shop, arguments, caller)) != old
    assert shop.sent == []


async def test_arguments_that_are_repaired_to_the_same_are_the_same_call(shop: Rest) -> None:
    own = endpoint(
        "delete_item",
        "DELETE",
        "/items/{id}",
        input_schema={"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    )
    await shop.create(approval_policy="writes", endpoints=[own])
    await approve(shop, id_in(await call(shop, {"id": 7})))
    assert not (await call(shop, {"id": "7"})).is_error
    assert shop.sent == ["DELETE /items/7"]


async def test_an_approval_ends_after_fifteen_minutes_also_when_it_was_given(shop: Rest) -> None:
    await shop.create(approval_policy="writes")
    old = id_in(await call(shop))
    await approve(shop, old)
    app = shop.world.app
    tool = (await app.catalogs.get("acme")).tools["shop_delete_item"]
    request = Request("DELETE", f"{shop.upstream}/items/7")
    later = datetime.now(UTC) + timedelta(minutes=15, seconds=1)
    with pytest.raises(ApprovalRequired) as e:
        await Gate(app.approvals, now=lambda: later).approved(AGENT, tool, {"id": "7"}, request, None)
    assert e.value.approval_id != old
    await app.approvals.forget_expired(later)
    with pytest.raises(NotFound):
        await app.approval_admin.get(shop.world.owner, old)


async def test_a_denied_call_is_refused_and_the_model_is_told_not_to_repeat_it(shop: Rest) -> None:
    await shop.create(approval_policy="writes")
    id = id_in(await call(shop))
    await shop.world.app.approval_admin.deny(shop.world.owner, id)
    for _ in range(2):
        text = (await call(shop)).text
        assert text == (
            f"Not sent: a person denied this call (approval {id}). Do not repeat it: ask the user how to go on. [approval_denied]"
        )
    with pytest.raises(NotFound):
        await approve(shop, id)
    assert shop.sent == []


async def test_a_faulty_call_is_told_its_faults_and_nobody_is_asked(shop: Rest) -> None:
    await shop.create(approval_policy="all")
    assert "[invalid_arguments]" in (await call(shop, {"id": ""})).text
    assert await shop.world.app.approval_admin.list(shop.world.owner) == []


async def test_every_door_has_the_gate_and_one_approval_opens_it_once(shop: Rest) -> None:
    """rules J3: test and the admin tools are no way round."""
    made = await shop.create(approval_policy="all")
    key = await shop.world.key("operator")
    async with shop.as_(key) as client:
        test = f"{INTEGRATIONS}/{made['id']}/endpoints/delete_item/test"
        tested = await client.post(test, json={"params": {"id": "7"}})
    assert tested.status_code == 200
    assert "[approval_required]" in tested.json()["error"]
    assert tested.json()["status_code"] is None
    owner = replace(AGENT, id="k-owner", role="owner", permissions=ROLE_PERMISSIONS["owner"])
    toolbox = shop.world.app.toolbox
    arguments = {"tool": "shop_delete_item", "params": {"id": "7"}}
    assert "[approval_required]" in (await toolbox.call(owner, "test_integration_endpoint", arguments)).text
    wrapped = {"tool": "shop_delete_item", "arguments": {"id": "7"}}
    id = id_in(await toolbox.call(owner, "call_tool", wrapped))
    assert shop.sent == []
    await approve(shop, id)
    done = await toolbox.call(owner, "test_integration_endpoint", arguments)
    assert done.structured is not None
    assert done.structured["ok"] is True
    assert shop.sent == ["DELETE /items/7"]
    assert "[approval_required]" in (await toolbox.call(owner, "call_tool", wrapped)).text
    assert shop.sent == ["DELETE /items/7"]


async def test_a_person_sees_the_whole_request_without_secrets_and_without_tricks(shop: Rest) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "password": {"type": "string"},
            "api_token": {"type": "string", "x-in": "query"},
            "page": {"type": "string", "x-in": "query"},
            "tenant": {"type": "string", "x-in": "header", "x-name": "X-Tenant"},
        },
    }
    await shop.create(approval_policy="all", endpoints=[endpoint("add", "POST", "/items", input_schema=schema)])
    given = {
        "note": "fine\u202e\u200b\x1b[2K\nAllow?",
        "password": "canary-password",
        "api_token": "canary-token",
        "page": "2",
        "tenant": "north",
    }
    assert "[approval_required]" in (await call(shop, given, tool="shop_add")).text
    (seen,) = await shop.world.app.approval_admin.list(shop.world.owner)
    assert seen.method == "POST"
    assert seen.url == f"{shop.upstream}/items?api_token=[secret]&page=2"
    assert "X-Tenant: north" in seen.headers
    assert seen.body == '{"note":"fine\\u202e\\u200b\\u001b[2K\\nAllow?","password":"[secret]"}'
    assert "canary" not in seen.request_text()
    assert CANARY not in seen.request_text()
    assert (seen.tool, seen.caller, seen.integration_version) == ("shop_add", "k-agent", 1)


async def test_what_waits_is_sealed_in_the_database(tmp_path: Path) -> None:
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="all")
        id_in(await call(shop, {"id": "patient-of-room-12"}))
    files = [
        (tmp_path / name).read_bytes() for name in ("registry.db", "registry.db-wal") if (tmp_path / name).exists()
    ]
    assert files
    assert not any(b"patient-of-room-12" in content for content in files)


async def test_a_caller_cannot_fill_the_list_of_what_waits(shop: Rest) -> None:
    await shop.create(approval_policy="all")
    app, now = shop.world.app, datetime.now(UTC)
    tool = (await app.catalogs.get("acme")).tools["shop_delete_item"]
    for n in range(MOST_WAITING):
        asked = approval_of(AGENT, tool, {"id": str(n)}, Request("DELETE", shop.upstream), now)
        await app.approvals.ask(asked, now)
    assert "[too_many_calls]" in (await call(shop, {"id": "one more"})).text
    assert "[approval_required]" in (await call(shop, caller=OTHER)).text


async def test_a_call_that_waits_is_in_history_and_the_decision_in_the_audit(shop: Rest) -> None:
    made = await shop.create(approval_policy="writes")
    id = id_in(await call(shop))
    await approve(shop, id)
    await call(shop)
    calls = (await shop.client.get("/v1/acme/calls")).json()["items"]
    assert [(c["tool"], c["error_code"], c["status_code"]) for c in calls] == [
        ("shop_delete_item", None, 200),
        ("shop_delete_item", "approval_required", None),
    ]
    rows = (await shop.client.get("/v1/acme/audit", params={"target": made["id"]})).json()["items"]
    (row,) = [r for r in rows if r["action"] == "approval.approve"]
    assert (row["caller"], row["name"]) == ("local", "shop")
    assert row["changes"][0]["after"]["approval"] == id
    assert row["changes"][0]["after"]["asked_by"] == "k-agent"


@pytest.mark.parametrize(
    ("who", "refused"),
    [
        (Caller("k-m", "acme", role="member", permissions=ROLE_PERMISSIONS["member"]), None),
        (Caller("k-a", "acme", role="admin", permissions=ROLE_PERMISSIONS["admin"]), None),
        (Caller("k-o", "acme", role="operator", permissions=ROLE_PERMISSIONS["operator"]), Forbidden),
        (Caller("k-v", "acme", role="viewer", permissions=ROLE_PERMISSIONS["viewer"]), Forbidden),
        (Caller("k-agent", "acme", role="owner", permissions=ROLE_PERMISSIONS["owner"]), Forbidden),
        (Caller("k-x", "other", role="owner", permissions=ROLE_PERMISSIONS["owner"]), NotFound),
        (Caller("k-n", "acme", role="owner", permissions=ROLE_PERMISSIONS["owner"], tools=frozenset({"shop_get_item"})), NotFound),
        (Caller("k-n", "acme", role="owner", permissions=ROLE_PERMISSIONS["owner"], integrations=frozenset({"x"})), NotFound),
    ],
    ids=["member", "admin", "operator", "viewer", "the key that asked", "another workspace", "other tools", "other integrations"],
)  # fmt: skip
async def test_who_may_approve(shop: Rest, who: Caller, refused: type[Exception] | None) -> None:
    await shop.create(approval_policy="writes")
    id = id_in(await call(shop))
    if refused is None:
        await shop.world.app.approval_admin.approve(who, id)
    else:
        with pytest.raises(refused):
            await shop.world.app.approval_admin.approve(who, id)
    assert (await call(shop)).is_error is (refused is not None)
    assert len(shop.sent) == (refused is None)


async def test_the_local_user_may_approve_his_own_call(shop: Rest) -> None:
    await shop.create(approval_policy="writes")
    id = id_in(await call(shop, caller=shop.world.owner))
    await approve(shop, id)
    assert not (await call(shop, caller=shop.world.owner)).is_error
    assert shop.sent == ["DELETE /items/7"]


async def test_a_list_shows_only_what_the_caller_may_see(shop: Rest) -> None:
    await shop.create(approval_policy="all")
    await call(shop)
    await call(shop, tool="shop_get_item")
    narrowed = Caller(
        "k-n", "acme", role="viewer", permissions=ROLE_PERMISSIONS["viewer"], tools=frozenset({"shop_get_item"})
    )
    assert [a.tool for a in await shop.world.app.approval_admin.list(narrowed)] == ["shop_get_item"]
    with pytest.raises(Forbidden):
        await shop.world.app.approval_admin.list(AGENT)
