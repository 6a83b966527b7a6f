"""The gate on what ships: builds the wheel and looks at what is in it. `python -m tests.wheel`"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NEEDED = (
    "server/demo/integration.yaml",
    "server/demo/records.json",
    "server/demo/NOTICE",
    "server/store/migrations/versions/v0001_first.py",
    "server/py.typed",
    "tools/gateway.py",
)
FOREIGN = ("tests/", "docs/", "node_modules", ".tools", "__pycache__", ".pem", ".key", ".db")


def faults(names: list[str]) -> list[str]:
    """What is wrong with a wheel that holds these files."""
    found = [f"missing: {name}" for name in NEEDED if name not in names]
    for name in names:
        if not name.startswith(("server/", "tools/", "integrations_mcp-")):
            found.append(f"not ours: {name}")
        found += [f"must not ship: {name}" for part in FOREIGN if part in name]
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", folder, "."], check=True, stdout=subprocess.DEVNULL
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
    found = faults(names)
    print("\n".join(found) or f"the wheel holds {len(names)} files, all of them ours")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
