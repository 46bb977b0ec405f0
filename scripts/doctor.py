"""Look at all that the service needs, and say what to do, as `rag-service doctor` does."""

import sys

from app.cli.main import run

if __name__ == "__main__":
    sys.exit(run("doctor", sys.argv[1:]))
