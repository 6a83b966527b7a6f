"""docs/rest.md is true: every curl line is run as printed, the permissions are those of the roles."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.rest import rest_world
from tools.callers import ROLE_PERMISSIONS, Role

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).parent.parent / "docs" / "rest.md").read_text()
COMMAND = re.compile(r"^(curl .*?)  # (\d{3})$", re.MULTILINE | re.DOTALL)
COMMANDS = [m.groups() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for m in COMMAND.finditer(block)]


async def test_every_command_of_the_page_answers_what_it_says(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    assert len(COMMANDS) == PAGE.count("curl -sS")
    async with rest_world(tmp_path) as rest:
        variables = {
            "URL": rest.url,
            "KEY": await rest.world.key(),
            "UPSTREAM": rest.upstream,
            "PATH": os.environ["PATH"],
        }
        for command, status in COMMANDS:
            process = await asyncio.create_subprocess_shell(command, env=variables, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert out.decode()[-3:] == status, command + out.decode()


@pytest.mark.parametrize(
    ("column", "role"), [(2, "owner"), (2, "admin"), (3, "member"), (4, "operator"), (5, "viewer"), (6, "agent")]
)
def test_the_table_of_permissions_is_that_of_the_roles(column: int, role: Role) -> None:
    rows = [
        row.strip("| ").split(" | ") for row in PAGE.splitlines() if re.match(r"\|.*(Integration|ApiKey|Secret)\.", row)
    ]
    assert len(rows) == 10
    for row in rows:
        needed = set(re.findall(r"(?:Integration|ApiKey|Secret)\.[a-z]+", row[1]))
        assert row[column] == ("yes" if needed <= ROLE_PERMISSIONS[role] else "no"), row
