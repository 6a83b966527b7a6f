"""The noun "caller": who is asking, for which workspace, and what they may do."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from tools.errors import MissingPermission

Permission = Literal[
    "Integration.view",
    "Integration.create",
    "Integration.update",
    "Integration.delete",
    "Integration.execute",
    "ApiKey.view",
    "ApiKey.create",
    "ApiKey.delete",
    "Secret.write",
]
Role = Literal["owner", "admin", "member", "operator", "viewer", "agent"]

ALL_PERMISSIONS: frozenset[Permission] = frozenset(get_args(Permission))
ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    "owner": ALL_PERMISSIONS,
    "admin": ALL_PERMISSIONS,
    "member": frozenset({"Integration.view", "Integration.create", "Integration.update", "Integration.execute"}),
    "operator": frozenset({"Integration.view", "Integration.execute"}),
    "viewer": frozenset({"Integration.view"}),
    "agent": frozenset({"Integration.execute"}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. `integrations` (ids) and `tools` (names) narrow what is seen and called; None is everything.

    `id` of a token is its issuer and subject with a blank between. `ends` is when a token's rights do; a key's are looked up.
    """

    id: str
    workspace: str
    kind: Literal["key", "token", "local"] = "key"
    role: Role = "agent"
    permissions: frozenset[Permission] = field(default_factory=frozenset[Permission])
    integrations: frozenset[str] | None = None
    tools: frozenset[str] | None = None
    ends: datetime | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raises MissingPermission."""
        if permission not in self.permissions:
            raise MissingPermission(permission)

    @property
    def is_admin(self) -> bool:
        """Owner or admin: may bind secrets to further origins and write shared secrets (rules A1, A2)."""
        return self.role in ("owner", "admin")

    @property
    def names_any_secret(self) -> bool:
        """The local owner may name any secret path (semantics: "Auth types")."""
        return self.kind == "local"

    def sees(self, integration_id: str, tool: str) -> bool:
        """Whether narrowing leaves this tool visible."""
        return (self.integrations is None or integration_id in self.integrations) and (
            self.tools is None or tool in self.tools
        )


def local_caller(workspace: str, *, read_only: bool = False, admin: bool = True) -> Caller:
    """The user at the keyboard: owner over stdio and the CLI, narrowed by --read-only and --no-admin."""
    permissions = ALL_PERMISSIONS
    if not admin:
        permissions = frozenset[Permission]({"Integration.execute"})
    elif read_only:
        permissions = frozenset[Permission]({"Integration.view", "Integration.execute", "ApiKey.view"})
    return Caller(id="local", workspace=workspace, kind="local", role="owner", permissions=permissions)
