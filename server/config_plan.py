"""Config as code: entries of a file against a workspace, first as a plan that changes nothing, then carried out.

An entry is the whole of an integration: what it leaves out is the default. Two things stay when they are left out, since a
file can't know them: `enabled`, which an operator switches, and stored secrets of the same auth type.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from server.config_diff import Change, changes_between
from server.config_file import ConfigError, Entry, Fault
from tools.bindings import secret_uses
from tools.callers import Caller
from tools.checks import inline_values
from tools.errors import BuiltinReadOnly, GatewayError, InvalidRequest
from tools.generated_keys import without_kept_key
from tools.models import INLINE_SECRETS, CreateIntegrationRequest, Integration, UpdateIntegrationRequest
from tools.naming import tool_name
from tools.parsing import parse_create
from tools.registry import Registry
from tools.secrets import SecretStore
from tools.writing import Written

Action = Literal["create", "update", "delete", "keep"]
NEW_VALUE = "(new value)"


class Door(Protocol):
    """How the plan writes: `tools.admin.Admin` for people, or the writer of the operator's own file."""

    async def create(
        self, caller: Caller, request: CreateIntegrationRequest, *, validate_only: bool = False
    ) -> Written: ...

    async def update(
        self,
        caller: Caller,
        ref: str,
        request: UpdateIntegrationRequest,
        if_match: int | None = None,
        *,
        validate_only: bool = False,
    ) -> Written: ...

    async def delete(self, caller: Caller, ref: str, if_match: int | None = None) -> Integration: ...


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one integration. `after` is None where it goes; `request` None where nothing is written."""

    action: Action
    name: str
    before: Integration | None
    after: Integration | None
    changes: tuple[Change, ...] = ()
    request: CreateIntegrationRequest | UpdateIntegrationRequest | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """In the order of the file; what goes comes last."""

    steps: tuple[Step, ...]

    @property
    def is_empty(self) -> bool:
        return all(step.action == "keep" for step in self.steps)


class Planner:
    """Plans and carries out for one caller. `builtin`: the integrations of the operator's own file, and no others."""

    def __init__(
        self,
        door: Door,
        registry: Registry,
        secrets: SecretStore,
        caller: Caller,
        *,
        tool_name_max: int,
        builtin: bool = False,
    ) -> None:
        self._door, self._registry, self._secrets, self._caller = door, registry, secrets, caller
        self._tool_name_max, self._builtin = tool_name_max, builtin

    async def plan(self, entries: Sequence[Entry], *, prune: bool = False) -> Plan:
        """Checks everything and writes nothing. Raises ConfigError with every fault of every entry."""
        _, stored = await self._registry.load(self._caller.workspace)
        existing = {i.name: i for i in stored}
        steps: list[Step] = []
        faults: list[Fault] = []
        for entry in entries:
            try:
                steps.append(await self._step(entry, existing.get(entry.name or "")))
            except InvalidRequest as e:
                faults += entry.faults(e)
            except GatewayError as e:
                faults.append(entry.fault((), e.message, e.code))
        faults = faults or _clashes(entries, steps, self._tool_name_max)
        if faults:
            raise ConfigError(faults)
        named = {entry.name for entry in entries}
        gone = [i for i in stored if prune and i.name not in named and i.builtin == self._builtin]
        return Plan((*steps, *(Step("delete", i.name, i, None) for i in gone)))

    async def carry_out(self, plan: Plan) -> None:
        """Each integration is written whole. Raises VersionMismatch or NameTaken where somebody was faster than we."""
        for step in plan.steps:
            version = step.before.version if step.before else None
            match step.request:
                case CreateIntegrationRequest():
                    await self._door.create(self._caller, step.request)
                case UpdateIntegrationRequest():
                    await self._door.update(self._caller, step.name, step.request, version)
                case None if step.action == "delete":
                    await self._door.delete(self._caller, step.name, version)
                case None:
                    pass

    async def _step(self, entry: Entry, current: Integration | None) -> Step:
        request = parse_create(entry.data)
        if current is None:
            after = (await self._door.create(self._caller, request, validate_only=True)).after
            return Step("create", request.name, None, after, (), request)
        if self._builtin and not current.builtin:
            raise BuiltinReadOnly(
                f"{request.name} exists already and isn't of this file: delete it, or rename this one"
            )
        if current.builtin and not self._builtin:
            raise BuiltinReadOnly(f"{request.name} belongs to the operator's file: change it there")
        update = _whole(request)
        after = (await self._door.update(self._caller, current.id, update, validate_only=True)).after
        changes = (*changes_between(current, after), *await self._new_values(request, current))
        if not changes:
            return Step("keep", request.name, current, current)
        return Step("update", request.name, current, after, changes, update)

    async def _new_values(self, request: CreateIntegrationRequest, current: Integration) -> list[Change]:
        """Inline values that differ from what is stored."""
        changes: list[Change] = []
        fields = {path: field for field, path in INLINE_SECRETS.items()}
        for path_field, value in inline_values(without_kept_key(request.auth, current)).items():
            path: str | None = getattr(current.auth, path_field) if current.auth is not None else None
            binding = current.bindings.get(path) if path is not None else None
            same = False
            if path is not None and binding is not None and binding.owned:
                with suppress(GatewayError):  # it can't be read: write it
                    same = (await self._secrets.read(path, binding.version)).value == value
            if not same:
                changes.append(Change(f"auth.{fields[path_field]}", "", NEW_VALUE))
        return changes


def _whole(request: CreateIntegrationRequest) -> UpdateIntegrationRequest:
    """An update that leaves nothing as it was, but `enabled` where the file doesn't say."""
    fields: dict[str, Any] = {n: getattr(request, n) for n in UpdateIntegrationRequest.model_fields}
    if "enabled" not in request.model_fields_set:
        del fields["enabled"]
    return UpdateIntegrationRequest.model_construct(set(fields), **fields)


def _clashes(entries: Sequence[Entry], steps: Sequence[Step], tool_name_max: int) -> list[Fault]:
    """Between the entries of one file: what each is alone checked against is only what is stored already."""
    tools: dict[str, Integration] = {}
    keys: dict[str, Integration] = {}
    faults: list[Fault] = []
    for entry, step in zip(entries, steps, strict=True):
        assert step.after is not None, "entries are never deleted"
        for i, endpoint in enumerate(step.after.endpoints):
            name = tool_name(step.after.name, endpoint.name, tool_name_max)
            other = tools.setdefault(name.lower(), step.after)
            if other is not step.after:
                said = f"its tool would be named {name}, which is taken by integration {other.name}"
                faults.append(entry.fault(("endpoints", i, "name"), said))
        for use in secret_uses(step.after):
            if use.loc[-1] == "private_key_ssm_param_path":
                other = keys.setdefault(use.path, step.after)
                if other is not step.after:
                    said = f"this key signs for {other.name} already (rules C4); make one of its own"
                    faults.append(entry.fault(use.loc, said))
    return faults
