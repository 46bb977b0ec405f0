"""What the service says of itself in OpenAPI holds, whatever it is sent: by schemathesis, over HTTP.

Data that fits the description and data that does not; no 5xx, no status and no content that is not described.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config.settings import Settings
from tests.support.settings import with_values

pytestmark = pytest.mark.slow

# All checks, which is the default, but one: that the last message of the user has a text, JSON Schema cannot
# say.
_CONFIGURATION = """
[[operations]]
include-name = "POST /v1/chat/completions"
checks.positive_data_acceptance.enabled = false
"""
_KEY = "a-key-of-schemathesis"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keys", [False, True], ids=["open", "with keys"])
def test_every_response_follows_the_openapi_document(
    sample_settings: Settings, serve: Callable[..., httpx.Client], tmp_path: Path, keys: bool, soak: bool
) -> None:
    """With `--soak`, schemathesis tries 500 examples of each operation, and others in each run."""
    more: dict[str, Any] = {"api_keys": f"schemathesis:{_KEY}"} if keys else {}
    service = serve(with_values(sample_settings, **more, open_docs=True))
    (tmp_path / "schemathesis.toml").write_text(_CONFIGURATION)
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{service.base_url}/openapi.json"),
            *("--mode=all", "--phases=examples,coverage,fuzzing", "--continue-on-failure"),
            *("--suppress-health-check=all", "--no-color", f"--max-examples={500 if soak else 10}"),
            *([] if soak else ["--seed=1"]),
            *([f"--header=Authorization: Bearer {_KEY}"] if keys else []),
        ],
        # It looks for its configuration there, and keeps what it has found.
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: 10" in done.stdout
