"""The examples of docs/config-as-code.md and docs/connect.md are true."""

import re
from pathlib import Path

from server.config_check import check_entries
from server.config_file import parse_text
from server.host_files import HOST_FILES
from tests.world import LOOPBACK
from tools.checks import CheckRules

DOCS = Path(__file__).parent.parent / "docs"


def test_the_files_of_the_guide_have_no_faults() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "config-as-code.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        entries = parse_text(block, "guide", {"SHOP_KEY": "k"})
        check_entries(entries, CheckRules(LOOPBACK))
        assert entries[0].name == "shop"


def test_the_table_of_hosts_is_the_one_that_is_written() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| `?([^|`]+)`? \|", (DOCS / "connect.md").read_text(), re.M)
    assert [name for name, _ in rows] == [*(host.name for host in HOST_FILES), "inspector"]
    for host, (_, file) in zip(HOST_FILES, rows, strict=False):
        path = str(host.path(Path("~"), Path()))
        assert path.endswith(file), host.name
