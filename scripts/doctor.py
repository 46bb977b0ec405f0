"""Check everything that the service needs, and give advice, as `rag-service doctor` does."""

import sys

from app.cli.main import run

if __name__ == "__main__":
    sys.exit(run("doctor", sys.argv[1:]))
