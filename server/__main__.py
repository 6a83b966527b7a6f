"""`integrations-mcp`: the console script."""

from server.cli.main import run


def main() -> None:
    run()


if __name__ == "__main__":
    main()
