"""What the demo clinic knows: example records, and the appointments and messages that calls add.

State is in memory and deterministic: the same calls in the same order give the same ids and answers. The records are
HL7's FHIR R4 examples (see NOTICE). A resource is its JSON object as it is, `dict[str, Any]`.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from importlib.resources import files
from itertools import count
from typing import Any

Resource = dict[str, Any]
AUDIT_EVENTS = 642
"""Length of the audit log: long enough that a model should not be given all of it."""


class Records:
    """All that the clinic keeps. `now` gives its clock (an aware datetime)."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        resources: list[Resource] = json.loads(files("server.demo").joinpath("records.json").read_text("utf-8"))
        self._now = now
        self._by_type: dict[str, dict[str, Resource]] = {}
        for resource in resources:
            self._by_type.setdefault(resource["resourceType"], {})[resource["id"]] = resource
        self.audit_log = tuple(_audit_events(resources, now()))
        self._appointment_ids = (f"a{number}" for number in count(1001))
        self._message_ids = (f"m{number}" for number in count(1))

    def find(self, kind: str, id_: str) -> Resource | None:
        return self._by_type[kind].get(id_)

    def all(self, kind: str) -> list[Resource]:
        return list(self._by_type[kind].values())

    def patients(self, *, family: str | None, birthdate: str | None) -> list[Resource]:
        """Those with a name that begins with `family` (any case) and with exactly that `birthdate`."""
        start = (family or "").casefold()
        return [
            patient
            for patient in self.all("Patient")
            if any(name.get("family", "").casefold().startswith(start) for name in patient["name"])
            and birthdate in (None, patient.get("birthDate"))
        ]

    def about(self, kind: str, patient_id: str, *, code: str | None = None) -> list[Resource]:
        """The patient's resources of a kind; with `code` only those coded so."""
        return [
            resource
            for resource in self.all(kind)
            if resource["subject"].get("reference") == f"Patient/{patient_id}"
            and (code is None or any(c.get("code") == code for c in resource["code"].get("coding", [])))
        ]

    def clash(self, practitioner_id: str, start: datetime, minutes: int, *, except_id: str | None) -> Resource | None:
        """An appointment of that practitioner which overlaps the time, if there is one."""
        end = start + timedelta(minutes=minutes)
        for other in self.all("Appointment"):
            if other["id"] == except_id or practitioner_id != practitioner_of(other):
                continue
            if datetime.fromisoformat(other["start"]) < end and start < datetime.fromisoformat(other["end"]):
                return other
        return None

    def book(self, patient_id: str, practitioner_id: str, start: datetime, minutes: int, reason: str) -> Resource:
        """A new appointment; who takes part must exist."""
        appointment: Resource = {
            "resourceType": "Appointment",
            "id": next(self._appointment_ids),
            "status": "booked",
            "description": reason,
            **_times(start, minutes),
            "created": self._now().isoformat(),
            "participant": [
                {"actor": {"reference": f"Patient/{patient_id}"}, "status": "accepted"},
                {"actor": {"reference": f"Practitioner/{practitioner_id}"}, "status": "accepted"},
            ],
        }
        return self._put(appointment)

    def move(self, appointment: Resource, start: datetime, minutes: int) -> Resource:
        return self._put({**appointment, **_times(start, minutes)})

    def cancel(self, id_: str) -> bool:
        """False where there is no such appointment."""
        return self._by_type["Appointment"].pop(id_, None) is not None

    def send_message(self, patient_id: str, text: str) -> Resource:
        return {"id": next(self._message_ids), "patient_id": patient_id, "characters": len(text), "status": "queued"}

    def summary(self) -> Resource:
        """Figures of the clinic, and its appointments in order of time."""
        appointments = sorted(self.all("Appointment"), key=lambda a: datetime.fromisoformat(a["start"]))
        return {
            "generated": self._now().isoformat(),
            "patients": len(self._by_type["Patient"]),
            "practitioners": len(self._by_type["Practitioner"]),
            "appointments": [{"id": a["id"], "start": a["start"], "about": a["description"]} for a in appointments],
        }

    def _put(self, appointment: Resource) -> Resource:
        self._by_type["Appointment"][appointment["id"]] = appointment
        return appointment


def practitioner_of(appointment: Resource) -> str | None:
    """Id of the first practitioner who takes part."""
    for participant in appointment["participant"]:
        kind, _, id_ = participant["actor"].get("reference", "").partition("/")
        if kind == "Practitioner":
            return id_
    return None


def _times(start: datetime, minutes: int) -> dict[str, Any]:
    return {
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=minutes)).isoformat(),
        "minutesDuration": minutes,
    }


def _audit_events(resources: list[Resource], now: datetime) -> Iterator[Resource]:
    """Made up from the records, newest first: one event every 17 minutes before `now`."""
    actors = [r["id"] for r in resources if r["resourceType"] == "Practitioner"]
    actions = ("read", "read", "search", "update", "read")
    for number in range(AUDIT_EVENTS):
        resource = resources[number * 7 % len(resources)]
        yield {
            "seq": AUDIT_EVENTS - number,
            "at": (now - timedelta(minutes=17 * number)).isoformat(),
            "actor": f"Practitioner/{actors[number * 3 % len(actors)]}",
            "action": actions[number % len(actions)],
            "record": f"{resource['resourceType']}/{resource['id']}",
        }
