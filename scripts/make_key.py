"""Makes an API key: `python3 scripts/make_key.py NAME >> keys`.

The key is shown once, on stderr; the line for API_KEYS_FILE (or API_KEYS), on stdout, holds its hash alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import sys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY_BYTES = 32


def _name(text: str) -> str:
    if not _NAME.fullmatch(text) or text == "sha256":
        raise argparse.ArgumentTypeError("has up to 64 letters, digits, dots, dashes and underscores")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Make an API key.")
    parser.add_argument("name", type=_name, help="whose it is: for logs, metrics and limits")
    name = parser.parse_args().name
    key = f"rag_{secrets.token_urlsafe(_KEY_BYTES)}"
    print(f"The key of {name}, which is shown this once:\n{key}", file=sys.stderr)
    print(f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
