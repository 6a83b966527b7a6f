"""One target under atheris for some seconds: `python -m tests.fuzz.run address 180`. atheris (Apache-2.0) is not a dependency:
`python -m venv V && V/bin/pip install atheris -c constraints.txt .` and run it with that Python.

Prints libFuzzer's figures at its end (stat::number_of_executed_units); what breaks a promise ends it with the input in crash-*.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tools", "jmespath", "yaml", "yarl"]):
    from tests.fuzz.targets import TARGETS


def main(name: str, seconds: str) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            Path(folder, f"seed{number}").write_bytes(seed)
        limits = [f"-max_total_time={int(seconds)}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], folder, *limits, "-print_final_stats=1", "-verbosity=0"], target.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
