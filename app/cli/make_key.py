"""Make an API key.

The key is printed once, to stderr. The line for API_KEYS_FILE or API_KEYS, on stdout, has only its hash.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys
from collections.abc import Sequence

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY_BYTES = 32


def main(arguments: Sequence[str] | None = None, program: str | None = None) -> int:
    """Print a new key and the line for its hash, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", type=_name, help="name of the client, for logs, metrics and rate limits")
    name = parser.parse_args(arguments).name
    key = f"rag_{secrets.token_urlsafe(_KEY_BYTES)}"
    print(f"The key of {name}, which is shown only once:\n{key}", file=sys.stderr)
    print(f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    return 0


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or text == "sha256":
        raise argparse.ArgumentTypeError("must have 1 to 64 letters, digits, dots, dashes or underscores")
    return text


if __name__ == "__main__":  # scripts/make_key.py runs this file by its path
    sys.exit(main())
