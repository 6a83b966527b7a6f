"""What each scripted model does next, decided from what it was told and what it read last; nothing of our server is imported.

A policy is a function of the user's words, of the texts of all results so far, oldest first, and of the tools as the framework shows them
(input schemas by name). It gives the next call, or the answer.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    tool: str
    arguments: dict[str, Any]


Tools = Mapping[str, dict[str, Any]]
Policy = Callable[[str, Sequence[str], Tools], Call | str]


def named_call(text: str) -> Call | None:
    """A call as our texts write it: `get_result {"result_id":"r_1"}`."""
    found = re.search(r"\b(\w+) (\{.*?\})", text)
    return Call(found[1], json.loads(found[2])) if found else None


def wrong_argument(prompt: str, saw: Sequence[str], tools: Tools) -> Call | str:
    """Misspells at first; takes the name that the error offers."""
    family = prompt.split()[-1]
    if not saw:
        return Call("clinic_search_patients", {"famly": family})
    if meant := re.search(r"did you mean (\w+)\?", saw[-1]):
        return Call("clinic_search_patients", {meant[1]: family})
    return saw[-1]


def expired_page(prompt: str, saw: Sequence[str], tools: Tools) -> Call | str:
    """Follows an old note; where the result is gone, makes the call again, narrowed by the argument that says what it was asked for."""
    note, asked = prompt.split("\n")
    kind, wanted = asked.split()[-2:]
    if not saw:
        return named_call(note) or "I can't read on."
    arguments = tools["clinic_list_audit_events"]["properties"]
    narrow = next((name for name, a in arguments.items() if kind in a["description"]), None)
    if "call it again with a narrower filter" in saw[-1] and narrow:
        return Call("clinic_list_audit_events", {narrow: wanted})
    return saw[-1]


def one_of_642(prompt: str, saw: Sequence[str], tools: Tools) -> Call | str:
    """Lists; where the list was cut, looks in the kept result for what was asked; picks the line."""
    wanted = f'"seq":{prompt.split()[-1]},'
    if not saw:
        return Call("clinic_list_audit_events", {})
    if line := next((line for line in saw[-1].splitlines() if wanted in line), None):
        return line
    if saw[-1].startswith("[Showing") and (reading_on := named_call(saw[-1])):
        return Call(reading_on.tool, {"result_id": reading_on.arguments["result_id"], "find": wanted})
    return "There is none."


def queued_export(prompt: str, saw: Sequence[str], tools: Tools) -> Call | str:
    """Starts the export once; follows the handle for as long as it is told to."""
    if not saw:
        return Call("reports_export", {"report": prompt.split()[-1]})
    handle = named_call(saw[0]) if "Do NOT call" in saw[0] else None
    return handle if handle and saw[-1].startswith(("Accepted", "Still running")) else saw[-1]


def template_typo(prompt: str, saw: Sequence[str], tools: Tools) -> Call | str:
    """Changes a template with a typo in it, tests as the answer says, does what `fix` says, tests again."""
    tool, id = prompt.split()[-2:]
    if not saw:
        return Call("update_endpoint", {"tool": tool, "patch": {"result_template": "Born {{ birthdat }}"}})
    read: dict[str, Any] = json.loads(saw[-1])
    if problems := read.get("problems"):
        return Call(problems[0]["fix"]["tool"], problems[0]["fix"]["arguments"])
    if "agent_sees" in read:
        return read["agent_sees"]
    if check := re.search(r"Check it with (\w+) ", read["next"]):
        return Call(check[1], {"tool": tool, "params": {"id": id}})
    return "I don't know what to do."


POLICIES: dict[str, Policy] = {
    p.__name__: p for p in (wrong_argument, expired_page, one_of_642, queued_export, template_typo)
}
