"""The examples in docs/auth are configs that would be taken, and the pages name only fields that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.credentials.gcp_wif import account_faults
from tools.credentials.own_identity import NOBODY
from tools.credentials.types import TYPES, faults
from tools.models import INLINE_SECRETS, AuthConfig, CreateIntegrationRequest

PAGES = Path(__file__).parent.parent / "docs" / "auth"
KINDS = sorted(TYPES)


def examples(kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", (PAGES / f"{kind}.md").read_text(), re.DOTALL)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_a_page_is_a_config_without_fault(kind: str) -> None:
    request = CreateIntegrationRequest.model_validate(examples(kind)[0])
    assert request.auth is not None
    assert request.auth.type == kind
    given = request.auth.model_dump(exclude=set(INLINE_SECRETS))
    stored = {path: "/gw/acme/x" for inline, path in INLINE_SECRETS.items() if getattr(request.auth, inline)}
    assert faults(AuthConfig(**(given | stored))) == []


def test_the_external_account_of_the_page_is_taken() -> None:
    by_key = AuthConfig(type="gcp_wif", ssm_param_path="/a/b", private_key_ssm_param_path="/a/c")
    assert account_faults(by_key, json.dumps(examples("gcp_wif")[1]), "acme", NOBODY) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_overview_links_to_every_page(kind: str) -> None:
    assert f"({kind}.md)" in (PAGES / "README.md").read_text()


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md")))
def test_a_page_names_only_fields_that_exist(page: str) -> None:
    """Words in code that look like a config field of ours are one."""
    named = set(
        re.findall(
            r"`((?:assertion|token|client|gcp|private|bearer|header)_[a-z_]+)(?:: [^`]*)?`", (PAGES / page).read_text()
        )
    )
    assert named <= set(AuthConfig.model_fields) | set(INLINE_SECRETS) | {"client_credentials", "bearer_token"}
