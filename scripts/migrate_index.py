"""Copy the served index between the disk and PostgreSQL, as `rag-service migrate` does."""

import sys

from app.cli.main import run

if __name__ == "__main__":
    sys.exit(run("migrate", sys.argv[1:]))
