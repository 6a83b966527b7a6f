"""The demo's integration and the calls that show it off, as data."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from tools.models import CreateIntegrationRequest

DEMO_KEY = "demo-clinic-key"
"""The clinic's API key. Not a secret: the clinic listens on loopback only and holds invented people."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the script: a line about what it shows, the tool's name and its arguments."""

    caption: str
    tool: str
    arguments: dict[str, Any]


EXAMPLE: tuple[str, dict[str, Any]] = ("clinic_search_patients", {"family": "Solo"})
"""The call to try first: tool and arguments."""

SCRIPT: tuple[Step, ...] = (
    Step("Search: large records are filtered and flattened", *EXAMPLE),
    Step("Read one record, by an id that the search gave", "clinic_get_patient", {"id": "f001"}),
    Step("Measurements, one a line", "clinic_list_observations", {"id": "example", "loinc": "8867-4"}),
    Step(
        "Wrong arguments: told at once, nothing is sent",
        "clinic_search_patients",
        {"family_name": "Solo", "limit": 500},
    ),
    Step("No such patient: the clinic's own words", "clinic_get_patient", {"id": "998"}),
    Step(
        "Create: fixed arguments are added, an Idempotency-Key goes along",
        "clinic_book_appointment",
        {"patient_id": "f001", "start": "2013-12-11T10:00:00Z", "reason": "Blood pressure check"},
    ),
    Step("Update", "clinic_move_appointment", {"id": "a1001", "start": "2013-12-11T14:00:00Z"}),
    Step(
        "A form body, and an answer in words",
        "clinic_send_message",
        {"patient_id": "f001", "text": "Your appointment was moved to 14:00 (UTC) on 11 December."},
    ),
    Step("Busy (503): waits as the clinic asks, then tries again", "clinic_daily_report", {}),
    Step("642 events: cut by whole items, and it says how to read on", "clinic_list_audit_events", {}),
    Step("Delete: an empty answer becomes a sentence", "clinic_cancel_appointment", {"id": "a1001"}),
)
"""What `integrations-mcp demo` calls, in this order, on a clinic that has just started (ids are counted from a1001)."""


def load_demo(base_url: str, api_key: str = DEMO_KEY) -> CreateIntegrationRequest:
    """The integration `clinic` for a clinic that answers at `base_url`, with its key inline."""
    data = yaml.safe_load(files("server.demo").joinpath("integration.yaml").read_text("utf-8"))
    data["base_url"] = base_url
    data["auth"]["api_key_value"] = {"value": api_key}
    return CreateIntegrationRequest.model_validate(data)
