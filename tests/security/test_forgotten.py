"""Attacks that are often forgotten, item by item (rules J): each names the attempts or tests that play it, which must be there."""

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.security.catalog import ATTEMPTS
from tests.security.doors import OPERATIONS
from tests.security.ground import SECRET, Ground, ground, rest
from tests.security.upstreams import _mcp
from tools.errors import GatewayError
from tools.parsing import parse_update

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parent.parent
HERE = "security/test_forgotten.py"
TOKENS = "security/test_attack_tokens.py::test_a_token_that_is_not_sound_opens_no_door"
REBIND = "test_credentials_tenants.py::test_a_member_who_aims_a_stored_secret_elsewhere_sends_nothing_there"
NAMING = "test_writing.py::test_another_secret_cannot_be_named_anywhere_and_is_never_read"
ANSWERS = "test_tokens.py::test_a_hostile_token_answer_is_refused_with_a_sentence"
CANARY = "test_canary.py::test_the_canary_reaches_the_upstream_and_no_one_else"
FOREIGN = "test_ssm.py::test_a_name_outside_the_rules_never_leaves_us"
ACCOUNT = "test_credentials_faults.py::test_an_external_account_that_could_lead_elsewhere_is_refused"
APPROVED = "test_approvals.py::test_anything_else_than_what_was_approved_needs_a_new_approval"

PLAYED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "J1": {
        "base_url": (REBIND,),
        "token_url": (REBIND,),
        "endpoint base_url": (REBIND,),
        "mcp_url": (f"{HERE}::test_a_member_who_moves_an_mcp_url_takes_no_secret_along",),
        "header_name": ("test_credentials_tenants.py::test_another_header_of_the_same_system_is_no_other_place",),
    },
    "J2": {"endpoint auth": (NAMING,), "headers": (NAMING,), "mcp_headers": (NAMING,)},
    "J3": {
        "a viewer tests a DELETE": ("test_rest.py::test_each_role_may_do_its_part",),
        "test and approval": ("privilege: REST test", "privilege: management tool test"),
        "test and narrowing": (
            "privilege: REST by a narrowed key: POST /integrations/{integration}/endpoints/get/test",
        ),
        "preview": ("privilege: REST by a narrowed key: POST /integrations/{integration}/endpoints/get/preview",),
        "test-connection": ("privilege: REST by a narrowed key: POST /integrations/{integration}/test-connection",),
        "queue": (
            "privilege: queue",
            "test_background.py::test_a_call_whose_caller_no_longer_sees_the_tool_is_refused",
        ),
    },
    "J4": {
        "307, 308": ("address: token_url: 307 with the secret", "address: token_url: 308 with the secret"),
        "Refresh": ("test_tokens.py::test_a_refresh_header_is_not_followed",),
        "200 HTML": (ANSWERS,),
    },
    "J5": {
        "CR/LF, NUL, non-ASCII, 1 MB": (ANSWERS,),
        "DPoP": (ANSWERS,),
        "expires_in": ("test_tokens.py::test_expires_in_is_read_in_all_its_spellings",),
        "200 with error": (ANSWERS,),
        "one byte a second": ("test_credentials_tenants.py::test_a_token_that_comes_one_byte_at_a_time_is_given_up",),
    },
    "J6": {
        "plain, base64, percent-encoded": ("test_credentials_reader.py::test_every_spelling_of_a_secret_is_masked",),
        "halves, Location, WWW-Authenticate, gzip": (CANARY,),
        "OperationOutcome": ("test_canary_minted.py::test_an_operation_outcome_that_quotes_the_token_is_masked",),
        "an MCP tool description": ("tool poisoning: tools/list of an upstream: our credential in a description",),
        "a question": ("tool poisoning: question of an MCP upstream: our credential",),
    },
    "J7": {
        "another's token_url, client_id and scopes": (
            "test_credentials_tenants.py::test_an_equal_config_with_a_wrong_secret_gets_nothing_of_the_other_tenants",
        ),
        "cookies": ("test_upstream_guard.py::test_no_cookie_is_kept",),
        "kept connections": (
            "cross-tenant: base_url: one connection for two workspaces",
            "cross-tenant: client certificate: on a connection that was kept",
        ),
        "ETag, response cache": (f"{HERE}::test_an_answer_that_may_be_cached_is_asked_for_each_time",),
    },
    "J8": {
        "ARN, :1, :label, reserved names, blanks, full-width slash": (FOREIGN,),
        "a neighbour of the same beginning, other case": (
            "test_writing.py::test_the_operators_list_is_by_workspace_and_whole_segments",
        ),
        "a workspace id that climbs": (
            "test_credentials_tenants.py::test_a_workspace_id_that_would_leave_its_prefix_has_no_secrets",
        ),
    },
    "J9": {
        "own identity, another's pool": (
            "test_credentials_faults.py::test_the_gateways_own_identity_is_refused_for_anything_that_is_not_on_the_list",
        ),
        "file, url, executable, certificate": (ACCOUNT,),
        "hosts that look like Google's": ("address: impersonation URL: https://iamcredentials.googleapis.com.public",),
        "universe_domain, audience with a newline": (ACCOUNT,),
    },
    "J10": {
        "addresses that pass for global": (
            "address: base_url: http://168.63.129.16/",
            "address: base_url: http://[2002:",
        ),
        "a bad address beside a good one": ("address: base_url: http://mixed.example/",),
        "a second lookup": (
            "test_upstream_guard.py::test_a_name_that_is_rebound_after_the_first_lookup_reaches_nothing_unchecked",
            "address: next link: its host leads inwards by now",
        ),
        "a zone": ("address: base_url: http://[fe80::1%25eth0]/",),
        "port 6379": ("address: base_url: http://93.184.216.34:6379/",),
        "the certificate's name": (
            "test_upstream_guard.py::test_the_certificate_is_checked_against_the_name_although_the_address_is_pinned",
        ),
    },
    "J11": {
        "..": ("traversal: path argument: '..'",),
        ".": ("traversal: path argument: '.'",),
        "nothing": ("traversal: path argument: ''",),
        "%2e%2e": ("traversal: path argument: '%2e%2e'",),
        ".%2e": ("traversal: path argument: '.%2e'",),
        "a FHIR id": ("test_fhir_requests.py::test_an_id_that_would_climb_is_refused",),
        ";x": ("traversal: path argument: ';x'",),
        "back slash": ("traversal: path argument: '..\\\\admin'",),
        "NUL": ("traversal: path argument: '\\x00'",),
        "integer and array types": ("traversal: path argument: '..' where", "traversal: path argument: ['..'] where"),
        "x-name as a header": ("injection: header name in x-name",),
    },
    "J12": {
        "a sibling's base path": ("address: next link: http://BASE/t2/fhir",),
        "cursor edited": ("cross-tenant: cursor: forged",),
        "cursor of another workspace": ("cross-tenant: cursor: by another workspace's owner",),
        "cursor after a change": ("cross-tenant: cursor: after its fixed argument was changed",),
        "SUBSETTED": ("injection: body of a FHIR write: SUBSETTED",),
        "if_none_exist": ("injection: if_none_exist: identifier=a|1&_id=2",),
        "_include": ("exhaustion: _include",),
        "narrative": ("tool poisoning: narrative of a record",),
    },
    "J13": {
        "its own address, /mcp and metrics port": (
            "address: base_url: http://127.0.0.1:8080/",
            "test_upstream_guard.py::test_our_own_listener_is_refused_where_loopback_is_allowed",
        ),
        "a ring": ("exhaustion: own tail", "test_gateway.py::test_gateways_that_call_each_other_in_a_ring_stop"),
        "its own JWKS as token_url": (f"{HERE}::test_published_keys_are_no_token",),
        "Host, X-Forwarded-Host": (
            "test_jwks_routes.py::test_its_url_comes_from_the_configured_one_only",
            "test_access_tokens.py::test_without_a_token_the_answer_leads_to_the_metadata",
            "session and token: /mcp: {'Host': 'evil.example'}",
        ),
    },
    "J14": {
        "approved, then changed": (APPROVED, "privilege: approval: used with another base_url"),
        "queued, then revoked": ("test_background.py::test_a_call_whose_key_was_revoked_before_it_ran_is_refused",),
        "queued, then narrowed": ("test_background.py::test_a_call_whose_caller_no_longer_sees_the_tool_is_refused",),
        "queued, then the workspace deleted": (f"{HERE}::test_no_operation_deletes_a_workspace",),
        "PUT during a mint": (
            "test_tokens.py::test_a_mint_of_a_dropped_entry_is_not_stored",
            "test_credentials_pair.py::test_a_change_of_both_in_one_put_is_never_seen_halfway",
        ),
        "[secret] written back": ("test_writing.py::test_a_masked_header_comes_back_and_is_kept_and_goes_nowhere_new",),
        "a file of another workspace": (f"{HERE}::test_a_file_of_another_workspace_brings_none_of_its_secrets",),
    },
    "J15": {
        "id_token, aud, HS256, jku, jwk, x5c, kid, PBES2, two workspaces, iss": (TOKENS,),
        "stdio by DNS rebinding": ("security/test_attack_tokens.py::test_the_owner_over_stdio_listens_nowhere",),
        "narrowed, then rotated wider": (
            "security/test_attack_tokens.py::test_a_narrowed_key_cannot_be_rotated_or_made_wider",
        ),
    },
}


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Ground, None]:
    async with ground(tmp_path_factory.mktemp("forgotten"), lenient=False) as made:
        yield made


@pytest.mark.parametrize("rule", PLAYED)
def test_every_item_is_played_by_an_attempt_or_a_test_that_is_there(rule: str) -> None:
    for item, proofs in PLAYED[rule].items():
        assert proofs, item
        for proof in proofs:
            file, _, test = proof.partition("::")
            if file.endswith(".py"):
                assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{rule} {item}: {proof}"
            else:
                assert any(a.id.startswith(proof) for a in ATTEMPTS), f"{rule} {item}: {proof}"


def test_all_of_them_are_there() -> None:
    assert list(PLAYED) == [f"J{n}" for n in range(1, 16)]


async def test_a_member_who_moves_an_mcp_url_takes_no_secret_along(place: Ground) -> None:
    auth = {"type": "bearer_token", "bearer_token_value": {"value": SECRET}}
    body = _mcp(place, auth=auth)
    made = await place.create(body)
    assert made is not None
    assert any(SECRET in str(r.headers) for r in place.received), "at home it is sent"
    place.clean()
    there = parse_update({"mcp_url": "http://other.public.example/mcp"}, made.name)
    with pytest.raises(GatewayError, match="this secret was not given for"):
        await place.app.admin.update(place.caller("member"), made.id, there)
    await place.app.admin.test_connection(place.owner, made.id)
    assert {r.header("host") for r in place.received} == {body["mcp_url"].split("/")[2]}


async def test_an_answer_that_may_be_cached_is_asked_for_each_time(place: Ground) -> None:
    from tests.upstreams import answer

    place.clean()
    kept = {"Cache-Control": "public, max-age=3600", "ETag": '"1"', "Content-Type": "text/plain"}
    place.script("/caught", answer(200, b"one", kept), answer(200, b"two", kept))
    assert await place.create(rest("shop", "http://shop.public.example"), place.rival) is not None
    told = [(await place.call("shop_get", caller=caller)).text for caller in (place.owner, place.rival)]
    assert told == ["one", "two"]
    assert [r.header("if-none-match") for r in place.received] == [None, None]


async def test_published_keys_are_no_token(place: Ground) -> None:
    """A token_url that names a JWKS: whatever it answers, no call leaves with it."""
    from tests.upstreams import answer

    place.clean()
    place.script(
        "/keys/jwks.json",
        answer(200, b'{"keys": [{"kty": "RSA", "kid": "one"}]}', {"Content-Type": "application/json"}),
    )
    auth = {"type": "oauth2_client_credentials", "client_id": "me", "client_secret_value": {"value": SECRET}}
    body = rest(
        "tail", "http://api.public.example", auth={**auth, "token_url": "https://gw.public.example/keys/jwks.json"}
    )
    assert await place.create(body) is not None
    assert (await place.call("tail_get")).is_error
    assert {r.path for r in place.received} == {"/keys/jwks.json"}


def test_no_operation_deletes_a_workspace() -> None:
    """So nothing that waits can outlive its workspace."""
    deleting = [o.path for o in OPERATIONS if o.method == "DELETE"]
    contract = json.loads((ROOT / "contract/openapi.json").read_text("utf-8"))["paths"]
    deleting += [path for path, item in contract.items() if "delete" in item]
    assert deleting
    assert not [path for path in deleting if path.rstrip("/").endswith(("{workspace}", "{workspace_id}"))]


async def test_a_file_of_another_workspace_brings_none_of_its_secrets(place: Ground) -> None:
    """What acme's file names by path is refused in globex, where it names nothing that globex may read."""
    await place.app.secret_admin.put(place.owner, "exported", SECRET, ["http://shop.public.example"])
    (record,) = [
        r for r in (await place.app.secret_admin.page(place.owner, 1000, 0))[0] if r.path.endswith("/exported")
    ]
    there: dict[str, Any] = {"name": "get", "description": "d", "method": "GET", "path": "/caught"}
    there["headers"] = {"X-Key": f"secret:{record.path}"}
    place.clean()
    assert await place.create(rest("moved", "http://shop.public.example", there), place.rival) is None
    assert await place.create(rest("moved", "http://shop.public.example", there)) is not None
    await place.call("moved_get")
    assert [SECRET in str(r.headers) for r in place.received] == [True]
