"""Entries of a file checked alone: what `apply` checks but for what only a registry knows (stored secrets, existing names)."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from server.config_file import ConfigError, Entry, Fault
from tools.checks import CheckRules, check, check_inline, with_stand_ins
from tools.errors import InvalidRequest
from tools.models import CreateIntegrationRequest, Integration
from tools.parsing import parse_create


def check_entries(entries: Sequence[Entry], rules: CheckRules, workspace: str = "default") -> None:
    """Raises ConfigError with every fault of every entry."""
    faults: list[Fault] = []
    good: list[Integration] = []
    for entry in entries:
        try:
            request = parse_create(entry.data)
        except InvalidRequest as e:
            faults += entry.faults(e)
            continue
        integration = _as_stored(request, workspace)
        issues = check_inline(request.auth, ("body", "auth"), workspace, rules) if request.auth else []
        issues += check(integration, good, rules)
        faults += entry.faults(InvalidRequest(issues))
        good.append(integration)
    if faults:
        raise ConfigError(faults)


def _as_stored(request: CreateIntegrationRequest, workspace: str) -> Integration:
    now = datetime.now(UTC)
    auth = with_stand_ins(request.auth) if request.auth is not None else None
    rest = {name: getattr(request, name) for name in type(request).model_fields if name != "auth"}
    return Integration(**rest, auth=auth, id=str(uuid.uuid4()), workspace_id=workspace, created_at=now, updated_at=now)
