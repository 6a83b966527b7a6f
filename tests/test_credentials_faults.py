"""What is 422 when an auth config is written, each with its field and a sentence (semantics "Auth types"; rules B3, B8, C2, C4, C7, E)."""

import json
from typing import Any

import pytest

from tools.address_guard import NetworkPolicy, private_networks
from tools.credentials.external_account import AWS_TYPE
from tools.credentials.gcp_wif import account_faults, identity_faults
from tools.credentials.own_identity import NOBODY, AllowedIdentity, OwnIdentity
from tools.credentials.scopes import missing
from tools.credentials.token_url import token_url_faults
from tools.credentials.types import TYPES, faults
from tools.models import AuthConfig

URL = "https://as.example.com/token"
GOOD: dict[str, dict[str, Any]] = {
    "api_key_header": {"ssm_param_path": "/a/b"},
    "bearer_token": {"token_ssm_param_path": "/a/b"},
    "oauth2_client_credentials": {"token_url": URL, "client_id": "me", "client_secret_ssm_param_path": "/a/b"},
    "oauth2_jwt_bearer": {"token_url": URL, "assertion_issuer": "me", "private_key_ssm_param_path": "/a/b"},
    "smart_backend_services": {
        "client_id": "me",
        "scopes": ("system/Patient.rs", "system/*.read"),
        "private_key_ssm_param_path": "/a/b",
    },
    "gcp_wif": {"ssm_param_path": "/a/b", "private_key_ssm_param_path": "/a/c"},
}
TEN = {f"p{n}": "v" for n in range(10)}


def auth(kind: str, **changes: Any) -> AuthConfig:
    return AuthConfig(**{"type": kind, **GOOD[kind], **changes})


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_complete_config_has_no_fault(kind: str) -> None:
    assert faults(auth(kind)) == []


def test_every_type_has_its_row() -> None:
    assert sorted(TYPES) == sorted(GOOD)


@pytest.mark.parametrize(
    ("kind", "field"),
    # Without a key gcp_wif may have another source: see "whose identity" below.
    [
        (kind, field)
        for kind, fields in GOOD.items()
        for field in fields
        if field != "private_key_ssm_param_path" or kind != "gcp_wif"
    ],
)
def test_a_missing_field_is_named(kind: str, field: str) -> None:
    assert field in {fault.field for fault in faults(auth(kind, **{field: None}))}


@pytest.mark.parametrize(
    ("kind", "changes", "field"),
    [
        ("oauth2_client_credentials", {"scopes": ("a b",)}, "scopes"),
        ("oauth2_client_credentials", {"scopes": ("",)}, "scopes"),
        ("oauth2_client_credentials", {"scopes": ('a"',)}, "scopes"),
        ("oauth2_client_credentials", {"scopes": ("a\\",)}, "scopes"),
        ("oauth2_client_credentials", {"scopes": ("ä",)}, "scopes"),
        ("oauth2_client_credentials", {"assertion_audience": "x"}, "assertion_audience"),
        ("oauth2_client_credentials", {"token_params": TEN | {"p10": "v"}}, "token_params"),
        ("oauth2_client_credentials", {"token_params": {"grant_type": "password"}}, "token_params"),
        ("oauth2_client_credentials", {"token_params": {"client_secret": "x"}}, "token_params"),
        ("oauth2_client_credentials", {"token_params": {"CLIENT_ID": "x"}}, "token_params"),
        ("oauth2_client_credentials", {"token_params": {" scope": "x"}}, "token_params"),
        ("oauth2_client_credentials", {"token_params": {"": "x"}}, "token_params"),
        ("oauth2_jwt_bearer", {"token_params": {"assertion": "x"}}, "token_params"),
        ("smart_backend_services", {"token_params": {"client_assertion": "x"}}, "token_params"),
        ("oauth2_client_credentials", {"token_url": "ftp://as.example.com/"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": "/token"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": "https://u:p@as.example.com/"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": URL + "?a=b"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": URL + "#a"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": "https://as.example.com/to ken"}, "token_url"),
        ("oauth2_client_credentials", {"token_url": "https://[::1/"}, "token_url"),
        ("oauth2_jwt_bearer", {"token_lifetime_seconds": 29}, "token_lifetime_seconds"),
        ("oauth2_jwt_bearer", {"token_lifetime_seconds": 3601}, "token_lifetime_seconds"),
        ("oauth2_jwt_bearer", {"client_secret_ssm_param_path": "/a/s"}, "client_id"),
        ("smart_backend_services", {"token_lifetime_seconds": 0}, "token_lifetime_seconds"),
        ("smart_backend_services", {"assertion_audience": "x"}, "assertion_audience"),
        ("smart_backend_services", {"scopes": ()}, "scopes"),
        ("smart_backend_services", {"scopes": ("user/Patient.read",)}, "scopes"),
        ("smart_backend_services", {"scopes": ("patient/Patient.rs",)}, "scopes"),
        ("smart_backend_services", {"scopes": ("system/Patient.rs", "launch")}, "scopes"),
        ("smart_backend_services", {"scopes": ("openid",)}, "scopes"),
        ("smart_backend_services", {"scopes": ("offline_access",)}, "scopes"),
        ("smart_backend_services", {"scopes": ("system/Patient.",)}, "scopes"),
        ("smart_backend_services", {"scopes": ("system/Patient.sr",)}, "scopes"),
        ("gcp_wif", {"scopes": ("a",)}, "scopes"),
        ("gcp_wif", {"gcp_scopes": ("a b",)}, "gcp_scopes"),
        ("gcp_wif", {"token_lifetime_seconds": 599}, "token_lifetime_seconds"),
        ("gcp_wif", {"token_lifetime_seconds": 43201}, "token_lifetime_seconds"),
        ("gcp_wif", {"assertion_algorithm": "RS384"}, "assertion_algorithm"),
        ("gcp_wif", {"private_key_ssm_param_path": None, "token_url": URL}, "private_key_ssm_param_path"),
    ],
)
def test_a_fault_is_told_at_its_field(kind: str, changes: dict[str, Any], field: str) -> None:
    found = faults(auth(kind, **changes))
    assert [fault.field for fault in found] == [field]
    assert len(found[0].message) > 15


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("oauth2_client_credentials", {"token_params": TEN}),
        ("oauth2_client_credentials", {"scopes": ("https://graph.microsoft.com/.default", "a!#[]~")}),
        ("oauth2_client_credentials", {"token_lifetime_seconds": 1}),
        ("oauth2_jwt_bearer", {"token_lifetime_seconds": 30}),
        ("oauth2_jwt_bearer", {"assertion_audience": "https://login.example.com"}),
        ("oauth2_jwt_bearer", {"client_id": "x", "client_secret_ssm_param_path": "/a/s"}),
        ("smart_backend_services", {"token_url": URL, "assertion_audience": "x"}),
        ("smart_backend_services", {"scopes": ("system/Observation.cruds?category=lab", "system/*.*")}),
        ("smart_backend_services", {"token_lifetime_seconds": 86400}),
        (
            "gcp_wif",
            {
                "private_key_ssm_param_path": None,
                "token_url": URL,
                "client_id": "x",
                "client_secret_ssm_param_path": "/a/s",
            },
        ),
        ("gcp_wif", {"assertion_audience": "x"}),
    ],
)
def test_what_is_allowed_has_no_fault(kind: str, changes: dict[str, Any]) -> None:
    assert faults(auth(kind, **changes)) == []


def test_secret_paths_and_token_urls_are_those_that_are_used() -> None:
    both = auth("oauth2_jwt_bearer", client_id="x", client_secret_ssm_param_path="/a/s")
    assert TYPES["oauth2_jwt_bearer"].secret_paths(both) == ("/a/b", "/a/s")
    assert TYPES["oauth2_jwt_bearer"].token_urls(both) == (URL,)
    assert TYPES["smart_backend_services"].token_urls(auth("smart_backend_services")) == ()
    # Source 1 of rules E1 comes first: then token_url gets nothing of us.
    assert TYPES["gcp_wif"].token_urls(auth("gcp_wif", token_url=URL)) == ()


# ------------------------------------------------------------------ token URLs (rules B2)

PRIVATE = NetworkPolicy(allow_private=True)
LISTED = NetworkPolicy(allow_private=private_networks(["10.0.0.0/8"]))


@pytest.mark.parametrize(
    ("url", "policy", "fine"),
    [
        (URL, NetworkPolicy(), True),
        ("http://as.example.com/token", NetworkPolicy(), False),
        ("http://as.example.com/token", PRIVATE, False),
        ("http://127.0.0.1:8080/token", NetworkPolicy(), False),
        ("http://127.0.0.1:8080/token", PRIVATE, True),
        ("http://[::1]:8080/token", PRIVATE, True),
        ("http://10.1.2.3/token", PRIVATE, True),
        ("http://10.1.2.3/token", LISTED, True),
        ("http://192.168.1.1/token", LISTED, False),
        ("http://8.8.8.8/token", PRIVATE, False),
        ("http://keycloak:8080/token", PRIVATE, True),
        ("http://keycloak:8080/token", NetworkPolicy(), False),
        ("http://as.svc.cluster.local/token", PRIVATE, True),
        ("http://as.internal.example.com/token", PRIVATE, False),
        ("https://10.1.2.3/token", NetworkPolicy(), False),
        ("https://169.254.169.254/token", PRIVATE, False),
        ("http://169.254.169.254/token", PRIVATE, False),
        ("https://[::ffff:169.254.169.254]/token", PRIVATE, False),
        ("https://2852039166/token", PRIVATE, False),
        ("https://as.example.com:6379/token", PRIVATE, False),
    ],
)
def test_a_token_url_is_https_or_an_allowed_private_address(url: str, policy: NetworkPolicy, fine: bool) -> None:
    """Rules B2, H1; guard x token_url of rules I7: each refused row has a fine one beside it."""
    assert (token_url_faults(url, policy) == []) == fine


# ------------------------------------------------------------------ scopes (rules B3)


@pytest.mark.parametrize(
    ("asked", "granted", "lacking"),
    [
        (["a", "b"], None, []),
        (["a", "b"], "b a", []),
        (["a", "b"], "a", ["b"]),
        (["a"], "", ["a"]),
        (["system/Patient.read"], "system/Patient.rs", []),
        (["system/Patient.rs"], "system/Patient.read", []),
        (["system/Patient.write"], "system/Patient.cud", []),
        (["system/Patient.*"], "system/Patient.cruds", []),
        (["system/Patient.*"], "system/Patient.read system/Patient.write", []),
        (["system/Patient.rs"], "system/*.read", []),
        (["system/*.rs"], "system/Patient.rs", ["system/*.rs"]),
        (["system/Patient.rs"], "system/Patient.r", ["system/Patient.rs"]),
        (["system/Patient.rs"], "system/Observation.rs", ["system/Patient.rs"]),
        (["system/Patient.rs"], "user/Patient.rs", ["system/Patient.rs"]),
        (["system/Observation.rs?category=lab"], "system/Observation.rs", []),
        (["system/Observation.rs"], "system/Observation.rs?category=lab", ["system/Observation.rs"]),
        (["read"], "READ", ["read"]),
    ],
)
def test_scopes_that_no_granted_one_covers_are_missing(
    asked: list[str], granted: str | None, lacking: list[str]
) -> None:
    assert list(missing(asked, granted)) == lacking


# ------------------------------------------------------------------ external accounts (rules E2, J9)

ACCOUNT: dict[str, Any] = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool-1/providers/gw",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "service_account_impersonation_url": (
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        "reader@proj-1.iam.gserviceaccount.com:generateAccessToken"
    ),
    "quota_project_id": "proj-1",
}
IAM = ACCOUNT["service_account_impersonation_url"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"service_account_impersonation_url": None},
        {"token_url": ...},
        {"subject_token_type": ...},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"universe_domain": "googleapis.com"},
        {"quota_project_id": ...},
        {
            "token_info_url": "https://evil.test",
            "client_id": "x",
            "client_secret": "y",
            "workforce_pool_user_project": "z",
        },
        {"credential_source": {"environment_id": "aws1", "url": "http://169.254.169.254/", "region_url": "http://x"}},
    ],
)
def test_an_external_account_is_taken(changes: dict[str, Any]) -> None:
    """Rules E2: members that aren't used do no harm."""
    value = {k: v for k, v in (ACCOUNT | changes).items() if v is not ...}
    assert account_faults(auth("gcp_wif"), json.dumps(value), "acme", NOBODY) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "service_account"}, "type"),
        ({"type": "authorized_user"}, "type"),
        ({"type": "impersonated_service_account"}, "type"),
        ({"type": ["external_account"]}, "type"),
        ({"type": ...}, "type"),
        ({"token_url": "https://sts.googleapis.com.evil.test/v1/token"}, "token_url"),
        ({"token_url": "http://sts.googleapis.com/v1/token"}, "token_url"),
        ({"token_url": "https://sts.googleapis.com/v1/token?x"}, "token_url"),
        ({"token_url": None}, "token_url"),
        (
            {"service_account_impersonation_url": IAM.replace("googleapis.com", "googleapis.com.evil.test", 1)},
            "impersonation",
        ),
        ({"service_account_impersonation_url": IAM.replace("://", "://u@")}, "impersonation"),
        ({"service_account_impersonation_url": IAM.replace("https://iam", "https://evil.test/iam")}, "impersonation"),
        ({"service_account_impersonation_url": IAM.replace("reader@", "x/../../y@")}, "impersonation"),
        (
            {"service_account_impersonation_url": IAM.replace("proj-1.iam.gserviceaccount.com", "evil.test")},
            "impersonation",
        ),
        ({"service_account_impersonation_url": IAM + "\n"}, "impersonation"),
        ({"service_account_impersonation_url": IAM + "?a=b"}, "impersonation"),
        ({"service_account_impersonation_url": IAM.replace("https", "http")}, "impersonation"),
        ({"service_account_impersonation_url": IAM.replace("generateAccessToken", "signJwt")}, "impersonation"),
        ({"service_account_impersonation_url": 7}, "impersonation"),
        ({"universe_domain": "evil.test"}, "universe_domain"),
        ({"universe_domain": None}, "universe_domain"),
        ({"audience": ACCOUNT["audience"] + "\n"}, "audience"),
        ({"audience": "https:" + ACCOUNT["audience"]}, "audience"),
        ({"audience": ACCOUNT["audience"].replace("123", "my-project")}, "audience"),
        ({"audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q"}, "audience"),
        ({"audience": ...}, "audience"),
        ({"subject_token_type": "urn:ietf:params:aws:token-type:aws4_request"}, "subject_token_type"),
        ({"credential_source": {"file": "/etc/passwd"}}, "local file"),
        ({"credential_source": {"url": "http://169.254.169.254/"}}, "calls a URL"),
        ({"credential_source": {"executable": {"command": "id"}}}, "runs a program"),
        ({"credential_source": {"certificate": {"use_default_certificate_config": True}}}, "local key files"),
        ({"credential_source": {"environment_id": "azure", "url": "http://x"}}, "calls a URL"),
        ({"credential_source": "file"}, "left out"),
        ({"quota_project_id": "a\r\nX: y"}, "quota_project_id"),
    ],
)
def test_an_external_account_that_could_lead_elsewhere_is_refused(changes: dict[str, Any], says: str) -> None:
    """Rules E2, J9: the attack table."""
    value = {k: v for k, v in (ACCOUNT | changes).items() if v is not ...}
    found = account_faults(auth("gcp_wif"), json.dumps(value), "acme", NOBODY)
    assert [fault.field for fault in found] == ["api_key_value"]
    assert says in found[0].message


@pytest.mark.parametrize("text", ["", "not json", "[]", '"x"', "{", "null", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    assert len(account_faults(auth("gcp_wif"), text, "acme", NOBODY)) == 1


# ------------------------------------------------------------------ whose identity (rules E1)

GATEWAY = "https://gw.example.com"


@pytest.mark.parametrize(
    ("changes", "public_url", "field"),
    [
        ({}, GATEWAY, None),
        ({"assertion_subject": "workspace:acme:anything"}, GATEWAY, None),
        ({"assertion_issuer": f"{GATEWAY}/v1/acme/integrations/i-1"}, GATEWAY, None),
        ({"assertion_issuer": "https://idp.example.org", "assertion_subject": "robot"}, GATEWAY, None),
        ({"assertion_issuer": "https://idp.example.org"}, "", None),
        ({}, "", "assertion_issuer"),
        ({"assertion_subject": "workspace:other:integration:i-9"}, GATEWAY, "assertion_subject"),
        ({"assertion_subject": "workspace:acme"}, GATEWAY, "assertion_subject"),
        ({"assertion_subject": "robot"}, GATEWAY, "assertion_subject"),
        ({"assertion_issuer": f"{GATEWAY}/v1/other/integrations/i-9"}, GATEWAY, "assertion_issuer"),
        ({"assertion_issuer": GATEWAY}, GATEWAY, "assertion_issuer"),
        ({"assertion_issuer": "HTTPS://GW.example.com:443/v1/other"}, GATEWAY, "assertion_issuer"),
        ({"private_key_ssm_param_path": None, "assertion_subject": "robot"}, GATEWAY, None),
        ({"private_key_ssm_param_path": None}, GATEWAY, "private_key_ssm_param_path"),
    ],
)
def test_no_tenant_can_speak_for_another(changes: dict[str, Any], public_url: str, field: str | None) -> None:
    """Rules E1: under our public URL neither iss nor sub can be chosen."""
    found = identity_faults(auth("gcp_wif", **changes), "acme", "i-1", public_url, NOBODY)
    assert [fault.field for fault in found] == ([field] if field else [])


OWN = {"private_key_ssm_param_path": None}
LENT = OwnIdentity((AllowedIdentity("acme", ACCOUNT["audience"], "reader@proj-1.iam.gserviceaccount.com"),))


@pytest.mark.parametrize(
    "half",
    [
        {"token_url": URL},
        {"client_id": "x"},
        {"client_secret_ssm_param_path": "/a/s"},
        {"assertion_subject": "workspace:acme:x"},
        {"token_url": URL, "client_id": "x"},
    ],
)
def test_half_of_another_source_never_turns_into_the_gateways_own_identity(half: dict[str, Any]) -> None:
    """Rules E1: the first that is configured; what is lent is never taken by an oversight."""
    config = auth("gcp_wif", **OWN, **half)
    assert [fault.field for fault in faults(config)] == ["private_key_ssm_param_path"]
    assert identity_faults(config, "acme", "i-1", GATEWAY, LENT) == []


@pytest.mark.parametrize("kind", [AWS_TYPE, ACCOUNT["subject_token_type"]])
def test_the_gateways_own_identity_is_taken_where_the_operator_lends_it(kind: str) -> None:
    config, text = auth("gcp_wif", **OWN), json.dumps(ACCOUNT | {"subject_token_type": kind})
    assert faults(config) == []
    assert identity_faults(config, "acme", "i-1", "", LENT) == []
    assert account_faults(config, text, "acme", LENT) == []


def _pool(old: str, new: str) -> dict[str, Any]:
    return {"audience": ACCOUNT["audience"].replace(old, new)}


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("other", {}),
    ("ACME", {}),
    ("acme-prod", {}),
    ("acme", _pool("pool-1", "pool-2")),
    ("acme", _pool("pool-1", "POOL-1")),
    ("acme", _pool("pool-1", "pool%2d1")),
    ("acme", _pool("pool-1", "pool-1 ")),
    ("acme", _pool("pool-1", "../workloadIdentityPools/pool-1")),
    ("acme", _pool("projects/123", "projects/0123")),
    ("acme", _pool("projects/123", "projects/\u0661\u0662\u0663")),
    ("acme", _pool("/gw", "/gw/")),
    ("acme", _pool("/gw", "/gw\n")),
    ("acme", _pool("//iam", "https://iam")),
    ("acme", {"service_account_impersonation_url": None}),
    ("acme", {"service_account_impersonation_url": IAM.replace("reader@", "writer@")}),
    ("acme", {"service_account_impersonation_url": IAM.replace("reader@", "Reader@")}),
    ("acme", {"service_account_impersonation_url": IAM.replace("reader@", "reader%40")}),
    ("acme", {"service_account_impersonation_url": IAM.replace("reader@proj-1", "reader@proj-2")}),
    ("acme", {"service_account_impersonation_url": IAM.replace("/-/", "/proj-1/")}),
    ("acme", {"service_account_impersonation_url": IAM + "#"}),
]


@pytest.mark.parametrize(("workspace", "changes"), OTHERS)
@pytest.mark.parametrize("kind", [AWS_TYPE, ACCOUNT["subject_token_type"]])
def test_the_gateways_own_identity_is_refused_for_anything_that_is_not_on_the_list(
    workspace: str, changes: dict[str, Any], kind: str
) -> None:
    """Rules E1, J9: another tenant's pool, and every spelling of one's own; compared as written."""
    text = json.dumps(ACCOUNT | {"subject_token_type": kind} | changes)
    found = account_faults(auth("gcp_wif", **OWN), text, workspace, LENT)
    assert [fault.field for fault in found] == ["api_key_value"]
    assert account_faults(auth("gcp_wif", **OWN), text, workspace, NOBODY) != []


def test_what_is_said_of_a_strangers_pool_is_said_of_one_that_nobody_has() -> None:
    """Rules J9: the answer doesn't tell whether the pool is on the list for somebody else."""
    theirs = OwnIdentity((*LENT.allowed, AllowedIdentity("other", ACCOUNT["audience"].replace("pool-1", "pool-9"), "")))
    text = json.dumps(ACCOUNT | _pool("pool-1", "pool-9") | {"service_account_impersonation_url": None})
    config = auth("gcp_wif", **OWN)
    assert account_faults(config, text, "acme", theirs) == account_faults(config, text, "acme", LENT)
