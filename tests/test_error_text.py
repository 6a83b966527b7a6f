"""Every way in which a call fails, as a model reads it (agents.md, "Error texts" and 4.7)."""

import re
from collections.abc import Iterator

import pytest

import server.app  # noqa: F401 - so that every class of the product is known
from tools.error_text import Situation, render
from tools.errors import (
    AddressRefused,
    AnswerLost,
    ApprovalDenied,
    ApprovalRequired,
    ArgumentFault,
    CallError,
    CertificateRefused,
    CircuitOpen,
    CredentialRejected,
    CredentialUnavailable,
    Internal,
    InvalidArguments,
    InvalidResponse,
    Misconfigured,
    NameNotFound,
    NotAllowed,
    OutcomeUnknown,
    ProbablyDone,
    RedirectRefused,
    RegistryUnavailable,
    ResponseTooLarge,
    ResultExpired,
    ShapingFailed,
    StateRefused,
    TooManyCalls,
    UnknownTool,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreachable,
)

READ = Situation(
    "clinic_get_patient",
    "get_patient",
    "clinic",
    writes=False,
    lookup="clinic_search_patients",
    has_path_ids=True,
    attempts=3,
    elapsed_s=9.4,
)
WRITE = Situation(
    "clinic_book", "book", "clinic", writes=True, check="clinic_get_appointment", has_path_ids=False, maybe_done=True
)
# Messages and details as the product makes them: with what a model must not see.
HOSTILE = "the secret under /gw/acme/shared/key was given for other origins than https://ehr.internal:8443/base"

CASES: list[tuple[CallError, Situation, str]] = [
    (
        InvalidArguments(
            [
                ArgumentFault("birthdate", '"21.04.1987" is not a date like 1987-04-21.'),
                ArgumentFault("surname", "no such argument; did you mean family?"),
            ],
            ["family", "birthdate", "limit"],
        ),
        Situation("clinic_search_patients", "search_patients", "clinic", writes=False),
        "Not sent: 2 arguments do not fit clinic_search_patients.\n"
        '- birthdate: "21.04.1987" is not a date like 1987-04-21.\n'
        "- surname: no such argument; did you mean family?\n"
        "Accepted: family, birthdate, limit. Correct them and call again. [invalid_arguments]",
    ),
    (
        StateRefused([ArgumentFault("requestState", "isn't this call's: call again without it.")], []),
        READ,
        "- requestState: isn't this call's: call again without it.",
    ),
    (
        UpstreamStatus("404", said="No patient 998", upstream_status=404),
        READ,
        'The clinic\'s server answered 404 Not Found to get_patient: "No patient 998". Nothing was changed.\n'
        "The id may be wrong: look it up with clinic_search_patients. The same call will fail again. [upstream_404]",
    ),
    (
        UpstreamUnavailable("503", upstream_status=503, retry_after_s=30),
        READ,
        "The clinic's server answered 503 three times in 9.4 s (busy). Nothing was changed. Wait 30 s (its Retry-After), then the "
        "same call can be repeated. [upstream_unavailable]",
    ),
    (
        UpstreamTimeout("no answer within 30 s", sent="unknown", retryable=False),
        WRITE,
        "No answer from the clinic's server within 30 s after the request was sent. It MAY have been carried out: check with "
        "clinic_get_appointment before you repeat it. [upstream_timeout_unknown]",
    ),
    (
        CredentialRejected("the token endpoint ehr.internal answered 401: invalid_client", upstream_status=401),
        READ,
        "The gateway could not sign in to the clinic's server (401). Your arguments are fine and repeating will not help: tell the "
        'user that integration "clinic" needs new credentials. [credential_rejected]',
    ),
    (UpstreamStatus("500", upstream_status=500), READ, "can be repeated"),
    (UpstreamStatus("500", upstream_status=500), WRITE, "MAY have been carried out"),
    (UpstreamUnavailable("502", upstream_status=502), WRITE, "MAY have been carried out"),
    (UpstreamTimeout("x", sent="no", retryable=True), WRITE, "Not sent: no connection"),
    (UpstreamTimeout("x", sent="yes", retryable=True), READ, "Nothing was changed"),
    (UpstreamTimeout("x", sent="unknown", retryable=True), WRITE, "safe here"),
    (
        UpstreamUnreachable(HOSTILE, detail=HOSTILE),
        READ,
        "Not sent: no connection to the clinic's server could be made.",
    ),
    (CertificateRefused(HOSTILE, detail=HOSTILE), READ, "no valid certificate"),
    (AnswerLost(HOSTILE, detail=HOSTILE), READ, "Nothing was changed. The same call can be repeated"),
    (AnswerLost(HOSTILE, detail=HOSTILE), WRITE, "MAY have been carried out; the same call can be repeated"),
    (
        OutcomeUnknown(HOSTILE, upstream_status=500, said="boom"),
        WRITE,
        'answered 500 Internal Server Error to book: "boom".',
    ),
    (OutcomeUnknown(HOSTILE), WRITE, "lost after the request was sent. It MAY have been carried out"),
    (
        UpstreamRefused("refused the call (-32602)", said="no such patient"),
        READ,
        'refused the call (-32602): "no such patient".',
    ),
    (ProbablyDone("404", upstream_status=404), WRITE, "probably done by that first attempt"),
    (CredentialUnavailable(HOSTILE, advice=HOSTILE), READ, "needs credentials"),
    (CredentialUnavailable(HOSTILE, retry_after_s=20), READ, "Wait 20 s"),
    (AddressRefused(HOSTILE, detail=HOSTILE), READ, "isn't allowed here"),
    (NameNotFound(HOSTILE, detail=HOSTILE), READ, "isn't allowed here"),
    (Misconfigured(HOSTILE, advice=HOSTILE, detail=HOSTILE), READ, "is not set up right"),
    (RegistryUnavailable(HOSTILE), READ, "can be repeated in a minute"),
    (RedirectRefused(HOSTILE, detail=HOSTILE, upstream_status=302), READ, "redirect that is not followed"),
    (RedirectRefused(HOSTILE, detail=HOSTILE, upstream_status=302), WRITE, "MAY have been carried out"),
    (ResponseTooLarge("the answer is longer than 10,485,760 bytes"), READ, "narrow the call"),
    (
        InvalidResponse("its Content-Type says JSON, but it isn't (line 1, column 1)"),
        WRITE,
        "WAS sent and probably carried out",
    ),
    (ShapingFailed("result_key failed: no a", stage="result_key", expression="a"), WRITE, "do not repeat it"),
    (NotAllowed("this key may not call it"), READ, "Repeating will not help"),
    (TooManyCalls("100 calls are running already", retry_after_s=1), READ, "Wait 1 s, then"),
    (CircuitOpen("failed 5 calls in a row", retry_after_s=7), READ, "Wait 7 s, then"),
    (
        ApprovalRequired(
            "a person must approve this call first; then make exactly the same call again", approval_id="a_1"
        ),
        WRITE,
        "Not sent: a person must approve",
    ),
    (ApprovalDenied("a person denied this call (approval a_1)"), WRITE, "Do not repeat it: ask the user"),
    (UnknownTool("Not sent: there is no tool clinic_gt; did you mean clinic_get?"), READ, "did you mean"),
    (
        ResultExpired("No result r_1 any more (kept 15 minutes). If the call only read data, call it again."),
        READ,
        "call it again",
    ),
    (Internal("call c_12ab"), WRITE, "It is not known whether anything was sent: read before you repeat it"),
]


@pytest.mark.parametrize(
    ("error", "situation", "part"), CASES, ids=[f"{type(e).__name__}-{s.writes}" for e, s, _ in CASES]
)
def test_an_error_says_whether_it_was_sent_whose_fault_and_what_to_do(
    error: CallError, situation: Situation, part: str
) -> None:
    text = render(error, situation)
    assert part in text
    assert text.endswith(f"[{error.full_code}]")
    assert re.search(r"Not sent|sent|answered|could not sign in|No result|failed|refused the call", text.split("\n")[0])
    assert re.search(
        r"repeat|call again|same call|call it again|will not help|Check|check|did you mean|tell the user|tell the\nuser|narrow",
        text,
    )
    assert not re.search(r"ehr\.internal|://|/gw/|8443", text), "no host, path or secret path"
    assert len(text) / 3.5 <= 120
    assert "the the" not in text.lower()
    assert ".." not in text


def test_every_class_of_error_has_an_example() -> None:
    shown = {type(error) for error, _, _ in CASES}
    elsewhere = {"RequestRefused"}  # told by the management tools' own words
    assert {c.__name__ for c in subclasses(CallError) if c.__module__.startswith(("tools", "server"))} - elsewhere == {
        c.__name__ for c in shown
    }


def subclasses(kind: type[CallError]) -> Iterator[type[CallError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_the_upstreams_words_are_quoted_without_control_characters_and_cut() -> None:
    error = UpstreamStatus("400", said="bad\r\n\x1b[31mvalue " + "x" * 5000, upstream_status=400)
    text = render(error, READ)
    assert "\x1b" not in text
    assert "\r" not in text
    assert '"bad   [31mvalue xxx' in text
    assert len(text) < 2400


def test_an_operator_is_told_how_to_see_every_stage() -> None:
    told = Situation(
        "a_b", "b", "a", writes=False, diagnose='Diagnose: test_integration_endpoint {"tool":"a_b","params":{}}'
    )
    text = render(Misconfigured("x"), told)
    assert text.split("\n")[-1] == told.diagnose
    assert render(InvalidArguments([ArgumentFault("a", "is wrong.")], ["a"]), told).endswith("[invalid_arguments]")


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "may not do this"), (409, "read it again"), (422, "correct the arguments"), (599, "answered 599 to")],
)
def test_a_status_brings_its_advice(status: int, words: str) -> None:
    assert words in render(UpstreamStatus(str(status), upstream_status=status), READ)
