"""Every module stands in a layer of pyproject.toml: import-linter sees only what is named there."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
NAMED = {name.strip() for contract in CONTRACTS for layer in contract["layers"] for name in layer.split(":")}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in ("server", "tools")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("module", [m for m in MODULES if "." in m and m != "tools.kinds"])
def test_a_module_or_its_package_is_named_in_a_layer(module: str) -> None:
    parts = module.split(".")
    assert {".".join(parts[:n]) for n in range(2, len(parts) + 1)} & NAMED


def test_every_name_in_a_layer_is_a_module() -> None:
    assert NAMED - {"server", "tools"} <= set(MODULES)
