"""The child of test_rotation_killed.py: takes one step of a key rotation and kills itself with SIGKILL at a named moment of it.

    python -m tests.crash.rotator HOME NOW generate|advance|sweep PART OPERATION before|after

PART is `registry` or `secrets`. It ends with code 1 if it never comes to that moment.
"""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio

from server.app import open_app
from server.settings import Settings
from tests.crash.writer import WORKSPACE, sweeper
from tools.address_guard import NetworkPolicy
from tools.auth_admin import AuthAdmin
from tools.callers import local_caller
from tools.checks import CheckRules
from tools.writing import Writer

REF = "ehr"


class Deadly:
    """A part of the gateway that kills the process at one of its operations."""

    def __init__(self, part: Any, operation: str, moment: str) -> None:
        self._part, self._operation, self._moment = part, operation, moment

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._part, name)
        if name != self._operation:
            return real

        async def deadly(*args: Any, **named: Any) -> Any:
            if self._moment == "after":
                await real(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        return deadly


async def main(home: Path, now: datetime, step: str, part: str, operation: str, moment: str) -> None:
    async with open_app(Settings(home=home, workspace=WORKSPACE, log_level="error"), network=NetworkPolicy()) as app:
        registry: Any = app.registry
        secrets: Any = app.secrets
        if part == "registry":
            registry = Deadly(registry, operation, moment)
        else:
            secrets = Deadly(secrets, operation, moment)
        writer = Writer(registry, secrets, CheckRules(NetworkPolicy()))
        keys = AuthAdmin(app.admin, registry, writer, lambda _: sys.exit("no token is needed"), now=lambda: now)
        match step:
            case "generate":
                await keys.generate_key(local_caller(WORKSPACE), REF)
            case "advance":
                await keys.advance_keys()
            case _:
                await sweeper(registry, secrets).sweep()
    sys.exit(1)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]), *sys.argv[3:])
