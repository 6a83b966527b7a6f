"""What an agent wants and how far it gets by reading alone: policies over what a model saw, the same in every host."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tests.hosts_simulated import Chat

Scenario = Callable[[Chat], Awaitable[None]]


async def wrong_argument(chat: Chat) -> None:
    """The error names the argument that was meant: two turns."""
    saw = await chat.call("clinic_search_patients", famly="Solo")
    assert saw.startswith("Not sent: ")
    meant = re.search(r"- famly: no such argument; did you mean (\w+)\?", saw)
    assert meant
    saw = await chat.call("clinic_search_patients", **{meant[1]: "Solo"})
    assert "Leia Solo" in saw
    assert len(chat.turns) == 2


async def expired_page(chat: Chat) -> None:
    """A page that is gone says what to do instead: two turns."""
    saw = await chat.call("get_result", result_id="r_gone", **{"from": 31})
    assert "call it again with a narrower filter" in saw
    saw = await chat.call("clinic_search_patients", family="Solo", limit=1)
    assert '"total":' in saw
    assert len(chat.turns) == 2


async def one_of_642(chat: Chat) -> None:
    """The first line of a cut result is enough to find one of 642 items without reading them: three turns at most."""
    note = (await chat.call("clinic_list_audit_events")).splitlines()[0]
    assert re.search(r"Showing items 0-\d+ of 642", note)
    saw = await chat.call("get_result", result_id=id_in(note), find='"seq":17,')
    assert '"seq":17,' in saw
    assert '"seq":18,' not in saw
    assert len(chat.turns) <= 3


async def all_of_642(chat: Chat) -> None:
    """Reading on to the end brings every item once."""
    saw = await chat.call("clinic_list_audit_events")
    found: list[int] = []
    while True:
        note = saw.splitlines()[0]
        found += [int(n) for n in re.findall(r'"seq":(\d+),', saw)]
        following = re.search(r'"from":(\d+)', note)
        if following is None:
            break
        saw = await chat.call("get_result", result_id=id_in(note), **{"from": int(following[1])})
    assert found == list(range(642, 0, -1))


async def wrong_id(chat: Chat) -> None:
    """The error names the tool that finds ids: three turns."""
    saw = await chat.call("clinic_get_patient", id="998")
    assert "Nothing was changed" in saw
    lookup = re.search(r"look it up with (\w+)\.", saw)
    assert lookup
    ids = re.findall(r'"id":"([^"]+)","name":"Leia', await chat.call(lookup[1], family="Solo"))
    saw = await chat.call("clinic_get_patient", id=ids[0])
    assert "Leia" in saw
    assert len(chat.turns) == 3


async def nothing_comes_back(chat: Chat) -> None:
    """A delete without content is told in a sentence, and is done once."""
    visit = await chat.call(
        "clinic_book_appointment", patient_id="f001", start="2013-12-11T10:00:00Z", reason="Blood pressure check"
    )
    id = re.search(r'"id":"(\w+)"', visit)
    assert id
    assert "done" in await chat.call("clinic_cancel_appointment", id=id[1])


async def new_tool(chat: Chat) -> None:
    """A tool that was made just now is called although the host may not list it: two turns."""
    saw = await chat.call(
        "create_endpoint",
        integration="clinic",
        name="read_patient",
        description="Reads one patient by id.",
        method="GET",
        path="/patients/{id}",
        headers={"X-Purpose-Of-Use": "treatment"},
    )
    call = value_in(saw)["call"]
    assert call["tool"] == "call_tool"
    saw = await chat.call("call_tool", tool=call["arguments"]["tool"], arguments={"id": "f001"})
    assert '"birthDate"' in saw
    assert len(chat.turns) == 2


async def template_typo(chat: Chat) -> None:
    """A test names the fault with a ready call; four turns with the check."""
    await chat.call("update_endpoint", tool="clinic_get_patient", patch={"result_template": "Born {{ birthdat }}"})
    test: dict[str, Any] = {"tool": "clinic_get_patient", "params": {"id": "f001"}}
    fix = value_in(await chat.call("test_integration_endpoint", **test))["problems"][0]["fix"]
    await chat.call(fix["tool"], **fix["arguments"])
    assert value_in(await chat.call("test_integration_endpoint", **test))["agent_sees"].startswith("Born 19")
    assert len(chat.turns) == 4


def id_in(note: str) -> str:
    found = re.search(r'"result_id":"(\w+)"', note)
    assert found, note
    return found[1]


def value_in(saw: str) -> dict[str, Any]:
    """The JSON that the model read: once, or as text and again as structured content."""
    value, _ = json.JSONDecoder().raw_decode(saw)
    return value


AGENT: dict[str, Scenario] = {
    "wrong_argument": wrong_argument,
    "expired_page": expired_page,
    "one_of_642": one_of_642,
    "all_of_642": all_of_642,
    "wrong_id": wrong_id,
    "nothing_comes_back": nothing_comes_back,
}
OWNER: dict[str, Scenario] = {"new_tool": new_tool, "template_typo": template_typo}
