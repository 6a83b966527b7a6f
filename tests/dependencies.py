"""docs/reference/dependencies.md: what the product brings along, in which version and under which licence, from the packages' own metadata.

Walked from pyproject.toml as a Linux server of the oldest Python would resolve it, so that the page is the same wherever it is written.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MACHINE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}
SPELLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
ALLOWED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}
"""What may be shipped with an MIT product without further duties; anything else is looked at by a person first."""


def key_of(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Name to version, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.partition(";")[0].strip().partition("==") for line in lines if "==" in line)
    return {key_of(name): version for name, _, version in pairs}


def brought() -> dict[str, str]:
    """Name to who brings it: "" for every installation, else the extra."""
    found: dict[str, str] = {}
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for extra, requirements in groups.items():
        seen: set[tuple[str, str]] = set()
        for name in _walk([Requirement(r) for r in requirements], "", seen):
            found.setdefault(name, extra)
    return found


def _walk(requirements: list[Requirement], extra: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({**MACHINE, "extra": extra}):
            continue
        name = key_of(requirement.name)
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                yield name
                yield from _walk([Requirement(r) for r in distribution(name).requires or []], wanted, seen)


def licence_of(found: Distribution) -> str:
    """An SPDX expression: the package's own, or what its older fields say."""
    metadata = found.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    text = (metadata.get("License") or "").strip()
    if SPELLED.get(text, text) in ALLOWED:
        return SPELLED.get(text, text)
    classifiers = [
        c.rpartition("::")[2].strip() for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    return " OR ".join(SPELLED.get(c, c) for c in classifiers if c != "OSI Approved") or "unknown"


def parts_of(licence: str) -> set[str]:
    """The licences in an expression."""
    return {part for part in re.split(r"\s+(?:AND|OR)\s+|[()]", licence) if part.strip()}


def dependencies_page() -> str:
    lines = [
        "# Dependencies",
        "",
        "What an installation holds besides the gateway itself, on Linux. Versions are those of `constraints.txt`.",
        "",
    ]
    lines += ["| package | version | licence | with |", "|---|---|---|---|"]
    versions = pins()
    for name, extra in sorted(brought().items()):
        by = f"the extra `{extra}`" if extra else "always"
        lines.append(f"| {name} | {versions.get(name, 'not pinned')} | {licence_of(distribution(name))} | {by} |")
    return "\n".join([*lines, ""])
