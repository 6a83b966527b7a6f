"""Faults by place and moment, each with what the caller gets (docs/operating.md, "When something fails").

The rows of the upstream are played here, for a read and a write at once: the promised answer, no task and no connection left, and a
next call that works. The others name the tests that prove them.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.upstreams import Hostile, Received, Step, answer, drop, head, raw, redirect, reset, silence, stall
from tests.world import World, gateway
from tools.engine import HttpEngine

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent

BODY = {"Content-Type": "application/json", "Content-Length": "100"}
PIECE = head(200, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}) + b"5\r\n[1, 2\r\n"


def dribble(every: bytes) -> Step:
    """A byte now and then, for ever (bounded, so that a failing test ends)."""

    async def step(received: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(head(200, {**BODY, "Content-Length": "100000"}))
        for _ in range(2000):
            writer.write(every)
            await writer.drain()
            await asyncio.sleep(0.01)
        return False

    return step


NOT_SENT = ("no", True)
UNKNOWN = ("unknown", False)
READ_LOST, WRITE_LOST = "answer_lost", "outcome_unknown"
FAULTS: dict[str, tuple[Step, str, str]] = {
    # what the upstream does: the code that a read gets, and a write
    "closes without a byte": (drop, READ_LOST, WRITE_LOST),
    "resets": (reset, READ_LOST, WRITE_LOST),
    "never answers": (silence, "upstream_timeout", "upstream_timeout"),
    "stops in the status line": (stall(b"HTTP/1.1 20"), "upstream_timeout", "upstream_timeout"),
    "stops in the head": (stall(b"HTTP/1.1 200 OK\r\nContent-Ty"), "upstream_timeout", "upstream_timeout"),
    "stops in the body": (stall(head(200, BODY) + b"[1"), "upstream_timeout", "upstream_timeout"),
    "stops in a chunk": (stall(PIECE), "upstream_timeout", "upstream_timeout"),
    "dribbles": (dribble(b" "), "upstream_timeout", "upstream_timeout"),
    "closes in the status line": (raw(b"HTTP/1.1 20"), READ_LOST, WRITE_LOST),
    "closes in the head": (raw(b"HTTP/1.1 200 OK\r\nContent-Ty"), READ_LOST, WRITE_LOST),
    "closes in the body": (raw(head(200, BODY) + b"[1"), READ_LOST, WRITE_LOST),
    "closes in a chunk": (raw(PIECE), READ_LOST, WRITE_LOST),
    "names a length of 20 MB": (
        raw(head(200, {"Content-Length": "20000000"})),
        "response_too_large",
        "response_too_large",
    ),
    "names a length that is none": (raw(head(200, {"Content-Length": "many"})), "invalid_response", "invalid_response"),
    "names two lengths": (
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        "invalid_response",
        "invalid_response",
    ),
    "isn't HTTP": (raw(b"220 smtp.example ESMTP\r\n"), "invalid_response", "invalid_response"),
    "says that it is gzip": (
        answer(200, b"not gzip", {"Content-Type": "text/plain", "Content-Encoding": "gzip"}),
        "invalid_response",
        "invalid_response",
    ),
    "says that it is JSON": (
        answer(200, b"{", {"Content-Type": "application/json"}),
        "invalid_response",
        "invalid_response",
    ),
    "redirects in a circle": (redirect(302, "/read"), "redirect_refused", "redirect_refused"),
    "redirects to nowhere": (redirect(302, "http://[::1"), "redirect_refused", "redirect_refused"),
    "redirects to a host without a name": (redirect(302, "http://[::1]@/"), "redirect_refused", "redirect_refused"),
    "upgrades": (
        raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
        "invalid_response",
        "invalid_response",
    ),
}


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


def integration(url: str, **more: Any) -> dict[str, Any]:
    rows = [
        {"name": "read", "description": "Reads.", "method": "GET", "path": "/read"},
        {"name": "write", "description": "Writes.", "method": "POST", "path": "/write"},
    ]
    # Deadlines of two seconds: what never ends is ended by them, and nothing is measured.
    quick = {"timeout_seconds": 2, "retry_config": {"max_retries": 0}}
    return {
        "name": "up",
        "display_name": "Up",
        "base_url": url,
        "endpoints": [{**row, **quick} for row in rows],
        **more,
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Its own, so that no origin rests because of another fault at the same port."""
    async with gateway(tmp_path) as made:
        yield made


async def told(world: World, tool: str) -> tuple[str, str, bool]:
    """(code, whether it was sent, whether the text says that it can be repeated) of a failed call."""
    outcome = await world.app.toolbox.call(world.owner, tool, {})
    assert outcome.error is not None, outcome.text
    return outcome.error.code, str(outcome.error.sent), "can be repeated" in outcome.text


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_upstream_that_fails_costs_its_call_and_nothing_else(
    world: World, upstream: Hostile, fault: str
) -> None:
    step, read_code, write_code = FAULTS[fault]
    upstream.script("/read", step)
    upstream.script("/write", step)
    await world.create(integration(upstream.url))
    before = asyncio.all_tasks()
    try:
        read, write = await asyncio.gather(told(world, "up_read"), told(world, "up_write"))
        assert (read[0], write[0]) == (read_code, write_code), fault
        assert len([r for r in upstream.received if r.path == "/write"]) == 1
        if write_code in (WRITE_LOST, "upstream_timeout"):
            assert not write[2], "a write whose outcome is unknown must not be said to be repeatable"
        await upstream.until(
            lambda: (
                upstream.open == 0 or "circle" in fault or "says" in fault or "nowhere" in fault or "without" in fault
            )
        )
        for path in ("/read", "/write"):
            upstream.script(path, answer(200, b"[1]", {"Content-Type": "application/json"}))
        assert await world.call("up_read") == await world.call("up_write") == "[1]"
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        # A database connection that a watcher gives back just now is closed beside it, and soon.
        await asyncio.wait_for(asyncio.gather(*(t for t in left if "AsyncConnection.close" in repr(t))), 20)
        assert not [t for t in left if not t.done() and "Hostile" not in repr(t)]
    finally:
        await world.app.admin.delete(world.owner, "up")


@pytest.mark.parametrize(
    ("errno", "code", "sent"),
    [
        (socket.EAI_AGAIN, "upstream_unreachable", "no"),
        (socket.EAI_NONAME, "misconfigured", "no"),
        (None, "upstream_timeout", "no"),
    ],
)
async def test_a_name_that_is_not_answered_is_told_as_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, errno: int | None, code: str, sent: str
) -> None:
    async def lookup(name: str, port: int) -> Sequence[str]:
        if errno is None:
            await anyio.sleep_forever()
        raise socket.gaierror(errno, "it fails")

    monkeypatch.setattr("server.app.HttpEngine", partial(HttpEngine, lookup=lookup))
    async with gateway(tmp_path) as world:
        await world.create(integration("http://up.example"))
        for tool in ("up_read", "up_write"):
            assert (await told(world, tool))[:2] == (code, sent)


@pytest.mark.parametrize("byte", [0, 1, 17, 60, 130, 400, "all but the last"])
async def test_a_client_that_leaves_at_any_byte_leaves_nothing_behind(
    world: World, upstream: Hostile, byte: int | str
) -> None:
    """A create over REST, cut off: nothing is written, and the server goes on."""
    import json

    from tests.world import http, served

    body = json.dumps(integration(upstream.url, name="half")).encode()
    async with served(world) as url, http(url, await world.key()) as client:
        key = client.headers["authorization"]
        port = int(url.rpartition(":")[2])
        request = (
            f"POST /v1/acme/integrations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[: byte if isinstance(byte, int) else -1])
        await writer.drain()
        writer.transport.abort()
        assert (await client.get("/v1/acme/integrations")).json()["total"] == 0
    assert (await world.app.registry.load("acme"))[1] == ()


# fault, place, moment -> the test that proves the promised answer
PROVED = {
    (
        "each of the faults above",
        "token endpoint",
        "in its answer",
    ): "test_fault_places.py::test_a_token_endpoint_that_fails_costs_a_call_that_is_not_sent",
    (
        "each of the faults above",
        "SMART configuration",
        "in its answer",
    ): "test_fault_places.py::test_a_smart_configuration_that_can_not_be_had_costs_a_call_that_is_not_sent",
    (
        "each of the faults above",
        "search",
        "in its answer",
    ): "test_fault_places.py::test_a_page_that_can_not_be_had_is_told_and_the_first_is_there",
    (
        "each of the faults above",
        "MCP call",
        "in its answer",
    ): "test_fault_places.py::test_an_mcp_server_that_fails_in_a_call_is_told_as_any_other",
    (
        "each of the faults above",
        "MCP handshake",
        "in its answer",
    ): "test_fault_places.py::test_a_call_is_not_sent_where_the_handshake_fails_and_says_so",
    (
        "each of the faults above",
        "import",
        "in its answer",
    ): "test_fault_places.py::test_a_document_that_can_not_be_had_imports_nothing",
    (
        "each of the faults above",
        "identity provider",
        "in its answer",
    ): "test_fault_places.py::test_keys_of_an_identity_provider_that_can_not_be_had_let_nobody_in",
    ("locked", "database", "at start and while it runs"): "test_store_database.py::test_a_locked_file_is_told",
    (
        "locked",
        "database",
        "when the lock is gone",
    ): "test_store_database.py::test_the_registry_works_again_when_the_lock_is_gone",
    (
        "locked",
        "database",
        "in calls, edits, lists and at start",
    ): "test_registry_slow.py::test_a_locked_sqlite_file_costs_known_calls_nothing_and_tells_the_others",
    (
        "slow",
        "database",
        "in calls",
    ): "test_registry_slow.py::test_a_slow_postgresql_costs_known_calls_next_to_nothing",
    (
        "slow",
        "database",
        "in edits, lists and at start",
    ): "test_registry_slow.py::test_what_needs_a_slow_postgresql_is_told_at_its_deadline_and_nothing_is_half_written",
    (
        "without shared memory",
        "file system",
        "at start",
    ): "test_store_database.py::test_where_sqlite_keeps_no_log_it_is_told_at_once",
    (
        "another program's",
        "database",
        "at start",
    ): "test_store_database.py::test_a_file_of_another_program_is_told_and_left_as_it_is",
    (
        "full",
        "disk",
        "in calls, edits, lists and background calls",
    ): "test_full_disk.py::test_calls_go_on_and_what_must_be_kept_is_refused_and_nothing_is_half_there",
    ("full", "disk", "at start and in commands"): "test_full_disk.py::test_commands_say_that_the_disk_is_full",
    ("full", "disk", "in a backup"): "test_full_disk.py::test_a_backup_to_a_full_disk_leaves_no_part_of_a_file",
    ("full", "database", "in a write"): "test_store_database.py::test_a_full_disk_is_told_and_nothing_is_half_written",
    (
        "gone",
        "database",
        "in a call",
    ): "test_catalog.py::test_in_an_outage_the_last_catalog_goes_on_and_an_unknown_workspace_is_an_error",
    ("gone", "database", "at authentication"): "test_auth.py::test_in_an_outage_known_keys_work_for_five_minutes",
    (
        "gone",
        "database",
        "while history is written",
    ): "test_history.py::test_no_row_is_lost_or_written_twice_through_an_outage",
    (
        "gone",
        "database",
        "while a watcher waits",
    ): "test_store_database.py::test_a_watcher_outlives_a_restart_of_the_server_and_misses_nothing",
    (
        "cancelled",
        "database",
        "in a write",
    ): "test_store_database.py::test_a_cancelled_write_is_whole_or_not_at_all_and_frees_its_connection",
    (
        "gone",
        "secret store",
        "in a call",
    ): "test_ssm.py::test_in_an_outage_known_secrets_go_on_and_new_ones_fail_clearly",
    (
        "hangs",
        "secret store",
        "in a call",
    ): "test_ssm.py::test_a_store_that_hangs_holds_up_neither_other_calls_nor_the_end",
    (
        "hangs",
        "secret store",
        "when a known secret is read again",
    ): "test_credentials_reader.py::test_a_store_that_hangs_costs_known_secrets_one_wait_and_the_next_read_brings_the_new_value",
    ("damaged", "key file", "at start"): "test_secret_stores.py::test_a_damaged_key_file_is_told_and_left_alone",
    (
        "steps back",
        "clock",
        "between two writes",
    ): "test_secret_stores.py::test_the_newest_is_the_last_written_also_when_the_clock_stepped_back",
    (
        "steps",
        "clock",
        "while a background call runs",
    ): "test_background_workers.py::test_a_call_whose_process_lives_is_nobody_elses_through_a_step_of_the_clock",
    (
        "steps",
        "clock",
        "after a process died in a background call",
    ): "test_background_workers.py::test_a_dead_process_s_call_is_taken_over_one_lease_after_a_step_of_the_clock",
    (
        "steps",
        "clock",
        "between a mint and the next call",
    ): "test_clock_steps.py::test_a_minted_token_goes_on_and_is_not_minted_anew",
    (
        "steps",
        "clock",
        "while a result is kept",
    ): "test_clock_steps.py::test_a_kept_result_ends_by_the_new_time_and_is_there_again_when_the_clock_is_right",
    (
        "steps",
        "clock",
        "while housekeeping sweeps",
    ): "test_clock_steps.py::test_a_sweep_while_the_clock_is_ahead_takes_kept_results_and_never_keys",
    (
        "steps",
        "clock",
        "in the life of a key",
    ): "test_clock_steps.py::test_a_key_ends_by_the_new_time_and_lives_again_when_the_clock_is_right",
    (
        "steps",
        "clock",
        "in the life of an access token",
    ): "test_clock_steps.py::test_an_access_token_ends_by_the_new_time_and_is_refused_before_it_begins",
    (
        "steps",
        "clock",
        "after an approval was given",
    ): "test_clock_steps.py::test_an_approval_that_was_given_before_a_step_lets_nothing_through_after_it",
    (
        "steps",
        "clock",
        "while an approval waits",
    ): "test_clock_steps.py::test_an_approval_that_waited_before_a_step_is_asked_for_again_after_it",
    (
        "steps",
        "clock",
        "between two pages of a search",
    ): "test_clock_steps.py::test_a_fhir_cursor_ends_by_the_new_time_and_leads_on_when_the_clock_is_right",
    (
        "steps",
        "clock",
        "between two calls of one idempotency key",
    ): "test_clock_steps.py::test_a_callers_idempotency_key_stays_bound_through_a_step",
    (
        "steps",
        "clock",
        "after a background call",
    ): "test_clock_steps.py::test_a_background_call_that_ended_can_be_read_through_a_step_and_is_never_sent_again",
    ("is off", "clock", "at a token endpoint"): "test_tokens.py::test_explain_tells_how_far_the_clocks_are_apart",
    (
        "killed",
        "gateway",
        "in a mixed load",
    ): "crash/test_kill.py::test_nothing_acknowledged_is_lost_and_no_secret_is_orphaned",
    (
        "killed",
        "gateway",
        "in a background call",
    ): "test_background_workers.py::test_the_calls_of_a_dead_process_are_taken_over_when_its_lease_ends",
    (
        "killed",
        "gateway",
        "with MCP programs running",
    ): "test_mcp_upstream_processes.py::test_kill_9_of_the_gateway_leaves_no_child",
    (
        "dies",
        "MCP program",
        "in a call",
    ): "test_mcp_upstream_processes.py::test_a_program_that_dies_in_a_call_is_told_as_unknown_and_started_anew",
    (
        "leaves",
        "caller",
        "while the upstream works",
    ): "test_gateway.py::test_a_cancelled_call_closes_the_upstreams_connection",
    (
        "leaves",
        "caller",
        "while a token is minted",
    ): "test_tokens.py::test_a_cancelled_first_waiter_leaves_the_mint_running",
}


def names_in(file: str) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", (HERE / file).read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("row", PROVED, ids=" ".join)
def test_each_further_row_is_proved_by_a_test_that_is_there(row: tuple[str, str, str]) -> None:
    file, _, test = PROVED[row].partition("::")
    assert test in names_in(file)
