"""`python -m tests.security.report`: attempts by class and guard, as docs/security.md has them; with `--entries` by entry point too,
with `matrix` each guard of hosts at each entry point.
"""

import sys
from collections import Counter

from tests.security.catalog import ATTEMPTS
from tests.security.frame import ENTRIES, HOST_GUARDS, matrix, table


def main(words: list[str]) -> None:
    print(table(ATTEMPTS))
    if "--entries" in words:
        for (kind, entry), n in sorted(Counter((a.kind, a.entry) for a in ATTEMPTS).items()):
            print(f"{n:5} {kind}: {entry}")
    if "matrix" in words:
        cells = matrix(ATTEMPTS)
        print("\n" + "\n".join(f"{n}  {guard}" for n, guard in enumerate(HOST_GUARDS, 1)))
        print(f"{'':28}" + "".join(f"{n:5}" for n in range(1, len(HOST_GUARDS) + 1)))
        for entry in ENTRIES:
            print(f"{entry:28}" + "".join(f"{cells[entry, guard] or '-':>5}" for guard in HOST_GUARDS))


if __name__ == "__main__":
    main(sys.argv[1:])
