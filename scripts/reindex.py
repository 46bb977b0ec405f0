"""Build the next index from the documents, and swap it in, as `rag-service reindex` does."""

import sys

from app.cli.main import run

if __name__ == "__main__":
    sys.exit(run("reindex", sys.argv[1:]))
