"""Approval where the user's client can show a question, in both protocol eras, and where it can't: the far end is what counts."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.rest import INTEGRATIONS, Rest, endpoint, rest_world

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])


@asynccontextmanager
async def asking(shop: Rest, mode: Any, answer: Any) -> AsyncGenerator[Client, None]:
    """An agent whose client asks its user; `answer` None: one that can't."""
    async with (
        shop.as_(await shop.world.key("agent")) as client,
        Client(
            streamable_http_client(f"{shop.url}/mcp", http_client=client), mode=mode, elicitation_callback=answer
        ) as mcp,
    ):
        yield mcp


def text(result: Any) -> str:
    return result.content[0].text


@ERAS
@pytest.mark.parametrize(
    ("action", "content", "sent"),
    [
        ("accept", {"confirm": True}, True),
        ("accept", {"confirm": False}, False),
        ("accept", None, False),
        ("decline", None, False),
        ("cancel", None, False),
    ],
)
async def test_a_call_is_sent_only_if_the_user_agrees_to_this_request(
    tmp_path: Path, mode: Any, action: Any, content: dict[str, Any] | None, sent: bool
) -> None:
    asked: list[str] = []

    async with rest_world(tmp_path) as shop:

        async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
            asked.append(params.message)
            assert shop.sent == []
            return types.ElicitResult(action=action, content=content)

        made = await shop.create(approval_policy="writes")
        async with asking(shop, mode, answer) as mcp:
            result = await mcp.call_tool("shop_delete_item", {"id": "7"})
        assert asked == [f"Allow shop_delete_item to send this?\n\nDELETE {shop.upstream}/items/7"]
        assert result.is_error is (not sent)
        assert shop.sent == (["DELETE /items/7"] if sent else [])
        if not sent:
            assert text(result) == (
                "Not sent: the user was asked and did not approve this call. Do not repeat it: ask the user how to go on. "
                "[approval_denied]"
            )
        rows = (await shop.client.get("/v1/acme/audit", params={"target": made["id"]})).json()["items"]
        assert rows[0]["action"] == ("approval.approve" if sent else "approval.deny")
        assert (await shop.client.get("/v1/acme/approvals")).json() == {"items": []}


@ERAS
async def test_each_call_is_asked_for_and_a_read_is_not(tmp_path: Path, mode: Any) -> None:
    asked: list[str] = []

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="writes")
        async with asking(shop, mode, answer) as mcp:
            for id in ("7", "7", "8"):
                assert not (await mcp.call_tool("shop_delete_item", {"id": id})).is_error
            assert not (await mcp.call_tool("shop_get_item", {"id": "7"})).is_error
        assert len(asked) == 3
        assert shop.sent == ["DELETE /items/7", "DELETE /items/7", "DELETE /items/8", "GET /items/7"]


@ERAS
async def test_a_client_that_cannot_ask_is_told_what_a_person_must_run(tmp_path: Path, mode: Any) -> None:
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="writes")
        async with asking(shop, mode, None) as mcp:
            refused = await mcp.call_tool("shop_delete_item", {"id": "7"})
            assert refused.is_error
            assert "integrations-mcp approvals approve a_" in text(refused)
            assert shop.sent == []
            (waits,) = (await shop.client.get("/v1/acme/approvals")).json()["items"]
            done = await shop.client.post(f"/v1/acme/approvals/{waits['id']}/approve")
            assert (done.status_code, done.json()["state"]) == (200, "approved")
            assert not (await mcp.call_tool("shop_delete_item", {"id": "7"})).is_error
            assert shop.sent == ["DELETE /items/7"]
            assert (await mcp.call_tool("shop_delete_item", {"id": "7"})).is_error
        assert shop.sent == ["DELETE /items/7"]


@ERAS
async def test_what_was_changed_while_the_user_was_asked_is_not_sent(tmp_path: Path, mode: Any) -> None:
    """rules J14. The older era asks within the call; in the newer one the call comes again and asks anew."""
    asked: list[str] = []

    async with rest_world(tmp_path) as shop:
        made = await shop.create(approval_policy="writes")

        async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
            asked.append(params.message)
            if len(asked) > 1:
                return types.ElicitResult(action="decline")
            more = endpoint("delete_item", "DELETE", "/items/{id}", headers={"X-All": "true"})
            body = {"endpoints": [more]}
            assert (await shop.client.put(f"{INTEGRATIONS}/{made['id']}", json=body)).status_code == 200
            return types.ElicitResult(action="accept", content={"confirm": True})

        async with asking(shop, mode, answer) as mcp:
            assert "[approval_denied]" in text(await mcp.call_tool("shop_delete_item", {"id": "7"}))
        assert shop.sent == []
        assert len(asked) == (1 if mode == "legacy" else 2)


@ERAS
async def test_the_model_cannot_answer_for_the_user_in_its_arguments(tmp_path: Path, mode: Any) -> None:
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="writes")
        async with asking(shop, mode, None) as mcp:
            for more in (
                {"confirm": True},
                {"inputResponses": {"confirm": {"action": "accept", "content": {"confirm": True}}}},
            ):
                assert (await mcp.call_tool("shop_delete_item", {"id": "7", **more})).is_error
        assert shop.sent == []


async def test_an_answer_counts_for_its_own_question_and_once(tmp_path: Path) -> None:
    """2026-07-28: the answer comes with the next call; it can't be taken to other arguments or used twice."""
    async with rest_world(tmp_path) as shop, shop.as_(await shop.world.key("agent")) as client:
        await shop.create(approval_policy="writes")

        async def call(id: str, responses: dict[str, Any] | None = None) -> dict[str, Any]:
            params: dict[str, Any] = {
                "name": "shop_delete_item",
                "arguments": {"id": id},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
                },
            }
            if responses is not None:
                params["inputResponses"] = responses
            headers = {
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/call",
                "Mcp-Name": "shop_delete_item",
            }
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            answer = await client.post("/mcp", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()["result"]

        yes = {"action": "accept", "content": {"confirm": True}}
        first = await call("7")
        assert first["resultType"] == "input_required"
        (key,) = first["inputRequests"]
        assert (await call("8", {key: yes, "confirm": yes}))["resultType"] == "input_required"
        assert shop.sent == []
        assert (await call("7", {key: yes}))["isError"] is False
        assert (await call("7", {key: yes}))["resultType"] == "input_required"
        assert shop.sent == ["DELETE /items/7"]


@ERAS
async def test_a_test_of_an_endpoint_asks_too(tmp_path: Path, mode: Any) -> None:
    asked: list[str] = []

    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"confirm": len(asked) == 2})

    async with rest_world(tmp_path) as shop, shop.as_(await shop.world.key()) as client:
        await shop.create(approval_policy="writes")
        transport = streamable_http_client(f"{shop.url}/mcp", http_client=client)
        async with Client(transport, mode=mode, elicitation_callback=answer) as mcp:
            arguments = {"tool": "shop_delete_item", "params": {"id": "7"}}
            for sent in ([], ["DELETE /items/7"]):
                await mcp.call_tool("test_integration_endpoint", arguments)
                assert shop.sent == sent
        assert len(asked) == 2


@ERAS
async def test_a_request_too_long_for_a_question_is_not_asked_there(tmp_path: Path, mode: Any) -> None:
    async def answer(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        raise AssertionError("nobody approves what he can't see")

    schema = {"type": "object", "properties": {"note": {"type": "string"}}}
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="all", endpoints=[endpoint("add", "POST", "/items", input_schema=schema)])
        async with asking(shop, mode, answer) as mcp:
            assert "[approval_required]" in text(await mcp.call_tool("shop_add", {"note": "x" * 5000}))
        (waits,) = (await shop.client.get("/v1/acme/approvals")).json()["items"]
        assert "x" * 5000 in waits["body"]
        assert shop.sent == []
