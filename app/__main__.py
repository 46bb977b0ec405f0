"""The entry point of `python -m app`, which serves as `rag-service serve` does."""

import sys

from app.cli.main import run

if __name__ == "__main__":
    sys.exit(run("serve", sys.argv[1:], "python -m app"))
