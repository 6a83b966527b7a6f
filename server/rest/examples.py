"""An example for every parameter, body and answer of the REST API; tests hold them against the schemas and the server."""

from typing import Any

_ID = "7d9f2a54-0c1b-4e77-9a52-1f6f0a4b8c11"
_ENDPOINT: dict[str, Any] = {
    "name": "get_patient",
    "description": "Looks one patient up by id.",
    "method": "GET",
    "path": "/patients/{patient_id}",
    "input_schema": {
        "type": "object",
        "properties": {"patient_id": {"type": "string", "description": "Like p-17."}},
        "required": ["patient_id"],
    },
    "response_filter": ["id", "name", "born"],
}
_CREATE: dict[str, Any] = {
    "name": "clinic",
    "display_name": "Clinic",
    "protocol": "rest",
    "base_url": "https://api.clinic.example",
    "auth": {"type": "bearer_token", "bearer_token_value": {"value": "the-token-of-the-clinic"}},
    "endpoints": [_ENDPOINT],
}
_INTEGRATION: dict[str, Any] = {
    "id": _ID,
    "workspace_id": "acme",
    "name": "clinic",
    "display_name": "Clinic",
    "protocol": "rest",
    "base_url": "https://api.clinic.example",
    "auth": {
        "type": "bearer_token",
        "token_ssm_param_path": f"/gw/acme/integrations/{_ID}/token",
        "token_lifetime_seconds": 3600,
    },
    "endpoints": [_ENDPOINT],
    "enabled": True,
    "builtin": False,
    "created_at": "2026-11-24T09:00:00Z",
    "updated_at": "2026-11-24T09:00:00Z",
}
_IMPORT: dict[str, Any] = {
    "integration": "clinic",
    "id": None,
    "change": "create",
    "applied": False,
    "enabled": False,
    "base_url": "https://api.clinic.example",
    "auth": {"type": "bearer_token"},
    "endpoints": [
        {
            "operation": "GET /patients/{patient_id}",
            "name": "get_patient",
            "tool": "clinic_get_patient",
            "change": "add",
            "operation_id": "getPatient",
            "tags": ["patients"],
            "tokens": 96,
        }
    ],
    "left_out": [
        {
            "operation": "POST /patients/{patient_id}/photo",
            "why": "its body is multipart/form-data: files and parts can't be sent",
        }
    ],
    "counts": {"add": 1, "left_out": 1},
    "tokens": 96,
    "warnings": ["calls are signed by bearer_token: give its secret (the token)"],
    "problems": [],
}
_PATIENT = {"id": "p-17", "name": "Ada Moss", "born": "1958-03-02"}
_STAGES: dict[str, Any] = {
    "status_code": 200,
    "duration_ms": 41.7,
    "retries": 0,
    "raw_response": {**_PATIENT, "internal": 3},
    "after_filter": _PATIENT,
    "after_mapping": _PATIENT,
    "final_result": '{"id":"p-17","name":"Ada Moss","born":"1958-03-02"}',
    "error": None,
}
_HEALTH: dict[str, Any] = {
    "id": _ID,
    "name": "clinic",
    "display_name": "Clinic",
    "protocol": "rest",
    "status": "healthy",
    "auth": "ok",
    "latency_ms": 38.2,
    "message": "answered 200",
    "checked_at": "2026-11-24T09:05:00Z",
}
_KEY: dict[str, Any] = {
    "key_id": "key_0b0f6c1d2e3a4b5c6d7e",
    "name": "claude on my laptop",
    "role": "agent",
    "permissions": ["Integration.execute"],
    "integrations": [_ID],
    "tools": None,
    "created_at": "2026-11-24T09:00:00Z",
    "expires_at": "2026-12-24T09:00:00Z",
    "last_used_at": None,
}
_NEW_KEY = {**_KEY, "api_key": "imcp_shown-this-once"}
_SECRET = {
    "name": "clinic_key",
    "path": "/gw/acme/shared/clinic_key",
    "origins": ["https://api.clinic.example:443"],
    "created_at": "2026-11-24T09:00:00Z",
    "updated_at": "2026-11-24T09:00:00Z",
}
_CALL = {
    "at": "2026-11-24T09:10:00Z",
    "call_id": "c_1f2e3d4c5b6a",
    "request_id": "req_9a8b7c6d5e4f1",
    "caller": _KEY["key_id"],
    "caller_kind": "key",
    "tool": "clinic_get_patient",
    "integration_id": _ID,
    "status_code": 200,
    "error_code": None,
    "duration_ms": 41.7,
    "attempts": 1,
    "response_bytes": 182,
    "arguments": None,
}
_CHANGE: dict[str, Any] = {
    "at": "2026-11-24T09:30:00Z",
    "caller": _KEY["key_id"],
    "caller_kind": "key",
    "action": "integration.update",
    "target": _ID,
    "name": "clinic",
    "changes": [{"at": "/display_name", "before": "Clinic", "after": "Clinic (north)"}],
}

PARAMETERS: dict[str, Any] = {
    "workspace_id": "acme",
    "integration_id": _ID,
    "endpoint_name": "get_patient",
    "approval_id": "a_0123456789abcdef",
    "enabled": True,
    "protocol": "rest",
    "search": "clin",
    "sort_by": "+name",
    "limit": 10,
    "continuation_token": 20,
    "If-Match": '"3"',
    "explain": False,
    "key_id": _KEY["key_id"],
    "name": "clinic_key",
    "tool": "clinic_get_patient",
    "integration": _ID,
    "outcome": "failed",
    "request_id": "req_9a8b7c6d5e4f1",
    "target": _ID,
}
BODIES: dict[str, Any] = {
    "create-integration": _CREATE,
    "update-integration": {"display_name": "Clinic (north)", "enabled": True},
    "test-integration-endpoint": {"params": {"patient_id": "p-17"}},
    "preview-integration-endpoint": {
        "response": _STAGES["raw_response"],
        "params": {"patient_id": "p-17"},
        "endpoint": {"result_template": "{{ name }}, born {{ born }}"},
    },
}
BODIES.update(
    {
        "create-api-key": {
            "duration_days": 30,
            "name": "claude on my laptop",
            "role": "agent",
            "integrations": ["clinic"],
        },
        "put-secret": {"value": "the-key-of-the-clinic", "origins": ["https://api.clinic.example"]},
        "import-api": {"url": "https://api.clinic.example/openapi.json", "name": "clinic", "tags": ["patients"]},
    }
)
ANSWERS: dict[str, Any] = {
    "list-integrations": {"items": [_INTEGRATION], "has_more": False, "continuation_token": None, "total": 1},
    "create-integration": _INTEGRATION,
    "get-integration": _INTEGRATION,
    "update-integration": {**_INTEGRATION, "display_name": "Clinic (north)", "updated_at": "2026-11-24T09:30:00Z"},
    "integration-health-check": {
        "status": "healthy",
        "checked_at": "2026-11-24T09:05:00Z",
        "counts": {"healthy": 1},
        "integrations": [_HEALTH],
    },
    "test-integration-connection": _HEALTH,
    "test-integration-endpoint": _STAGES,
    "preview-integration-endpoint": {
        **_STAGES,
        "status_code": None,
        "duration_ms": 0,
        "final_result": "Ada Moss, born 1958-03-02",
    },
}


ANSWERS.update(
    {
        "create-api-key": _NEW_KEY,
        "rotate-api-key": _NEW_KEY,
        "list-api-keys": {"items": [_KEY], "has_more": False, "continuation_token": None, "total": 1},
        "put-secret": _SECRET,
        "list-secrets": {"items": [_SECRET], "has_more": False, "continuation_token": None, "total": 1},
        "import-api": _IMPORT,
        "list-calls": {"items": [_CALL], "has_more": False, "continuation_token": None},
        "list-changes": {"items": [_CHANGE], "has_more": False, "continuation_token": None},
    }
)

_JWK = {"kty": "EC", "use": "sig", "alg": "ES384", "kid": "wXPn6gU3", "crv": "P-384", "x": "l7nD...", "y": "b0Qe..."}
_ISSUER = "https://gateway.example.com/v1/acme/integrations/" + _INTEGRATION["id"]
_SIGNING_KEYS = {
    "integration": "clinic",
    "jwks_url": f"{_ISSUER}/jwks.json",
    "keys": [
        {
            "kid": "wXPn6gU3",
            "alg": "ES384",
            "state": "active",
            "since": "2026-11-24T09:00:00Z",
            "until": None,
            "waits_for_confirmation": False,
            "secret_path": f"/gw/acme/integrations/{_INTEGRATION['id']}/private_key",
        }
    ],
}
_TOKEN_ENDPOINT = {"integration": "clinic", "token_endpoint": "https://login.clinic.example/token", "confirmed": False}
BODIES.update(
    {
        "create-signing-key": {"alg": "ES384", "hold": True},
        "confirm-token-endpoint": {"token_endpoint": _TOKEN_ENDPOINT["token_endpoint"]},
    }
)
ANSWERS.update(
    {
        "get-jwks": {"keys": [_JWK]},
        "get-openid-configuration": {
            "issuer": _ISSUER,
            "jwks_uri": f"{_ISSUER}/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        },
        "list-signing-keys": _SIGNING_KEYS,
        "create-signing-key": _SIGNING_KEYS,
        "confirm-signing-key": _SIGNING_KEYS,
        "get-token-endpoint": _TOKEN_ENDPOINT,
        "confirm-token-endpoint": {**_TOKEN_ENDPOINT, "confirmed": True},
    }
)

_APPROVAL: dict[str, Any] = {
    "id": "a_0123456789abcdef",
    "state": "waiting",
    "tool": "clinic_add_note",
    "integration_id": _ID,
    "integration": "clinic",
    "integration_version": 3,
    "caller": "k_0f3a9b7c",
    "caller_kind": "key",
    "method": "POST",
    "url": "https://api.clinic.example/patients/p-17/notes",
    "headers": [],
    "body": '{"text":"Called back."}',
    "created_at": "2026-11-24T09:00:00Z",
    "expires_at": "2026-11-24T09:15:00Z",
}
ANSWERS.update(
    {
        "list-approvals": {"items": [_APPROVAL]},
        "get-approval": _APPROVAL,
        "approve-call": {**_APPROVAL, "state": "approved"},
        "deny-call": {**_APPROVAL, "state": "denied"},
    }
)


def _error(detail: str, code: str) -> dict[str, str]:
    return {"detail": detail, "error_code": code, "request_id": "req_5b1f0c2d9e8a4b7c6d5e"}


ERRORS: dict[int, Any] = {
    401: _error("an API key is needed: send Authorization: Bearer KEY", "unauthenticated"),
    403: _error("this needs the permission Integration.update", "forbidden"),
    404: _error("no integration clinik in this workspace", "not_found"),
    409: _error("there is an integration named clinic already; update it or choose another name", "name_taken"),
    412: _error("it was changed meanwhile: its version is 4, not 3; read it again", "version_mismatch"),
    413: _error("the body is over the limit of 4194304 bytes", "too_large"),
    422: {"detail": [{"loc": ["body", "display_name"], "msg": "Field required", "type": "missing"}]},
    429: _error("too many wrong API keys or tokens from this address", "rate_limited"),
    503: _error("The registry (registry.db) can't be written: the disk is full.", "storage_unavailable"),
}
