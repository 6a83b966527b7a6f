"""The demo's upstream behaves like a vendor's API: its routes, its errors, its moods."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from server.demo.clinic import clinic_app
from server.demo.records import AUDIT_EVENTS

pytestmark = pytest.mark.anyio

KEY = "k-for-tests"
BOOKING = {"patient_id": "f001", "start": "2013-12-11T10:00:00Z", "minutes": 20, "reason": "Blood pressure check"}


def client_of(app: Any, key: str | None = KEY) -> httpx2.AsyncClient:
    headers = {} if key is None else {"X-Clinic-Key": key}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://clinic.test", headers=headers)


@pytest.fixture
async def clinic() -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(clinic_app(KEY)) as client:
        yield client


def ids(answer: httpx2.Response) -> list[str]:
    return [item["id"] for item in answer.json()["items"]]


@pytest.mark.parametrize("key", [None, "", "k-for-test", "K-for-tests"])
async def test_a_request_without_the_right_key_is_refused(key: str | None) -> None:
    async with client_of(clinic_app(KEY), key) as client:
        answer = await client.get("/patients")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_key"


async def test_a_search_by_the_beginning_of_a_family_name_ignores_case(clinic: httpx2.AsyncClient) -> None:
    assert ids(await clinic.get("/patients", params={"family": "sol"})) == [
        "infant-mom",
        "infant-twin-1",
        "infant-twin-2",
    ]


async def test_a_search_finds_former_names_too(clinic: httpx2.AsyncClient) -> None:
    assert ids(await clinic.get("/patients", params={"family": "Windsor"})) == ["example"]


async def test_a_search_by_birth_date_is_exact(clinic: httpx2.AsyncClient) -> None:
    assert ids(await clinic.get("/patients", params={"birthdate": "2017-05-15"})) == ["infant-twin-1", "infant-twin-2"]
    assert ids(await clinic.get("/patients", params={"birthdate": "2017-05-16"})) == []


async def test_pages_of_a_search_join_to_the_whole(clinic: httpx2.AsyncClient) -> None:
    whole = ids(await clinic.get("/patients"))
    pages = [await clinic.get("/patients", params={"limit": 5, "offset": offset}) for offset in (0, 5, 10)]
    assert [id_ for page in pages for id_ in ids(page)] == whole
    assert {page.json()["total"] for page in pages} == {len(whole)}


@pytest.mark.parametrize(
    ("path", "params", "named"),
    [
        ("/patients", {"limit": "0"}, "limit"),
        ("/patients", {"limit": "101"}, "limit"),
        ("/patients", {"offset": "-1"}, "offset"),
        ("/patients", {"birthdate": "21.04.1987"}, "birthdate"),
        ("/patients", {"surname": "Solo"}, "surname"),
        ("/patients/f001/observations", {"loinc": "1"}, "loinc"),
        ("/patients/f001/medications", {"code": "1"}, "code"),
        ("/audit-log", {"limit": "1001"}, "limit"),
        ("/reports/summary", {"day": "1"}, "day"),
        ("/practitioners", {"x": "1"}, "x"),
        ("/slots", {"x": "1"}, "x"),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_names_it(
    clinic: httpx2.AsyncClient, path: str, params: dict[str, str], named: str
) -> None:
    answer = await clinic.get(path, params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"Parameter {named}: ")


async def test_a_patient_is_the_whole_fhir_record(clinic: httpx2.AsyncClient) -> None:
    patient = (await clinic.get("/patients/f001")).json()
    assert (patient["resourceType"], patient["id"], patient["birthDate"]) == ("Patient", "f001", "1944-11-17")
    assert patient["address"][0]["city"] == "Amsterdam"


async def test_a_purpose_that_the_clinic_does_not_accept_is_forbidden(clinic: httpx2.AsyncClient) -> None:
    accepted = await clinic.get("/patients/f001", headers={"X-Purpose-Of-Use": "billing"})
    refused = await clinic.get("/patients/f001", headers={"X-Purpose-Of-Use": "curiosity"})
    assert (accepted.status_code, refused.status_code) == (200, 403)
    assert refused.json()["error"]["code"] == "purpose_refused"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/patients/998", "No patient 998"),
        ("GET", "/patients/998/observations", "No patient 998"),
        ("GET", "/patients/998/medications", "No patient 998"),
        ("GET", "/appointments/a9", "No appointment a9"),
        ("PUT", "/appointments/a9", "No appointment a9"),
        ("DELETE", "/appointments/a9", "No appointment a9"),
        ("GET", "/nowhere", "GET /nowhere: Not Found"),
    ],
)
async def test_what_is_not_there_is_a_404_with_a_message(
    clinic: httpx2.AsyncClient, method: str, path: str, message: str
) -> None:
    answer = await clinic.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == message


async def test_a_method_that_is_not_offered_is_a_405(clinic: httpx2.AsyncClient) -> None:
    answer = await clinic.post("/patients", json={})
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "no_such_operation"


async def test_observations_are_the_patients_own_and_can_be_narrowed_by_code(clinic: httpx2.AsyncClient) -> None:
    everything = await clinic.get("/patients/example/observations")
    heart_rate = await clinic.get("/patients/example/observations", params={"code": "8867-4"})
    assert "heart-rate" in ids(everything)
    assert "f001" not in ids(everything)
    assert ids(heart_rate) == ["heart-rate"]


@pytest.mark.parametrize(
    ("path", "id_"),
    [("/patients/pat1/medications", "medrx0308"), ("/practitioners", "example"), ("/slots", "3")],
)
async def test_the_other_lists_hold_real_records(clinic: httpx2.AsyncClient, path: str, id_: str) -> None:
    answer = await clinic.get(path)
    assert id_ in ids(answer)
    assert answer.json()["total"] == len(ids(answer))


async def test_a_booking_is_created_moved_and_cancelled(clinic: httpx2.AsyncClient) -> None:
    booked = await clinic.post("/appointments", json=BOOKING)
    assert booked.status_code == 201
    assert booked.headers["location"] == "/appointments/a1001"
    assert booked.json()["created"] == "2013-12-09T08:00:00+00:00"
    assert booked.json()["end"] == "2013-12-11T10:20:00+00:00"

    moved = await clinic.put("/appointments/a1001", json={"start": "2013-12-11T10:10:00+01:00", "minutes": 45})
    assert moved.status_code == 200
    assert moved.json()["end"] == "2013-12-11T10:55:00+01:00"
    assert (await clinic.get("/appointments/a1001")).json() == moved.json()

    cancelled = await clinic.delete("/appointments/a1001")
    assert (cancelled.status_code, cancelled.content) == (204, b"")
    assert (await clinic.delete("/appointments/a1001")).status_code == 404


async def test_a_repeated_idempotency_key_books_once(clinic: httpx2.AsyncClient) -> None:
    first = await clinic.post("/appointments", json=BOOKING, headers={"Idempotency-Key": "one"})
    again = await clinic.post("/appointments", json=BOOKING, headers={"Idempotency-Key": "one"})
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


async def test_an_idempotency_key_with_another_body_is_refused(clinic: httpx2.AsyncClient) -> None:
    await clinic.post("/appointments", json=BOOKING, headers={"Idempotency-Key": "one"})
    other = await clinic.post("/appointments", json=BOOKING | {"minutes": 5}, headers={"Idempotency-Key": "one"})
    assert other.status_code == 422
    assert other.json()["detail"] == "This Idempotency-Key was used with another body."


async def test_a_time_that_is_taken_is_a_conflict(clinic: httpx2.AsyncClient) -> None:
    await clinic.post("/appointments", json=BOOKING)
    overlapping = await clinic.post("/appointments", json=BOOKING | {"start": "2013-12-11T10:19:00Z"})
    adjoining = await clinic.post("/appointments", json=BOOKING | {"start": "2013-12-11T10:20:00Z"})
    other_doctor = await clinic.post("/appointments", json=BOOKING | {"practitioner_id": "f001"})
    into_the_first = await clinic.put("/appointments/a1002", json={"start": "2013-12-11T10:00:00Z"})
    assert overlapping.status_code == 409
    assert overlapping.json()["error"]["code"] == "slot_taken"
    assert (adjoining.status_code, other_doctor.status_code, into_the_first.status_code) == (201, 201, 409)


async def test_the_records_own_appointment_can_be_moved_within_its_own_time(clinic: httpx2.AsyncClient) -> None:
    moved = await clinic.put("/appointments/example", json={"start": "2013-12-10T09:30:00Z", "minutes": 60})
    assert moved.status_code == 200
    assert moved.json()["description"] == "Discussion on the results of your recent MRI"


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/appointments", {k: v for k, v in BOOKING.items() if k != "patient_id"}, "patient_id"),
        ("POST", "/appointments", BOOKING | {"patient_id": "998"}, "patient_id"),
        ("POST", "/appointments", BOOKING | {"practitioner_id": "998"}, "practitioner_id"),
        ("POST", "/appointments", BOOKING | {"start": "2013-12-11T10:00:00"}, "start"),
        ("POST", "/appointments", BOOKING | {"minutes": 0}, "minutes"),
        ("POST", "/appointments", BOOKING | {"reason": "x"}, "reason"),
        ("POST", "/appointments", BOOKING | {"colour": "red"}, "colour"),
        ("PUT", "/appointments/example", {"minutes": 5}, "start"),
        ("PUT", "/appointments/example", {"start": "tomorrow"}, "start"),
    ],
)
async def test_a_body_that_does_not_fit_is_a_problem_document_that_names_the_field(
    clinic: httpx2.AsyncClient, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await clinic.request(method, path, json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
async def test_a_body_that_is_not_a_json_object_is_a_problem_document(
    clinic: httpx2.AsyncClient, content: bytes
) -> None:
    answer = await clinic.post("/appointments", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["title"] == "Invalid request body"


async def test_a_message_is_a_form(clinic: httpx2.AsyncClient) -> None:
    sent = await clinic.post("/messages", data={"patient_id": "f001", "text": "Grüße & bis bald"})
    assert sent.status_code == 201
    assert sent.json() == {"id": "m1", "patient_id": "f001", "characters": 16, "status": "queued"}


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"patient_id": "f001"}, 422),
        ({"patient_id": "f001", "text": ""}, 422),
        ({"patient_id": "f001", "text": "hello", "channel": "pigeon"}, 422),
        ({"patient_id": "998", "text": "hello"}, 404),
    ],
)
async def test_a_message_that_does_not_fit_is_refused(
    clinic: httpx2.AsyncClient, form: dict[str, str], status: int
) -> None:
    assert (await clinic.post("/messages", data=form)).status_code == status


async def test_a_message_as_json_is_refused_with_what_is_expected(clinic: httpx2.AsyncClient) -> None:
    answer = await clinic.post("/messages", json={"patient_id": "f001", "text": "hello"})
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "form_expected"


async def test_the_report_is_busy_once_and_says_how_long_to_wait() -> None:
    async with client_of(clinic_app(KEY, retry_after=7)) as clinic:
        first = await clinic.get("/reports/summary")
        second = await clinic.get("/reports/summary")
    assert (first.status_code, first.headers["retry-after"]) == (503, "7")
    assert second.status_code == 200
    assert [a["id"] for a in second.json()["appointments"]] == ["2docs", "example"]


async def test_the_report_is_dated_by_the_clock_that_was_given() -> None:
    noon = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)
    async with client_of(clinic_app(KEY, now=lambda: noon, busy_reports=0)) as clinic:
        report = (await clinic.get("/reports/summary")).json()
    assert report["generated"] == "2030-01-02T12:00:00+00:00"


async def test_the_audit_log_is_long_newest_first_and_can_be_narrowed(clinic: httpx2.AsyncClient) -> None:
    log = (await clinic.get("/audit-log")).json()
    assert log["total"] == len(log["items"]) == AUDIT_EVENTS
    assert [event["at"] for event in log["items"]] == sorted((e["at"] for e in log["items"]), reverse=True)
    narrowed = (await clinic.get("/audit-log", params={"filter[record]": "Patient/f001"})).json()
    assert 0 < narrowed["total"] < AUDIT_EVENTS
    assert {event["record"] for event in narrowed["items"]} == {"Patient/f001"}


async def test_two_clinics_share_nothing_and_answer_alike() -> None:
    async with client_of(clinic_app(KEY)) as one, client_of(clinic_app(KEY)) as other:
        first = await one.post("/appointments", json=BOOKING)
        second = await other.post("/appointments", json=BOOKING)
        assert first.json() == second.json()
        assert (await one.get("/audit-log")).content == (await other.get("/audit-log")).content


async def test_its_root_answers_a_probe_by_get_and_head(clinic: httpx2.AsyncClient) -> None:
    assert (await clinic.get("/")).json()["service"] == "clinic"
    assert (await clinic.head("/")).status_code == 200
