"""Entries of a file checked alone: what `apply` checks but for what only a registry knows (stored secrets, existing names)."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from server.config_file import ConfigError, Entry, Fault
from tools.checks import CheckRules, check, check_inline, inline_values
from tools.errors import InvalidRequest
from tools.models import AuthConfig, CreateIntegrationRequest, Integration
from tools.parsing import parse_create

_STAND_IN = "/file/inline/value"
"""A path in place of an inline value: the checks ask for a path, and a file has the value itself."""


def check_entries(entries: Sequence[Entry], rules: CheckRules) -> None:
    """Raises ConfigError with every fault of every entry."""
    faults: list[Fault] = []
    good: list[Integration] = []
    for entry in entries:
        try:
            request = parse_create(entry.data)
        except InvalidRequest as e:
            faults += entry.faults(e)
            continue
        integration = _as_stored(request)
        issues = check_inline(request.auth, ("body", "auth")) if request.auth else []
        issues += check(integration, good, rules)
        faults += entry.faults(InvalidRequest(issues))
        good.append(integration)
    if faults:
        raise ConfigError(faults)


def _as_stored(request: CreateIntegrationRequest) -> Integration:
    now = datetime.now(UTC)
    auth = None
    if request.auth is not None:
        fields: dict[str, Any] = {n: getattr(request.auth, n) for n in AuthConfig.model_fields}
        fields.update(dict.fromkeys(inline_values(request.auth), _STAND_IN))
        auth = AuthConfig(**fields)
    rest = {name: getattr(request, name) for name in type(request).model_fields if name != "auth"}
    return Integration(**rest, auth=auth, id=str(uuid.uuid4()), workspace_id="default", created_at=now, updated_at=now)
