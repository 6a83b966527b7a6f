"""A file of integrations: YAML or JSON, with the line of every value, so that a fault is told as file:line.

Scalars are JSON's (true, false, null, numbers; everything else is text): `no`, `12:30`, `0123` and dates stay what was written.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from tools.errors import InvalidRequest, Issue

Loc = tuple[str | int, ...]
SUFFIXES = (".yaml", ".yml", ".json")
_MAX_VALUES = 500_000
_MAX_DEPTH = 100
_TOO_DEEP = "too deep or too large: an alias that holds itself?"
_VARIABLE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_STRING = "tag:yaml.org,2002:str"
SCALARS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", "n~"),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("tag:yaml.org,2002:float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
    ("tag:yaml.org,2002:merge", r"^(?:<<)$", "<"),
)
"""(tag, pattern, first characters) of the plain scalars that aren't text."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file; `loc` is the path inside the integration."""

    file: str
    line: int
    loc: Loc
    message: str
    type: str = "value_error"

    def __str__(self) -> str:
        at = ".".join(str(p) for p in self.loc)
        return f"{self.file}:{self.line}: {at + ': ' if at else ''}{self.message}"


class ConfigError(ValueError):
    """A file can't be used; every fault is listed, one a line, as file:line: where: what."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Entry:
    """One integration of a file. `node` is what it was read from, which knows the line of every value."""

    data: Any
    file: str
    node: Node = field(repr=False)

    @property
    def _is_object(self) -> bool:
        return isinstance(self.data, dict)

    @property
    def name(self) -> str | None:
        name = cast("dict[str, Any]", self.data).get("name") if self._is_object else None
        return name if isinstance(name, str) else None

    def fault(self, loc: Sequence[str | int], message: str, type: str = "value_error") -> Fault:
        """A fault at a path; what isn't in the file (a default, a missing field) is told at what holds it."""
        node = self.node
        for part in loc:
            inner = _inner(node, part)
            if inner is None:
                break
            node = inner
        return Fault(self.file, _line(node), tuple(loc), message, type)

    def faults(self, error: InvalidRequest) -> list[Fault]:
        """An error of the checks, placed in the file."""
        return [self._placed(issue) for issue in error.issues]

    def _placed(self, issue: Issue) -> Fault:
        loc = issue.loc[1:] if issue.loc[:1] == ("body",) else issue.loc
        return self.fault(loc, issue.msg, issue.type)


def read_entries(path: Path, environ: Mapping[str, str] | None) -> list[Entry]:
    """The integrations of a file, or of all files of a folder in the order of their names.

    `${NAME}` becomes what `environ` has, `$${` is a literal `${`. With None nothing is expanded: a variable is a fault, since
    a server never puts its environment into integrations (rules A8). Raises ConfigError.
    """
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ConfigError([Fault(str(path), 1, (), f"no {', '.join(SUFFIXES)} file is in this folder")])
    entries: list[Entry] = []
    faults: list[Fault] = []
    for file in files:
        try:
            entries += _read(file, environ)
        except ConfigError as e:
            faults += e.faults
    first: dict[str, Entry] = {}
    for entry in entries:
        if entry.name is not None and (before := first.setdefault(entry.name, entry)) is not entry:
            said = f"{entry.name} is in {before.file}:{_line(before.node)} already"
            faults.append(entry.fault(("name",), said))
    if faults:
        raise ConfigError(faults)
    return entries


def parse_text(text: str, file: str, environ: Mapping[str, str] | None) -> list[Entry]:
    """The integrations of a text: one, a list of them, or {integrations: [...]}; several documents are read one after another."""
    loader = _Loader(text)
    entries: list[Entry] = []
    try:
        while loader.check_node():
            node = cast("Node", loader.get_node())
            walk = _Walk(file, environ)
            walk.visit(node, ())
            if walk.faults:
                raise ConfigError(walk.faults)
            construct = cast("Callable[[Node], Any]", loader.construct_document)  # pyright: ignore[reportUnknownMemberType]
            data = construct(node)
            entries += _split(data, node, file)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        said = " ".join(part for part in (e.context, e.problem) if part)
        raise ConfigError([Fault(file, mark.line + 1 if mark else 1, (), said or "not YAML")]) from None
    except yaml.YAMLError as e:
        raise ConfigError([Fault(file, 1, (), str(e).splitlines()[0])]) from None
    except RecursionError:
        raise ConfigError([Fault(file, 1, (), _TOO_DEEP)]) from None
    finally:
        loader.dispose()  # pyright: ignore[reportUnknownMemberType]
    return entries


class _PurePython(Reader, Scanner, Parser):
    """Where PyYAML was built without libyaml: eight times as slow."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


_Events = cast("type[_PurePython]", cast("Any", yaml).cyaml.CParser) if yaml.__with_libyaml__ else _PurePython


class _Loader(Composer, _Events, SafeConstructor, Resolver):  # Composer first: libyaml's own knows no limit of depth
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way; filled below

    def __init__(self, text: str) -> None:
        _Events.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


for _tag, _pattern, _first in SCALARS:
    _firsts = [*_first, ""] if _tag.endswith("null") else [*_first]
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _firsts)  # pyright: ignore[reportUnknownMemberType]


class _Walk:
    """Goes over the nodes once: expands variables, finds what YAML itself lets pass."""

    def __init__(self, file: str, environ: Mapping[str, str] | None) -> None:
        self._file, self._environ = file, environ
        self.faults: list[Fault] = []
        self._values = 0
        self._expanded: set[int] = set()

    def visit(self, node: Node, loc: Loc) -> None:
        if len(loc) > _MAX_DEPTH or self._values > _MAX_VALUES:
            raise ConfigError([Fault(self._file, _line(node), (), _TOO_DEEP)])
        self._values += 1
        if isinstance(node, MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in seen:
                    self.faults.append(Fault(self._file, _line(key), loc, f"{name} is given twice"))
                seen.add(name)
                self.visit(value, (*loc, name))
        elif isinstance(node, SequenceNode):
            for i, item in enumerate(node.value):
                self.visit(item, (*loc, i))
        elif (
            isinstance(node, ScalarNode)
            and "${" in node.value
            and node.tag == _STRING
            and id(node) not in self._expanded
        ):
            self._expanded.add(id(node))  # an alias shows the same node again
            node.value = _VARIABLE.sub(lambda found: self._value(found, loc, _line(node)), node.value)

    def _value(self, found: re.Match[str], loc: Loc, line: int) -> str:
        name = found[1]
        if name is None:
            return "${"
        if self._environ is None:
            said = f"${{{name}}} isn't expanded by a server: name a secret by its path, or write $${{ for a literal ${{"
        elif name not in self._environ:
            said = f"the environment variable {name} isn't set; write $${{ for a literal ${{"
        else:
            return self._environ[name]
        self.faults.append(Fault(self._file, line, loc, said))
        return ""


def _read(file: Path, environ: Mapping[str, str] | None) -> list[Entry]:
    try:
        text = file.read_text("utf-8-sig")
    except OSError as e:
        raise ConfigError([Fault(str(file), 1, (), e.strerror or "can't be read")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Fault(str(file), 1, (), "not UTF-8 text")]) from None
    return parse_text(text, str(file), environ)


def _split(data: Any, node: Node, file: str) -> list[Entry]:
    """The integrations of one document."""
    if data is None:
        return []
    if isinstance(data, dict) and set(data) == {"integrations"}:  # pyright: ignore[reportUnknownArgumentType] - a file's own data
        data, node = data["integrations"], cast("Node", _inner(node, "integrations"))  # pyright: ignore[reportUnknownVariableType]
        if data is None:
            return []
        if not isinstance(data, list):
            said = "a list of integrations is expected"
            raise ConfigError([Fault(file, _line(node), ("integrations",), said)])
    if not isinstance(data, list):
        return [Entry(data, file, node)]
    return [Entry(item, file, own) for item, own in zip(data, node.value, strict=True)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _inner(node: Node, part: str | int) -> Node | None:
    """The value at a key or position of a node; None where there is none."""
    if isinstance(node, MappingNode):
        # The last: what a merge key brought in stands before the mapping's own.
        return next((value for key, value in reversed(node.value) if key.value == part), None)
    if isinstance(node, SequenceNode) and isinstance(part, int) and 0 <= part < len(node.value):
        return node.value[part]
    return None


def _line(node: Node) -> int:
    return node.start_mark.line + 1
