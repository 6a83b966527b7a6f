"""The noun "finding": what `doctor` says of one thing."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

Check = Literal[
    "settings",
    "home_folder",
    "key_file",
    "registry_file",
    "registry_wal",
    "disk",
    "file_descriptors",
    "environment_proxy",
    "outbound_proxy",
    "ca_file",
    "client_certificate",
    "config_file",
    "registry",
    "database_clock",
    "identity_provider",
    "clock",
    "hosts_clocks",
    "keys",
    "signing_key",
    "integrations",
    "upstream_hosts",
    "secret_store",
    "secrets",
    "dns",
    "tools",
    "integration",
    "host_file",
]
"""What programs can go by: these names stay."""
Verdict = Literal["ok", "note", "wrong"]
SOON = timedelta(days=14)
"""What ends within this is told before it does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`do` is empty where there is nothing to do; `about` says which one, where there can be several."""

    id: Check
    verdict: Verdict
    said: str
    do: str = ""
    about: str = ""

    @property
    def what(self) -> str:
        """As people read it."""
        return f"{self.id.replace('_', ' ')} {self.about}".rstrip()
