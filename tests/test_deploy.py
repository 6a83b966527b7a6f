"""The container files say what exists, run without rights, and their nginx really spreads calls over two gateways on one PostgreSQL."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import psutil
import pytest
import trustme
import typer.main
import yaml
from anyio import to_thread
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from server.cli.main import app
from server.settings import ENV_PREFIX, FROM_FILES, Settings
from tests.processes import Running, cannot, run, running
from tests.upstreams import Hostile, answer

if TYPE_CHECKING:
    from tests.postgres import Postgres

pytest_plugins = ("tests.postgres",)
DEPLOY = Path(__file__).parent.parent / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
CONTAINERFILE = (DEPLOY / "Containerfile").read_text("utf-8").replace("\\\n", " ")
NGINX = (DEPLOY / "nginx.conf").read_text("utf-8")
GATEWAYS = ("gateway-1", "gateway-2")
TOKEN = "the operator's own 7f3a"


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_every_service_runs_without_rights_on_a_root_that_it_can_not_write(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["user"].partition(":")[0]) > 0
    assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
    assert not re.search(r":latest|^[^:]+$", service["image"])
    # Secrets come as files: what stands in the environment is shown by `docker inspect`.
    assert not any(
        re.search(r"PASSWORD|TOKEN|KEY|DATABASE_URL", n) and "_FILE" not in n for n in service.get("environment", ())
    )


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_is_started_with_settings_and_options_that_exist(name: str) -> None:
    service = COMPOSE["services"][name]
    known = {f"{ENV_PREFIX}{n.upper()}" for n in Settings.model_fields} | {f"{ENV_PREFIX}{n}_FILE" for n in FROM_FILES}
    given = service["environment"]
    assert set(given) <= known
    mounted = {f"/run/secrets/{s}" for s in service["secrets"]}
    assert {v for n, v in given.items() if n.endswith("_FILE")} == mounted
    command, *options = service["command"]
    serve: Any = typer.main.get_command(app).get_command(None, command)  # type: ignore[attr-defined]
    assert {o for o in options if o.startswith("--")} <= {o for p in serve.params for o in p.opts}
    # Older clients get no sessions only with workers, and round robin would lose a session.
    assert int(options[options.index("--workers") + 1]) > 1
    assert int(service["stop_grace_period"].removesuffix("s")) > int(given[f"{ENV_PREFIX}GRACE_SECONDS"]) + 1


def test_the_image_is_built_of_what_is_there_and_runs_as_nobody_special() -> None:
    steps = [line.split(None, 1) for line in CONTAINERFILE.splitlines() if line and not line.startswith("#")]
    assert [what for step, what in steps if step == "USER"] == ["10001:10001"]
    assert all(re.search(r":[\d.]+-slim( AS \w+)?$", what) for step, what in steps if step == "FROM")
    assert all(what.startswith("[") for step, what in steps if step in ("ENTRYPOINT", "CMD"))
    root = DEPLOY.parent
    ignored = (root / ".dockerignore").read_text("utf-8").split()
    for what in [w for step, w in steps if step == "COPY" and "--from" not in w]:
        for source in what.split()[:-1]:
            assert (root / source).exists()
            assert f"!{source}" in ignored
    extras = re.findall(r"\.\[([\w,]+)\]", CONTAINERFILE)[0].split(",")
    assert all(f"\n{extra} = [" in (root / "pyproject.toml").read_text("utf-8") for extra in extras)


@contextmanager
def proxy(folder: Path, replicas: dict[str, str], certificate: trustme.LeafCert) -> Generator[str]:
    """nginx with the shipped file: only its addresses and the places of its files are others."""
    program = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)
    if program is None:
        cannot("no nginx on this machine")
    folder.mkdir()
    (folder / "certificate").write_bytes(b"".join(p.bytes() for p in certificate.cert_chain_pems))
    (folder / "key").write_bytes(certificate.private_key_pem.bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = NGINX.replace("listen 8443", f"listen 127.0.0.1:{port}").replace(
        "worker_processes auto", "worker_processes 1"
    )
    text = text.replace(" /tmp/", f" {folder}/").replace("/run/secrets/tls_key", str(folder / "key"))
    text = text.replace("/run/secrets/tls_certificate", str(folder / "certificate"))
    for name, address in replicas.items():
        text = text.replace(f"{name}:8080", address)
    (folder / "nginx.conf").write_text(text)
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    # It goes into the background once it listens. What it inherits must not be a pipe: it would be kept open.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
    master = psutil.Process(int((folder / "nginx.pid").read_text()))
    ours = [master, *master.children()]
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        master.terminate()
        _, left = psutil.wait_procs(ours, 10)
        assert left == []


def replica(folder: Path, database: str) -> Any:
    """A gateway as the Compose file has it, secrets by file, but for its port."""
    folder.mkdir()
    for name, value in (("database_url", database), ("secret_key", "A" * 43 + "="), ("metrics_token", TOKEN)):
        (folder / name).write_text(value + "\n")
    env = {
        n: str(folder / Path(v).name)
        for n, v in COMPOSE["services"]["gateway-1"]["environment"].items()
        if n.endswith("_FILE")
    }
    more = {"ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8", "WORKSPACE": "acme", "GRACE_SECONDS": "2"}
    return env | {f"{ENV_PREFIX}{n}": v for n, v in more.items()}


async def calls_of(url: str) -> float:
    async with httpx2.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"{url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).text
    return sum(float(v) for v in re.findall(r"^integrations_mcp_calls_total\{.*\} (\d+)$", page, re.MULTILINE))


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.postgres
async def test_two_gateways_behind_nginx_share_the_calls_and_one_may_end(tmp_path: Path, postgres: "Postgres") -> None:
    ca = trustme.CA()
    trust = ssl.create_default_context()
    ca.configure_trust(trust)
    env = replica(tmp_path / "one", postgres.fresh_url())
    made = run(tmp_path / "one", "keys", "create", "--workspace", "acme", "--role", "owner", "--json", env=env)
    key = re.findall(r"imcp_[\w-]+", made.stdout)[0]
    (tmp_path / "two").mkdir()
    serve = ("serve", "--port", "0", "--json")
    with (
        anyio.fail_after(110),
        running(tmp_path / "one", *serve, env=env) as one,
        running(tmp_path / "two", *serve, env=env) as two,
    ):
        urls = await started(one, two)
        addresses = {name: url.removeprefix("http://") for name, url in zip(GATEWAYS, urls, strict=True)}
        with proxy(tmp_path / "nginx", addresses, ca.issue_cert("127.0.0.1")) as front:
            async with (
                Hostile() as upstream,
                httpx2.AsyncClient(
                    base_url=front,
                    headers={"Authorization": f"Bearer {key}"},
                    verify=trust,
                    trust_env=False,
                    timeout=30,
                ) as client,
            ):
                upstream.script("/x", answer(200, b'"hello"', {"Content-Type": "application/json"}))
                while (await client.get("/readyz")).status_code == 502:
                    await anyio.lowlevel.checkpoint()
                assert [(await client.get(p)).status_code for p in ("/metrics", "/sse")] == [404, 404]
                transport = streamable_http_client(f"{front}/mcp", http_client=client)
                async with Client(transport, mode="auto") as agent, agent.listen(tools_list_changed=True) as told:
                    get = {"name": "get", "description": "d", "method": "GET", "path": "/x"}
                    body = {"name": "shop", "display_name": "Shop", "base_url": upstream.url, "endpoints": [get]}
                    assert (await client.post("/v1/acme/integrations", json=body)).status_code == 201
                    # The stream isn't held back: what a gateway says comes while it is open.
                    async for _ in told:
                        break
                    # Both know the tool within a second, and then share the calls.
                    for _ in range(10):
                        while (await agent.call_tool("shop_get", {})).is_error:
                            pass
                    counted = [await calls_of(url) for url in urls]
                    assert min(counted) >= 3
                    two.send()
                    assert await to_thread.run_sync(two.end) == 0
                    for _ in range(6):
                        result = await agent.call_tool("shop_get", {})
                        assert [b.text for b in result.content] == ["hello"]
        one.send()
        assert await to_thread.run_sync(one.end) == 0


async def started(*processes: Running) -> list[str]:
    return [(await to_thread.run_sync(p.json_line))["url"] for p in processes]
