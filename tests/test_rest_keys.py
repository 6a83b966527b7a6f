"""API keys, shared secrets and history over HTTP."""

from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rest import CANARY, INTEGRATIONS, Rest, rest_world

pytestmark = pytest.mark.anyio
KEYS, SECRETS, CALLS, AUDIT = "/v1/acme/api-keys", "/v1/acme/secrets", "/v1/acme/calls", "/v1/acme/audit"


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncGenerator[Rest, None]:
    async with rest_world(tmp_path) as found:
        yield found


# ------------------------------------------------------------------ API keys


async def test_a_key_is_shown_once_and_works_until_it_is_ended(rest: Rest) -> None:
    made = await rest.client.post(KEYS, json={"duration_days": 30, "name": "laptop", "role": "operator"})
    body = made.json()
    assert made.status_code == 201
    assert body["permissions"] == ["Integration.execute", "Integration.view"]
    life = datetime.fromisoformat(body["expires_at"]) - datetime.fromisoformat(body["created_at"])
    assert life == timedelta(days=30)
    async with rest.as_(body["api_key"]) as client:
        assert (await client.get(INTEGRATIONS)).status_code == 200
        listed = await rest.client.get(KEYS)
        assert body["api_key"] not in listed.text
        assert listed.json()["items"][0] == {k: v for k, v in body.items() if k != "api_key"} | {
            "last_used_at": listed.json()["items"][0]["last_used_at"]
        }
        assert (await rest.client.delete(f"{KEYS}/{body['key_id']}")).status_code == 204
        assert (await client.get(INTEGRATIONS)).status_code == 401
    assert (await rest.client.delete(f"{KEYS}/{body['key_id']}")).status_code == 404


async def test_rotation_gives_the_same_rights_and_ends_the_old_key_at_once(rest: Rest) -> None:
    shop = await rest.create()
    body = {"duration_days": 30, "role": "agent", "integrations": ["shop"], "tools": ["shop_get_item"]}
    old = (await rest.client.post(KEYS, json=body)).json()
    assert old["integrations"] == [shop["id"]]
    new = (await rest.client.post(f"{KEYS}/{old['key_id']}/rotate")).json()
    assert new["api_key"] != old["api_key"]
    assert {k: new[k] for k in ("role", "permissions", "integrations", "tools")} == {
        k: old[k] for k in ("role", "permissions", "integrations", "tools")
    }
    async with rest.as_(old["api_key"]) as client:
        assert (await client.get(INTEGRATIONS)).status_code == 401
    async with rest.as_(new["api_key"]) as client:
        assert (await client.get(INTEGRATIONS)).status_code == 403  # an agent's: known, and not allowed to list


async def test_keys_are_listed_in_pages_newest_first(rest: Rest) -> None:
    for i in range(3):
        await rest.client.post(KEYS, json={"duration_days": 1, "name": f"k{i}"})
    first = (await rest.client.get(KEYS, params={"limit": 2})).json()
    rest_of = (await rest.client.get(KEYS, params={"continuation_token": first["continuation_token"]})).json()
    assert [k["name"] for k in first["items"]] == ["k2", "k1"]
    assert [k["name"] for k in rest_of["items"]] == ["k0", ""]
    assert (first["has_more"], rest_of["has_more"], rest_of["total"]) == (True, False, 4)


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, ["body", "duration_days"]),
        ({"duration_days": 0}, ["body", "duration_days"]),
        ({"duration_days": 91}, ["body", "duration_days"]),
        ({"duration_days": 1, "role": "god"}, ["body", "role"]),
        ({"duration_days": 1, "role": "viewer", "permissions": ["Secret.write"]}, ["body", "permissions"]),
        ({"duration_days": 1, "integrations": ["nothing"]}, ["body", "integrations", 0]),
        ({"duration_days": 1, "name": "a\u0000b"}, ["body", "name"]),
        ({"duration_days": 1, "colour": "red"}, ["body", "colour"]),
    ],
)
async def test_a_key_that_doesnt_fit_is_refused(rest: Rest, body: dict[str, Any], loc: list[Any]) -> None:
    answer = await rest.client.post(KEYS, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == loc


async def test_nobody_gives_a_key_more_than_his_own(rest: Rest) -> None:
    """rules H4: permissions, role, narrowing and end, on create and on rotate."""
    shop = await rest.create()
    everything = (await rest.client.post(KEYS, json={"duration_days": 90, "role": "owner"})).json()
    own = {"role": "admin", "days": 5, "integrations": [shop["id"]]}
    async with await rest.role(**own) as client:
        for body in (
            {"duration_days": 1, "role": "viewer"},  # not narrowed
            {"duration_days": 6, "role": "viewer", "integrations": ["shop"]},  # outlives
        ):
            answer = await client.post(KEYS, json=body)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "forbidden"), body
        assert (await client.post(f"{KEYS}/{everything['key_id']}/rotate")).status_code == 403
        given = await client.post(KEYS, json={"duration_days": 5 - 1, "role": "viewer", "integrations": ["shop"]})
        assert given.status_code == 201
    async with await rest.role("member") as client:
        assert (await client.post(KEYS, json={"duration_days": 1, "role": "agent"})).status_code == 403
        assert (await client.get(KEYS)).status_code == 403


async def test_a_key_that_rotates_itself_keeps_its_end(rest: Rest) -> None:
    own = (await rest.client.post(KEYS, json={"duration_days": 5, "role": "admin"})).json()
    async with rest.as_(own["api_key"]) as client:
        new = (await client.post(f"{KEYS}/{own['key_id']}/rotate")).json()
    assert new["expires_at"] == own["expires_at"]


# ------------------------------------------------------------------ shared secrets


async def test_a_shared_secret_is_used_by_path_and_never_comes_back(rest: Rest) -> None:
    stored = await rest.client.put(f"{SECRETS}/shop/key", json={"value": CANARY, "origins": [rest.upstream]})
    assert stored.status_code == 200
    path = stored.json()["path"]
    assert path == "/gw/acme/shared/shop/key"
    await rest.create(auth={"type": "api_key_header", "ssm_param_path": path})
    tested = await rest.client.post(f"{INTEGRATIONS}/shop/endpoints/get_item/test", json={"params": {"id": "7"}})
    assert tested.json()["raw_response"]["key"] == "[secret]"  # the upstream got it and echoed it
    listed = await rest.client.get(SECRETS)
    assert [s["name"] for s in listed.json()["items"]] == ["shop/key"]
    assert CANARY not in stored.text + tested.text + listed.text
    assert (await rest.client.delete(f"{SECRETS}/shop/key")).status_code == 204
    assert (await rest.client.delete(f"{SECRETS}/shop/key")).status_code == 404
    after = await rest.client.post(f"{INTEGRATIONS}/shop/endpoints/get_item/test", json={"params": {"id": "7"}})
    assert after.json()["error"]


async def test_a_shared_secret_goes_to_its_own_origins_only(rest: Rest) -> None:
    stored = await rest.client.put(f"{SECRETS}/key", json={"value": CANARY, "origins": ["https://other.example"]})
    auth = {"type": "api_key_header", "ssm_param_path": stored.json()["path"]}
    answer = await rest.client.post(INTEGRATIONS, json=rest.shop(auth=auth))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "secret_rebind_required"


async def test_shared_secrets_are_for_owners_and_admins(rest: Rest) -> None:
    body = {"value": CANARY, "origins": [rest.upstream]}
    for narrowed in ({"role": "member"}, {"role": "admin", "tools": ["x"]}):
        async with await rest.role(**narrowed) as client:
            assert (await client.put(f"{SECRETS}/key", json=body)).status_code == 403
            assert (await client.get(SECRETS)).status_code == 403
            assert (await client.delete(f"{SECRETS}/key")).status_code == 403


@pytest.mark.parametrize(
    ("name", "body", "loc"),
    [
        ("a%20b", {"value": "v", "origins": ["https://a.example"]}, ["path", "name"]),
        ("a//b", {"value": "v", "origins": ["https://a.example"]}, ["path", "name"]),
        ("key:1", {"value": "v", "origins": ["https://a.example"]}, ["path", "name"]),
        ("key", {"value": "", "origins": ["https://a.example"]}, ["body", "value"]),
        ("key", {"value": "é" * 5000, "origins": ["https://a.example"]}, ["body", "value"]),
        ("key", {"value": "v", "origins": []}, ["body", "origins"]),
        ("key", {"value": "v", "origins": ["a.example"]}, ["body", "origins", 0]),
    ],
)
async def test_a_secret_that_doesnt_fit_is_refused_without_an_echo(
    rest: Rest, name: str, body: dict[str, Any], loc: list[Any]
) -> None:
    answer = await rest.client.put(f"{SECRETS}/{name}", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == loc
    assert loc[1] == "name" or "input" not in answer.json()["detail"][0]


# ------------------------------------------------------------------ history


async def test_every_change_is_in_the_audit_with_who_and_what(rest: Rest) -> None:
    made = await rest.create()
    one = f"{INTEGRATIONS}/{made['id']}"
    await rest.client.put(one, json={"display_name": "The shop"})
    await rest.client.put(one, json={"auth": {"type": "api_key_header", "api_key_value": {"value": CANARY + "2"}}})
    await rest.client.put(one, json={"base_url": "http://127.0.0.1:1"})
    await rest.client.delete(one)
    answer = await rest.client.get(AUDIT)
    rows = answer.json()["items"][::-1]
    assert [row["action"] for row in rows] == [
        "integration.create",
        "integration.update",
        "integration.update",
        "integration.update",
        "secret_rebound",
        "integration.delete",
    ]
    assert {(row["caller_kind"], row["target"], row["name"]) for row in rows} == {("key", made["id"], "shop")}
    assert rows[1]["changes"] == [{"at": "/display_name", "before": "Shop", "after": "The shop"}]
    assert [c["at"] for c in rows[2]["changes"]] == [f"secret {made['auth']['ssm_param_path']}"]
    assert rows[4]["changes"][0]["after"] == sorted([rest.upstream, "http://127.0.0.1:1"])
    assert rows[5]["changes"][0]["before"]["display_name"] == "The shop"
    assert CANARY not in answer.text


async def test_a_refused_change_leaves_no_audit_row(rest: Rest) -> None:
    await rest.client.post(INTEGRATIONS, json=rest.shop("BAD"))
    assert (await rest.client.get(AUDIT)).json() == {"items": [], "has_more": False, "continuation_token": None}


async def test_keys_and_secrets_are_audited_for_those_who_may_see_them(rest: Rest) -> None:
    await rest.client.put(f"{SECRETS}/key", json={"value": CANARY, "origins": [rest.upstream]})
    key = (await rest.client.post(KEYS, json={"duration_days": 9})).json()
    answer = await rest.client.get(AUDIT)
    assert [row["action"] for row in answer.json()["items"]] == ["api_key.create", "secret.put"]
    assert CANARY not in answer.text
    assert key["api_key"] not in answer.text
    async with await rest.role("member") as client:
        assert (await client.get(AUDIT)).json()["items"] == []


async def test_every_call_is_in_the_history_with_how_it_ended(rest: Rest) -> None:
    made = await rest.create()
    await rest.world.call("shop_get_item", id="7")
    await rest.world.call("shop_get_item", nonsense=CANARY)
    await rest.world.call("no_such_tool")
    answer = await rest.client.get(CALLS)
    missing, wrong, good = answer.json()["items"]
    assert (good["tool"], good["integration_id"], good["status_code"]) == ("shop_get_item", made["id"], 200)
    assert (good["error_code"], good["attempts"], good["caller"], good["caller_kind"]) == (None, 1, "local", "local")
    assert good["response_bytes"] == len(b'{"id":"7","key":"canary-0123456789","shelf":3}')
    assert (wrong["error_code"], wrong["status_code"], wrong["attempts"]) == ("invalid_arguments", None, 0)
    assert (missing["error_code"], missing["integration_id"]) == ("unknown_tool", None)
    assert all(row["arguments"] is None for row in (missing, wrong, good))
    assert CANARY not in answer.text
    failed = (await rest.client.get(CALLS, params={"outcome": "failed", "tool": "shop_get_item"})).json()
    assert [row["call_id"] for row in failed["items"]] == [wrong["call_id"]]


async def test_history_is_read_in_pages_that_new_rows_dont_move(rest: Rest) -> None:
    await rest.create()
    for i in range(1, 6):
        await rest.world.call("shop_get_item", id=str(i))
    first = (await rest.client.get(CALLS, params={"limit": 2})).json()
    await rest.world.call("shop_get_item", id="6")
    more = {"limit": 4, "continuation_token": first["continuation_token"]}
    second = (await rest.client.get(CALLS, params=more)).json()
    ids = [row["call_id"] for row in first["items"] + second["items"]]
    assert len(set(ids)) == len(ids) == 5
    assert (first["has_more"], second["has_more"], second["continuation_token"]) == (True, False, None)


async def test_a_narrowed_key_reads_the_history_of_its_own_part(rest: Rest) -> None:
    """rules H4."""
    shop, other = await rest.create(), await rest.create("other")
    await rest.world.call("shop_get_item", id="1")
    await rest.world.call("shop_delete_item", id="1")
    await rest.world.call("other_get_item", id="1")
    async with await rest.role("operator", integrations=[shop["id"]]) as client:
        assert {row["tool"] for row in (await client.get(CALLS)).json()["items"]} == {
            "shop_get_item",
            "shop_delete_item",
        }
        assert {row["target"] for row in (await client.get(AUDIT)).json()["items"]} == {shop["id"]}
        asked = await client.get(CALLS, params={"integration": other["id"]})
        assert asked.json()["items"] == []
    async with await rest.role("operator", tools=["other_get_item"]) as client:
        assert {row["tool"] for row in (await client.get(CALLS)).json()["items"]} == {"other_get_item"}
        assert (await client.get(AUDIT)).json()["items"] == []
    async with await rest.role("agent") as client:
        assert (await client.get(CALLS)).status_code == 403


async def test_another_workspaces_history_isnt_seen(rest: Rest) -> None:
    await rest.create()
    await rest.world.call("shop_get_item", id="1")
    rival = (await rest.world.app.keys.create("rival", role="owner")).api_key
    async with rest.as_(rival) as client:
        assert (await client.get("/v1/rival/calls")).json()["items"] == []
        assert (await client.get("/v1/rival/audit")).json()["items"] == []


async def test_arguments_are_kept_where_the_operator_opted_in_without_secrets(tmp_path: Path) -> None:
    async with rest_world(tmp_path, record_arguments=True) as rest:
        await rest.create(
            endpoints=[
                {
                    "name": "get_item",
                    "description": "Gets.",
                    "method": "GET",
                    "path": "/items/{id}",
                    "input_schema": {
                        "type": "object",
                        "properties": {"note": {"type": "string"}, "password": {"type": "string"}},
                    },
                }
            ]
        )
        await rest.world.call("shop_get_item", id="7", note=f"see {CANARY}", password="hunter22")
        answer = await rest.client.get(CALLS)
        assert answer.json()["items"][0]["arguments"] == {"id": "7", "note": "see [secret]", "password": "[secret]"}
