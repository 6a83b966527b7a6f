"""`integrations-mcp`: the console script."""

from server.cli.starting import imports


def main() -> None:
    with imports():
        from server.cli.main import run
    run()


if __name__ == "__main__":
    main()
