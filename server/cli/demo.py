"""demo: the main job shown on a clinic that runs here, then left running for your own assistant."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.options import AsJson, Home, print_json, settings_of


def demo_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one. Default: 8080.")] = None,
    home: Home = None,
    once: Annotated[bool, typer.Option("--once", help="End after the calls instead of staying up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a small clinic and a gateway, make calls through the whole pipeline and show each stage, then stay up.

    Its registry is a folder of its own ($INTEGRATIONS_MCP_HOME/demo); yours is never touched.
    """
    from server.listening import bind

    settings = settings_of(home, host=host, port=port)
    sock = bind(settings.host, settings.port)
    bound = sock.getsockname()
    settings = settings.model_copy(update={"port": bound[1]})
    asyncio.run(_demo(settings, sock, once=once, as_json=as_json))


async def _demo(settings: Any, sock: Any, *, once: bool, as_json: bool) -> None:
    from server.demo.definition import EXAMPLE
    from server.demo.running import WORKSPACE, running_demo
    from server.serving import Serving, config_of, run_beside

    host, port = sock.getsockname()[:2]
    async with running_demo(settings, frozenset({(host, port)})) as (app, _):
        made = await app.keys.create(WORKSPACE, role="owner", name="demo", days=1)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        facts = {
            "mcp_url": f"{url}/mcp",
            "sse_url": f"{url}/sse",
            "rest_url": f"{url}/v1",
            "workspace_id": WORKSPACE,
            "api_key": made.api_key,
            "example": {"tool": EXAMPLE[0], "arguments": EXAMPLE[1]},
        }
        if not as_json:
            await _show_calls(app)
        if once:
            sock.close()
            if as_json:
                print_json(facts)
            return
        serving = Serving(app.settings.model_copy(update={"host": host, "port": port}), app=app)

        def ready() -> None:
            if as_json:
                print_json(facts)
            else:
                _show_connections(facts)

        await run_beside(config_of(serving, settings), sock, ready)


async def _show_calls(app: Any) -> None:
    from rich.console import Console

    from server.cli.stages import print_stages
    from server.demo.definition import SCRIPT
    from server.demo.running import WORKSPACE
    from tools.callers import local_caller
    from tools.explain import explain

    out = Console(markup=False, highlight=False, soft_wrap=True)
    caller = local_caller(WORKSPACE)
    for number, step in enumerate(SCRIPT, 1):
        out.print(f"\n{number}. {step.caption}", style="bold")
        out.print(f"  call        {step.tool} {json.dumps(step.arguments, ensure_ascii=False)}")
        outcome = await app.toolbox.call(caller, step.tool, step.arguments)
        print_stages(explain(outcome, outcome.trace.masker), out)
        out.print("  the agent sees:", style="green" if not outcome.is_error else "yellow")
        for line in outcome.text.splitlines()[:8]:
            out.print(f"    {line[:160]}")


def _show_connections(facts: dict[str, Any]) -> None:
    """Configurations to paste, with absolute paths: desktop assistants don't search the shell's PATH."""
    from rich.console import Console

    from server.connections import configurations, curl_line

    out = Console(markup=False, highlight=False, soft_wrap=True)
    out.print("\nRunning. Connect your own assistant:", style="bold")
    out.print(f"  MCP URL    {facts['mcp_url']}   (legacy SSE: {facts['sse_url']}, REST: {facts['rest_url']})")
    out.print(f"  API key    {facts['api_key']}   (workspace {facts['workspace_id']}, ends in a day)")
    for name, text in configurations(facts["mcp_url"], facts["api_key"], executable()):
        out.print(f"\n{name}", style="bold")
        out.print(text)
    out.print("\ncurl", style="bold")
    out.print(curl_line(facts["mcp_url"], facts["api_key"], facts["example"]))
    out.print("\nCtrl-C ends it.")


def executable() -> str:
    """The absolute path of this console script."""
    beside = Path(sys.executable).with_name("integrations-mcp")
    found = str(beside) if beside.exists() else shutil.which("integrations-mcp")
    return str(Path(found or sys.argv[0]).absolute())
