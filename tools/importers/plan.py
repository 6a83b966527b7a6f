"""What an import would do to an integration: new endpoints, followed ones, the operator's edits kept. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.importers.frame import Candidate, Choice, Source
from tools.importers.marking import key_of, marked, merge
from tools.importers.requests import Change, ImportedEndpoint
from tools.importers.wording import endpoint_name
from tools.models import EndpointConfig
from tools.naming import tool_name


@dataclass(frozen=True, slots=True)
class Plan:
    """`endpoints` as they would be stored; `rows` tell each operation but `others`, the number of those that weren't chosen."""

    endpoints: tuple[EndpointConfig, ...]
    rows: tuple[ImportedEndpoint, ...]
    others: int


def plan_import(
    source: Source,
    choice: Choice,
    stored: Sequence[EndpointConfig] | None,
    name: str,
    limit: int,
    *,
    prune: bool,
    whole: bool,
) -> Plan:
    """`stored` None: the integration is new, and everything chosen is made. Else marked endpoints follow the source, what is
    missing is made only where `choice` asks for it (a deleted one stays deleted), and the rest stays.

    `whole` False: the source is a single call, so nothing can be gone from it.
    """
    rows: list[ImportedEndpoint] = []
    followed = {key: e for e in stored or () if (key := key_of(e)) is not None}

    def place(endpoint: EndpointConfig) -> str:
        path = endpoint.path.removeprefix("/")
        return path if source.protocol == "mcp" else f"{endpoint.method} {path}"

    own = {place(e): e for e in stored or () if key_of(e) is None}
    taken = {e.name for e in stored or ()}
    replaced: dict[str, EndpointConfig] = {}
    added: list[EndpointConfig] = []
    others = 0
    offer = source.default if choice.is_everything and source.default is not None else choice

    def tell(candidate: Candidate, endpoint: EndpointConfig, change: Change, **more: tuple[str, ...]) -> None:
        rows.append(
            ImportedEndpoint(
                operation=candidate.key,
                name=endpoint.name,
                tool=tool_name(name, endpoint.name, limit),
                change=change,
                operation_id=candidate.operation_id,
                tags=candidate.tags,
                tokens=candidate.tokens,
                notes=candidate.notes,
                **more,
            )
        )

    for candidate in source.candidates:
        new = marked(candidate.endpoint, candidate.key)
        if (old := followed.get(candidate.key)) is not None:
            merged = merge(old, new)
            replaced[old.name] = merged.endpoint
            change: Change = "change" if merged.changed else "same"
            tell(
                candidate, merged.endpoint, change, changed=merged.changed, kept=merged.kept, conflicts=merged.conflicts
            )
        elif (old := own.get(place(new))) is not None:
            tell(candidate, old, "own")
        elif choice.takes(candidate) and (stored is None or not choice.is_everything or not whole):
            if new.name in taken:
                new = marked(new.model_copy(update={"name": endpoint_name(new.name, taken)}), candidate.key)
            taken.add(new.name)
            added.append(new)
            tell(candidate, new, "add")
        elif stored is not None and offer.takes(candidate):
            tell(candidate, new, "offered")
        else:
            others += 1
    gone = set(followed) - {c.key for c in source.candidates} if whole else set[str]()
    for key in sorted(gone):
        rows.append(
            ImportedEndpoint(
                operation=key,
                name=followed[key].name,
                tool=tool_name(name, followed[key].name, limit),
                change="remove" if prune else "gone",
            )
        )
    dropped = {followed[key].name for key in gone} if prune else set[str]()
    kept = [replaced.get(e.name, e) for e in stored or () if e.name not in dropped]
    return Plan((*kept, *added), tuple(rows), others)
