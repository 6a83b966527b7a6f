"""The REST contract over HTTP: what each operation answers, and how each refusal is told."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.rest_api import rest_app
from tests.rest import CANARY, INTEGRATIONS, Rest, endpoint, rest_world
from tests.world import http, listening
from tools.errors import StorageUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncGenerator[Rest, None]:
    async with rest_world(tmp_path) as found:
        yield found


# ------------------------------------------------------------------ the seven operations


async def test_an_integration_is_created_read_changed_tested_and_deleted(rest: Rest) -> None:
    created = await rest.client.post(INTEGRATIONS, json=rest.shop())
    one = created.headers["location"]
    assert (created.status_code, created.headers["etag"]) == (201, '"1"')
    assert one == f"{INTEGRATIONS}/{created.json()['id']}"
    assert created.json()["auth"]["ssm_param_path"].startswith("/gw/acme/integrations/")
    assert CANARY not in created.text

    read = await rest.client.get(one)
    assert read.json() == created.json()
    changed = await rest.client.put(one, json={**read.json(), "display_name": "The shop"})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert {**read.json(), "display_name": "The shop", "updated_at": changed.json()["updated_at"]} == changed.json()

    tested = await rest.client.post(f"{one}/endpoints/get_item/test", json={"params": {"id": "7"}, "extra": 1})
    assert tested.json() == {
        "status_code": 200,
        "duration_ms": tested.json()["duration_ms"],
        "retries": 0,
        "raw_response": {"id": "7", "key": "[secret]", "shelf": 3},
        "after_filter": {"id": "7", "key": "[secret]"},
        "after_mapping": {"id": "7", "key": "[secret]"},
        "final_result": '{"id":"7","key":"[secret]"}',
        "error": None,
    }
    deleted = await rest.client.delete(one)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await rest.client.get(one)).status_code == 404


async def test_a_list_is_paged_newest_first_until_there_is_no_more(rest: Rest) -> None:
    names = [f"shop{i}" for i in range(5)]
    for name in names:
        await rest.create(name)
    found: list[str] = []
    token: int | None = 0
    while token is not None:
        page = (await rest.client.get(INTEGRATIONS, params={"limit": 2, "continuation_token": token})).json()
        assert page["total"] == 5
        assert page["has_more"] == (page["continuation_token"] is not None)
        found += [i["name"] for i in page["items"]]
        token = page["continuation_token"]
    assert found == names[::-1]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort_by=+name", ["alpha", "beta", "gamma"]),  # a raw + arrives as a blank
        ("sort_by=%2Bname", ["alpha", "beta", "gamma"]),
        ("sort_by=name", ["alpha", "beta", "gamma"]),
        ("sort_by=-display_name", ["gamma", "beta", "alpha"]),
        ("search=ET", ["beta"]),
        ("enabled=false", ["beta"]),
        ("enabled=true&sort_by=name", ["alpha", "gamma"]),
        ("protocol=soap", []),
        ("unknown=1&sort_by=name", ["alpha", "beta", "gamma"]),
    ],
)
async def test_lists_are_filtered_and_sorted(rest: Rest, query: str, names: list[str]) -> None:
    for name in ("beta", "alpha", "gamma"):
        await rest.create(name, enabled=name != "beta")
    assert [i["name"] for i in (await rest.client.get(f"{INTEGRATIONS}?{query}")).json()["items"]] == names


async def test_a_field_left_out_stays_and_null_clears_what_is_nullable(rest: Rest) -> None:
    made = await rest.create()
    answer = await rest.client.put(f"{INTEGRATIONS}/{made['id']}", json={"auth": None, "display_name": None})
    assert answer.json()["auth"] is None
    assert answer.json()["display_name"] == "Shop"
    assert answer.json()["endpoints"] == made["endpoints"]


async def test_an_upstreams_failure_is_a_200_that_says_what_happened(rest: Rest) -> None:
    made = await rest.create()
    retry = {"max_retries": 0, "retry_on_status": []}
    await rest.client.put(
        f"{INTEGRATIONS}/{made['id']}", json={"endpoints": [{**made["endpoints"][0], "retry_config": retry}]}
    )
    answer = await rest.client.post(
        f"{INTEGRATIONS}/shop/endpoints/get_item/test?explain=true", json={"params": {"id": "0"}}
    )
    body = answer.json()
    assert (answer.status_code, body["status_code"], body["final_result"]) == (200, 500, None)
    assert "the shelf fell over" in body["error"]
    assert body["raw_response"] == {"detail": "the shelf fell over"}
    assert body["explain"]["request"]["url"] == f"{rest.upstream}/items/0"
    assert [a["status"] for a in body["explain"]["attempts"]] == [500]
    assert CANARY not in answer.text


async def test_a_test_works_on_a_disabled_integration(rest: Rest) -> None:
    await rest.create(enabled=False)
    answer = await rest.client.post(f"{INTEGRATIONS}/shop/endpoints/get_item/test", json={"params": {"id": "7"}})
    assert answer.json()["status_code"] == 200


async def test_a_preview_shapes_a_given_response_and_calls_nothing(rest: Rest) -> None:
    await rest.create()
    path = f"{INTEGRATIONS}/shop/endpoints/get_item/preview"
    as_it_is = (await rest.client.post(path, json={"response": {"id": 1, "shelf": 2}})).json()
    assert (as_it_is["after_filter"], as_it_is["final_result"]) == ({"id": 1}, '{"id":1}')
    tried = {"response": {"id": 1}, "params": {"id": "9"}, "endpoint": {"result_template": "{{ id }} of {{ args.id }}"}}
    assert (await rest.client.post(path, json=tried)).json()["final_result"] == "1 of 9"
    typo = {"response": {"id": 1}, "endpoint": {"result_template": "{{ di }}"}}
    failed = (await rest.client.post(path, json=typo)).json()
    assert failed["final_result"] is None
    assert "'di' is undefined" in failed["error"]
    broken = await rest.client.post(path, json={"response": 1, "endpoint": {"result_template": "{{"}})
    assert broken.json()["detail"][0]["loc"] == ["body", "endpoint", "result_template"]
    assert rest.sent == []
    assert (await rest.client.get(f"{INTEGRATIONS}/shop")).json()["endpoints"][0]["result_template"] is None


async def test_health_and_test_connection_tell_the_same_and_the_latter_is_kept(rest: Rest) -> None:
    made = await rest.create()
    report = (await rest.client.get(f"{INTEGRATIONS}/health-check")).json()
    assert (report["status"], report["counts"]) == ("healthy", {"healthy": 1})
    found = (await rest.client.post(f"{INTEGRATIONS}/{made['id']}/test-connection")).json()
    assert (found["id"], found["status"], found["auth"]) == (made["id"], "healthy", "ok")
    kept = (await rest.client.get(f"{INTEGRATIONS}/{made['id']}")).json()
    assert kept["last_test_status"] == "healthy"


# ------------------------------------------------------------------ concurrency


async def test_with_if_match_no_update_is_lost(rest: Rest) -> None:
    made = await rest.create()
    one = f"{INTEGRATIONS}/{made['id']}"
    answers = await asyncio.gather(
        *(rest.client.put(one, json={"display_name": f"by {i}"}, headers={"If-Match": '"1"'}) for i in range(8))
    )
    assert sorted(a.status_code for a in answers) == [200] + [412] * 7
    won = next(a for a in answers if a.status_code == 200)
    assert (await rest.client.get(one)).json()["display_name"] == won.json()["display_name"]


async def test_without_if_match_the_last_write_wins_whole(rest: Rest) -> None:
    made = await rest.create()
    one = f"{INTEGRATIONS}/{made['id']}"
    bodies = [{"display_name": f"by {i}", "endpoints": [endpoint(f"get_{i}", "GET", f"/items/{i}")]} for i in range(8)]
    answers = await asyncio.gather(*(rest.client.put(one, json=body) for body in bodies))
    assert [a.status_code for a in answers] == [200] * 8
    assert sorted(a.headers["etag"] for a in answers) == sorted(f'"{n}"' for n in range(2, 10))
    last = (await rest.client.get(one)).json()
    assert last["endpoints"][0]["name"] == last["display_name"].replace("by ", "get_")


async def test_of_twenty_creates_of_one_name_one_is_made(rest: Rest) -> None:
    answers = await asyncio.gather(*(rest.client.post(INTEGRATIONS, json=rest.shop()) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [201] + [409] * 19
    assert {a.json()["error_code"] for a in answers if a.status_code == 409} == {"name_taken"}
    assert (await rest.client.get(INTEGRATIONS)).json()["total"] == 1


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ('"1"', 200),
        ("*", 200),
        ('"7", "1"', 200),
        ('"2"', 412),
        ('"abc"', 412),
        ('W/"1"', 412),  # RFC 9110 13.1.1: strong comparison
        ('"7", "8"', 412),
        ("1", 422),
        ('"1', 422),
        ("", 422),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_if_match_names_the_version_that_was_read(rest: Rest, method: str, if_match: str, status: int) -> None:
    made = await rest.create()
    body = {"json": {"display_name": "x"}} if method == "PUT" else {}
    answer = await rest.client.request(method, f"{INTEGRATIONS}/{made['id']}", headers={"If-Match": if_match}, **body)
    assert answer.status_code == (204 if (method, status) == ("DELETE", 200) else status)


# ------------------------------------------------------------------ refusals


async def test_without_a_valid_key_nothing_is_told(rest: Rest) -> None:
    await rest.create()
    for authorization in ("", "Bearer", "Bearer nonsense", "Basic dXNlcjpwYXNz", "bearer"):
        answer = await rest.client.get(f"{INTEGRATIONS}/shop", headers={"Authorization": authorization})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error_code"] == "unauthenticated"


async def test_another_workspace_is_refused_alike_whether_it_exists_or_not(rest: Rest) -> None:
    made = await rest.create()
    await rest.world.app.keys.create("rival", role="owner")
    told: set[tuple[int, str, str]] = set()
    for workspace in ("rival", "nobody", "a" * 300, "%00", "ri%2Fval"):
        for path in ("integrations", f"integrations/{made['id']}", "integrations/health-check", "api-keys", "audit"):
            answer = await rest.client.get(f"/v1/{workspace}/{path}")
            if workspace == "ri%2Fval":  # another path altogether
                assert answer.status_code == 404
                continue
            told.add((answer.status_code, answer.json()["error_code"], answer.json()["detail"]))
    assert len(told) == 1
    assert next(iter(told))[:2] == (403, "forbidden")


async def test_an_id_of_another_workspace_isnt_found_like_one_that_never_was(rest: Rest) -> None:
    made = await rest.create()
    rival = (await rest.world.app.keys.create("rival", role="owner")).api_key
    async with rest.as_(rival) as client:
        theirs = await client.get(f"/v1/rival/integrations/{made['id']}")
        nobodys = await client.get(f"/v1/rival/integrations/{made['id'][::-1]}")
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json()["detail"].replace(made["id"], "ID") == nobodys.json()["detail"].replace(made["id"][::-1], "ID")


@pytest.mark.parametrize(
    ("role", "method", "path", "status"),
    [
        ("agent", "GET", "", 403),
        ("agent", "GET", "/health-check", 403),
        ("viewer", "GET", "/shop", 200),
        ("viewer", "POST", "", 403),
        ("viewer", "PUT", "/shop", 403),
        ("viewer", "POST", "/shop/endpoints/get_item/test", 200),
        ("viewer", "POST", "/shop/endpoints/delete_item/test", 403),
        ("viewer", "POST", "/shop/endpoints/delete_item/preview", 200),
        ("operator", "POST", "/shop/endpoints/delete_item/test", 200),
        ("operator", "PUT", "/shop", 403),
        ("member", "PUT", "/shop", 200),
        ("member", "DELETE", "/shop", 403),
        ("admin", "DELETE", "/shop", 204),
    ],
)
async def test_each_role_may_do_its_part(rest: Rest, role: Any, method: str, path: str, status: int) -> None:
    await rest.create()
    bodies: dict[str, Any] = {"/shop": {}, "": rest.shop("other")}
    body = bodies.get(path, {"params": {"id": "7"}} if path.endswith("/test") else {"response": {}})
    more = {"json": body} if method in ("POST", "PUT") else {}
    async with await rest.role(role) as client:
        answer = await client.request(method, INTEGRATIONS + path, **more)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error_code"] == "forbidden"
        assert rest.sent == []


async def test_a_narrowed_key_sees_its_own_part_only(rest: Rest) -> None:
    shop, other = await rest.create(), await rest.create("other")
    async with await rest.role("operator", integrations=[shop["id"]]) as client:
        assert [i["name"] for i in (await client.get(INTEGRATIONS)).json()["items"]] == ["shop"]
        assert (await client.get(f"{INTEGRATIONS}/{other['id']}")).status_code == 404
        report = (await client.get(f"{INTEGRATIONS}/health-check")).json()
        assert [i["name"] for i in report["integrations"]] == ["shop"]
    async with await rest.role("operator", tools=["shop_get_item"]) as client:
        assert [e["name"] for e in (await client.get(f"{INTEGRATIONS}/shop")).json()["endpoints"]] == ["get_item"]
        hidden = await client.post(f"{INTEGRATIONS}/shop/endpoints/delete_item/test", json={"params": {"id": "7"}})
        assert hidden.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", INTEGRATIONS, "GET, HEAD, POST"),
        ("POST", f"{INTEGRATIONS}/x", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", f"{INTEGRATIONS}/x", "DELETE, GET, HEAD, PUT"),
        ("GET", f"{INTEGRATIONS}/x/endpoints/y/test", "POST"),
    ],
)
async def test_another_method_is_a_405_that_names_those_of_the_path(
    rest: Rest, method: str, path: str, allow: str
) -> None:
    answer = await rest.client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["error_code"] == "method_not_allowed"


async def test_head_is_get_without_the_body(rest: Rest) -> None:
    made = await rest.create()
    answer = await rest.client.head(f"{INTEGRATIONS}/{made['id']}")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, b"", '"1"')


@pytest.mark.parametrize("path", ["/v1", "/v1/acme", "/v1/acme/integrations/", "/v2/acme/integrations", "/docs"])
async def test_an_unknown_path_is_a_404(rest: Rest, path: str) -> None:
    answer = await rest.client.get(path)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")


async def test_a_request_id_comes_back_in_the_header_and_in_errors(rest: Rest) -> None:
    own = await rest.client.get(f"{INTEGRATIONS}/nothing", headers={"x-request-id": "trace-42"})
    assert own.headers["x-request-id"] == own.json()["request_id"] == "trace-42"
    ours = await rest.client.get(INTEGRATIONS)
    assert ours.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("query", "loc"),
    [
        ("limit=0", ["query", "limit"]),
        ("limit=21", ["query", "limit"]),
        ("limit=x", ["query", "limit"]),
        ("continuation_token=-1", ["query", "continuation_token"]),
        ("continuation_token=99999999999999999999", ["query", "continuation_token"]),
        ("enabled=perhaps", ["query", "enabled"]),
        ("search=", ["query", "search"]),
        ("sort_by=color", ["query", "sort_by"]),
        ("sort_by=", ["query", "sort_by"]),
    ],
)
async def test_a_parameter_that_doesnt_fit_is_named(rest: Rest, query: str, loc: list[str]) -> None:
    answer = await rest.client.get(f"{INTEGRATIONS}?{query}")
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [loc]


async def test_every_fault_of_a_body_is_told_with_its_place_and_no_secret(rest: Rest) -> None:
    body = rest.shop("S", nam="x", auth={"type": "bearer_token", "bearer_token_value": CANARY, "api_key_value": 1})
    answer = await rest.client.post(INTEGRATIONS, json=body)
    assert answer.status_code == 422
    faults = {".".join(map(str, f["loc"])): f for f in answer.json()["detail"]}
    assert {"body.name", "body.nam", "body.auth.bearer_token_value", "body.auth.api_key_value"} <= set(faults)
    assert "did you mean name?" in faults["body.nam"]["msg"]
    assert all("input" not in f for at, f in faults.items() if at.startswith("body.auth"))
    assert CANARY not in answer.text


async def test_arguments_that_dont_fit_are_a_422(rest: Rest) -> None:
    await rest.create()
    answer = await rest.client.post(f"{INTEGRATIONS}/shop/endpoints/get_item/test", json={"params": {"di": "7"}})
    assert answer.status_code == 422
    assert all(f["loc"][:2] == ["body", "params"] for f in answer.json()["detail"])
    assert rest.sent == []


async def test_the_registry_out_of_reach_is_a_503_that_says_when_to_come_back(rest: Rest) -> None:
    class Out:
        async def list(self, *_: Any, **__: Any) -> None:
            raise StorageUnavailable("the registry can't be reached")

    broken: Any = replace(rest.world.app, admin=Out())  # pyright: ignore[reportArgumentType]
    api = rest_app(broken)

    async def with_id(scope: Any, receive: Any, send: Any) -> None:
        await api({**scope, "integrations_mcp.request_id": "r"}, receive, send)

    async with listening(with_id) as url, http(url, await rest.world.key()) as client:
        answer = await client.get(INTEGRATIONS)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error_code"] == "storage_unavailable"


async def test_guessing_keys_is_slowed_down_and_a_good_key_still_works(rest: Rest) -> None:
    await rest.client.get(INTEGRATIONS)
    for _ in range(30):
        answer = await rest.client.get(INTEGRATIONS, headers={"Authorization": "Bearer wrong"})
        if answer.status_code == 429:
            break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert (await rest.client.get(INTEGRATIONS)).status_code == 200
