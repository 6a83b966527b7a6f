"""The demo's upstream: a clinic with a plain REST face, an API key, and the manners (and moods) of a real vendor.

It validates what it is sent, answers errors as JSON (`{"error": {...}}`, or application/problem+json for a bad body),
honours Idempotency-Key on bookings, and its report is busy (503) the first time it is asked.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.demo.records import Records, Resource, practitioner_of

KEY_HEADER = "X-Clinic-Key"
CLOCK = datetime(2013, 12, 9, 8, 0, tzinfo=UTC)
"""The demo's fixed time: the morning of the first appointment in the records."""

RecordId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Minutes = Annotated[int, Field(ge=5, le=240)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PatientsQuery(_Input):
    family: str | None = None
    birthdate: date | None = None
    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0)


class _ObservationsQuery(_Input):
    code: str | None = None


class _AuditQuery(_Input):
    record: str | None = Field(None, alias="filter[record]")
    limit: int = Field(1000, ge=1, le=1000)
    offset: int = Field(0, ge=0)


class _NoQuery(_Input):
    pass


class _Times(_Input):
    start: AwareDatetime
    minutes: Minutes = 30


class _Booking(_Times):
    patient_id: RecordId
    practitioner_id: RecordId = "example"
    reason: str = Field(min_length=3, max_length=200)
    booked_by: str | None = None


class _Message(_Input):
    patient_id: RecordId
    text: str = Field(min_length=1, max_length=1000)
    channel: Literal["sms", "email"] = "sms"


InputT = TypeVar("InputT", bound=_Input)


class _Refused(Exception):
    """A request is answered with an error; `response` is it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.response = JSONResponse({"error": {"code": code, "message": message}}, status, named)


class _BadBody(Exception):
    """A body that doesn't fit; told as a problem document (RFC 9457)."""

    def __init__(self, detail: str, errors: list[dict[str, str]]) -> None:
        super().__init__(detail)
        problem = {"type": "about:blank", "title": "Invalid request body", "status": 422, "detail": detail}
        self.response = JSONResponse({**problem, "errors": errors}, 422, media_type="application/problem+json")


def clinic_app(
    api_key: str, *, now: Callable[[], datetime] = lambda: CLOCK, busy_reports: int = 1, retry_after: int = 1
) -> ASGIApp:
    """The clinic as an ASGI app with its own fresh state.

    Every request needs `api_key` in `X-Clinic-Key`. `GET /reports/summary` answers 503 the first `busy_reports`
    times, with `Retry-After: {retry_after}` (seconds).
    """
    clinic = _Clinic(Records(now), busy_reports, retry_after)
    app = Starlette(
        routes=[
            Route("/", clinic.about),
            Route("/patients", clinic.search_patients),
            Route("/patients/{id}", clinic.get_patient),
            Route("/patients/{id}/observations", clinic.list_observations),
            Route("/patients/{id}/medications", clinic.list_medications),
            Route("/practitioners", clinic.list_practitioners),
            Route("/slots", clinic.list_slots),
            Route("/appointments", clinic.book, methods=["POST"]),
            Route("/appointments/{id}", clinic.get_appointment),
            Route("/appointments/{id}", clinic.move, methods=["PUT"]),
            Route("/appointments/{id}", clinic.cancel, methods=["DELETE"]),
            Route("/messages", clinic.send_message, methods=["POST"]),
            Route("/reports/summary", clinic.summary),
            Route("/audit-log", clinic.audit_log),
        ],
        exception_handlers={_Refused: _answer, _BadBody: _answer, HTTPException: _http_error},
    )

    async def with_key(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(KEY_HEADER.lower().encode(), b"")
            if not hmac.compare_digest(given, api_key.encode()):
                refusal = _Refused(401, "invalid_key", f"A valid {KEY_HEADER} header is required.")
                await refusal.response(scope, receive, send)
                return
        await app(scope, receive, send)

    return with_key


class _Clinic:
    def __init__(self, records: Records, busy_reports: int, retry_after: int) -> None:
        self._records = records
        self._busy_reports = busy_reports
        self._retry_after = retry_after
        self._booked: dict[str, tuple[_Booking, Resource]] = {}

    async def about(self, request: Request) -> Response:
        return JSONResponse({"service": "clinic", "version": "1.4.2"})

    async def search_patients(self, request: Request) -> Response:
        query = _query(request, _PatientsQuery)
        birthdate = query.birthdate.isoformat() if query.birthdate else None
        found = self._records.patients(family=query.family, birthdate=birthdate)
        return _page(found, query.offset, query.limit)

    async def get_patient(self, request: Request) -> Response:
        purpose = request.headers.get("x-purpose-of-use", "treatment")
        if purpose not in ("treatment", "billing", "emergency"):
            raise _Refused(403, "purpose_refused", f"Records are not given out for {purpose!r}.")
        return JSONResponse(self._known("Patient", request.path_params["id"]))

    async def list_observations(self, request: Request) -> Response:
        patient = self._known("Patient", request.path_params["id"])
        code = _query(request, _ObservationsQuery).code
        return _all(self._records.about("Observation", patient["id"], code=code))

    async def list_medications(self, request: Request) -> Response:
        patient = self._known("Patient", request.path_params["id"])
        _query(request, _NoQuery)
        return _all(self._records.about("MedicationRequest", patient["id"]))

    async def list_practitioners(self, request: Request) -> Response:
        _query(request, _NoQuery)
        return _all(self._records.all("Practitioner"))

    async def list_slots(self, request: Request) -> Response:
        _query(request, _NoQuery)
        return _all(self._records.all("Slot"))

    async def get_appointment(self, request: Request) -> Response:
        return JSONResponse(self._known("Appointment", request.path_params["id"]))

    async def book(self, request: Request) -> Response:
        booking = await _json_body(request, _Booking)
        key = request.headers.get("idempotency-key")
        if key in self._booked:
            first, appointment = self._booked[key]
            if first != booking:
                raise _BadBody("This Idempotency-Key was used with another body.", [])
            return JSONResponse(appointment, 201, {"Idempotency-Replayed": "true"})
        for kind, field in (("Patient", "patient_id"), ("Practitioner", "practitioner_id")):
            if self._records.find(kind, getattr(booking, field)) is None:
                message = f"No {kind.lower()} {getattr(booking, field)}"
                raise _BadBody(message, [{"field": field, "message": message}])
        self._refuse_clash(booking.practitioner_id, booking, except_id=None)
        appointment = self._records.book(
            booking.patient_id, booking.practitioner_id, booking.start, booking.minutes, booking.reason
        )
        if key is not None:
            self._booked[key] = booking, appointment
        return JSONResponse(appointment, 201, {"Location": f"/appointments/{appointment['id']}"})

    async def move(self, request: Request) -> Response:
        appointment = self._known("Appointment", request.path_params["id"])
        times = await _json_body(request, _Times)
        practitioner = practitioner_of(appointment)
        if practitioner is not None:
            self._refuse_clash(practitioner, times, except_id=appointment["id"])
        return JSONResponse(self._records.move(appointment, times.start, times.minutes))

    async def cancel(self, request: Request) -> Response:
        appointment = self._known("Appointment", request.path_params["id"])
        self._records.cancel(appointment["id"])
        return Response(status_code=204)

    async def send_message(self, request: Request) -> Response:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/x-www-form-urlencoded":
            raise _Refused(415, "form_expected", "Send application/x-www-form-urlencoded.")
        fields = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
        message = _checked_body(fields, _Message)
        self._known("Patient", message.patient_id)
        return JSONResponse(self._records.send_message(message.patient_id, message.text), 201)

    async def summary(self, request: Request) -> Response:
        _query(request, _NoQuery)
        if self._busy_reports > 0:
            self._busy_reports -= 1
            raise _Refused(503, "busy", "The report is being made.", Retry_After=str(self._retry_after))
        return JSONResponse(self._records.summary())

    async def audit_log(self, request: Request) -> Response:
        query = _query(request, _AuditQuery)
        found = [event for event in self._records.audit_log if query.record in (None, event["record"])]
        return _page(found, query.offset, query.limit)

    def _known(self, kind: str, id_: str) -> Resource:
        resource = self._records.find(kind, id_)
        if resource is None:
            raise _Refused(404, "not_found", f"No {kind.lower()} {id_}")
        return resource

    def _refuse_clash(self, practitioner_id: str, times: _Times, *, except_id: str | None) -> None:
        clash = self._records.clash(practitioner_id, times.start, times.minutes, except_id=except_id)
        if clash is not None:
            when = f"{clash['start']} to {clash['end']}"
            raise _Refused(409, "slot_taken", f"Practitioner {practitioner_id} is booked from {when}.")


def _all(items: list[Resource]) -> Response:
    return JSONResponse({"items": items, "total": len(items)})


def _page(items: list[Resource], offset: int, limit: int) -> Response:
    page = items[offset : offset + limit]
    return JSONResponse({"items": page, "total": len(items), "offset": offset, "limit": limit})


def _query(request: Request, model: type[InputT]) -> InputT:
    given: Mapping[str, str] = request.query_params
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise _Refused(400, "invalid_parameter", f"Parameter {name}: {first['msg']}.") from error


async def _json_body(request: Request, model: type[InputT]) -> InputT:
    try:
        given = json.loads(await request.body())
    except ValueError as error:
        raise _BadBody("The body is not JSON.", []) from error
    return _checked_body(given, model)


def _checked_body(given: Any, model: type[InputT]) -> InputT:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        errors = [
            {"field": ".".join(str(part) for part in e["loc"]), "message": e["msg"]}
            for e in error.errors(include_url=False)
        ]
        raise _BadBody("; ".join(f"{e['field']}: {e['message']}" for e in errors), errors) from error


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused | _BadBody)
    return error.response


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in this vendor's words."""
    assert isinstance(error, HTTPException)
    answer = _Refused(error.status_code, "no_such_operation", f"{request.method} {request.url.path}: {error.detail}")
    return answer.response
