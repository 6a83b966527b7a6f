"""Signing keys and the local store's key from the shell: what a person sees, and that no private part is in it (rules D2, D3)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import run, shown

pytestmark = pytest.mark.slow  # a process for each command
AUTH = {
    "type": "smart_backend_services",
    "client_id": "me",
    "scopes": ["system/Patient.rs"],
    "private_key_value": {"value": "generate:ES384"},
}
PUBLIC_URL = {"INTEGRATIONS_MCP_PUBLIC_URL": "https://gw.example.com"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    body = {"name": "ehr", "display_name": "EHR", "base_url": "https://ehr.example.com/fhir", "auth": AUTH}
    file = tmp_path / "ehr.json"
    file.write_text(json.dumps(body))
    done = run(tmp_path / "home", "load", str(file))
    assert done.returncode == 0, done.stderr
    return tmp_path / "home"


def keys(home: Path, *args: str) -> list[dict[str, Any]]:
    return shown(run(home, "auth", *args, "--json", **PUBLIC_URL))["keys"]


def test_a_rotation_with_an_upload_by_hand(home: Path) -> None:
    """The downloaded set has both keys before the next one may sign."""
    assert [k["state"] for k in keys(home, "rotate-key", "ehr", "--hold")] == ["active", "next"]
    uploaded = json.loads(run(home, "auth", "jwks", "ehr").stdout)["keys"]
    told = keys(home, "rotate-key", "ehr", "--confirm")
    assert [k["waits_for_confirmation"] for k in told] == [False, False]
    assert [k["kid"] for k in uploaded] == [k["kid"] for k in told]
    assert {name for k in uploaded for name in k} == {"kty", "use", "alg", "kid", "crv", "x", "y"}


def test_a_compromised_key_is_gone_at_once(home: Path) -> None:
    (before,) = keys(home, "keys", "ehr")
    (after,) = keys(home, "rotate-key", "ehr", "--compromised")
    assert after["kid"] != before["kid"]
    assert after["state"] == "active"


def test_the_url_to_register_is_told(home: Path) -> None:
    told = run(home, "auth", "keys", "ehr", **PUBLIC_URL)
    assert "https://gw.example.com/v1/default/integrations/" in told.stderr
    assert "set INTEGRATIONS_MCP_PUBLIC_URL" in run(home, "auth", "keys", "ehr").stderr


def test_a_credential_that_fails_is_exit_code_1_and_says_what_to_change(home: Path) -> None:
    done = run(home, "auth", "explain", "ehr")
    assert done.returncode == 1
    assert "what to change:" in done.stdout
    assert run(home, "auth", "explain", "nobody").returncode == 1


def test_everything_is_readable_after_a_change_of_the_key(home: Path) -> None:
    before, kid = (home / "secret.key").read_bytes(), keys(home, "keys", "ehr")[0]["kid"]
    done = run(home, "secrets", "rekey")
    assert (done.returncode, "1 value(s)" in done.stderr) == (0, True)
    assert (home / "secret.key").read_bytes() != before
    # A new key takes the old one's algorithm and place, for which the old private part's row must still be in order.
    assert keys(home, "rotate-key", "ehr")[0]["kid"] == kid
    assert "can't sign" not in run(home, "auth", "explain", "ehr").stdout


def test_the_store_in_use_is_no_place_to_move_to(home: Path) -> None:
    done = run(home, "secrets", "move", "--to", "local")
    assert done.returncode == 1
    assert "in use" in done.stderr
