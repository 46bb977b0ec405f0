"""Make an API key, as `rag-service make-key` does: `python3 scripts/make_key.py NAME >> keys`."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    # It is run by its path, so that any Python can make keys before anything is installed.
    command = Path(__file__).resolve().parent.parent / "app" / "cli" / "make_key.py"
    runpy.run_path(str(command), run_name="__main__")
