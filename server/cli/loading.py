"""load: integrations of one workspace from a file."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from tools.errors import InvalidRequest, Issue, NotFound


def load_command(
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON: one integration, a list of them, or {integrations: [...]}.")
    ],
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create or update the integrations of a file (by name). Nothing is written unless every one of them is right."""
    from server.app import App, open_app
    from tools.callers import local_caller
    from tools.parsing import parse_create, parse_update

    settings = settings_of(home, database, workspace)
    entries = read_file(file)

    async def run(running: App) -> list[dict[str, Any]]:
        caller = local_caller(settings.workspace)
        issues: list[Issue] = []
        plans: list[tuple[str, Any]] = []
        for n, entry in enumerate(entries):
            try:
                name = _name_of(entry)
                current = await _current(running, settings.workspace, name)
                if current is None:
                    request = parse_create(entry)
                    await running.writer.draft_create(caller, request)
                else:
                    request = parse_update(entry, current.name)
                    await running.writer.draft_update(caller, current, request)
                plans.append((name or "", request))
            except InvalidRequest as e:
                issues += [Issue((f"integration {n}", *i.loc[1:]), i.msg, i.type) for i in e.issues]
        if issues:
            raise InvalidRequest(issues)
        done: list[dict[str, Any]] = []
        for name, request in plans:
            if await _current(running, settings.workspace, name) is None:
                written = await running.admin.create(caller, request)
            else:
                written = await running.admin.update(caller, name, request)
            did = "created" if written.before is None else "updated"
            done.append({"name": name, "id": written.after.id, "did": did, "endpoints": len(written.after.endpoints)})
        return done

    async def main() -> list[dict[str, Any]]:
        async with open_app(settings) as running:
            return await run(running)

    done = in_loop(main)
    if as_json:
        print_json(done)
        return
    for row in done:
        typer.echo(f"{row['did']} {row['name']} ({row['endpoints']} endpoints)")


def _name_of(entry: Any) -> str | None:
    name: Any = entry.get("name") if isinstance(entry, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - a file's own data
    return name if isinstance(name, str) else None


async def _current(running: Any, workspace: str, name: str | None) -> Any:
    if name is None:
        return None
    try:
        return await running.registry.get(workspace, name)
    except NotFound:
        return None


def read_file(file: Path) -> list[Any]:
    """The integrations of a file; raises ValueError that names the file and line."""
    try:
        data: Any = yaml.safe_load(file.read_text("utf-8"))
    except OSError as e:
        raise ValueError(f"{file}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8 text") from None
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(file)
        raise ValueError(f"{where}: {getattr(e, 'problem', None) or 'not YAML'}") from None
    if isinstance(data, dict) and set(data) == {"integrations"}:  # pyright: ignore[reportUnknownArgumentType]
        data = data["integrations"]  # pyright: ignore[reportUnknownVariableType]
    entries: list[Any] = data if isinstance(data, list) else [data]  # pyright: ignore[reportUnknownVariableType]
    if not entries:
        raise ValueError(f"{file}: there are no integrations in it")
    return entries
