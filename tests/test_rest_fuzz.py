"""schemathesis against our own document with a valid key: no 5xx, no undocumented status, no answer outside its schema.

It has an environment of its own (.tools/schemathesis, made at first use), since it pins libraries that the product doesn't.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rest import rest_world

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HOME = Path(__file__).parent.parent / ".tools" / "schemathesis"
VERSION = "4.32.5"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,use_after_free,ensure_resource_availability"
)


@pytest.fixture(scope="module")
def st() -> Path:
    program = HOME / "bin" / "st"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        subprocess.run([HOME / "bin" / "pip", "install", "-q", f"schemathesis=={VERSION}"], check=True)
    return program


async def test_no_request_makes_the_server_fail_or_leave_its_own_document(tmp_path: Path, st: Path) -> None:
    async with rest_world(tmp_path) as rest:
        await rest.create()
        # Keys are left out of deletion and rotation: it would end its own.
        arguments = [
            *(
                "run",
                f"{rest.url}/openapi.json",
                "--url",
                rest.url,
                "-H",
                f"Authorization: Bearer {await rest.world.key()}",
            ),
            *("--max-examples", "15", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing,stateful"),
            *("--exclude-operation-id", "delete-api-key", "--exclude-operation-id", "rotate-api-key"),
            *("--continue-on-failure", "--no-color", "--generation-database", "none", "--request-timeout", "30"),
        ]
        process = await asyncio.create_subprocess_exec(
            st, *arguments, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-6000:]
