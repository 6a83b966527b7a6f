"""`python -m tests.security.report`: attempts by class and guard, as docs/security.md has them; `--entries` by entry point too."""

import sys
from collections import Counter

from tests.security.catalog import ATTEMPTS
from tests.security.frame import table


def main(words: list[str]) -> None:
    print(table(ATTEMPTS))
    if "--entries" in words:
        for (kind, entry), n in sorted(Counter((a.kind, a.entry) for a in ATTEMPTS).items()):
            print(f"{n:5} {kind}: {entry}")


if __name__ == "__main__":
    main(sys.argv[1:])
