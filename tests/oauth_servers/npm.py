"""The node packages of these tests: installed once per lock file under .tools/, from whatever registry npm is set to."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from oauth_servers.running import HERE, TOOLS, cannot_start

FILES = ("package.json", "package-lock.json")


def installed() -> Path:
    """The folder with node_modules; scripts are copied there so that node finds their imports."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        cannot_start("node and npm are not installed")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:12]
    root = TOOLS / f"oauth_servers-{digest}"
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        for name in FILES:
            shutil.copy(HERE / name, root)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
        if run.returncode != 0:
            cannot_start(f"the packages of tests/oauth_servers can't be installed: {run.stderr.strip()[-200:]}")
        (root / "done").touch()
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, root)
    return root
