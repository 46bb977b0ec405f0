"""An index of another embedding model than is set is refused, in the same words wherever it would be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.doctor.run import examine_with
from app.config.settings import Settings
from app.domain.errors import FingerprintMismatch
from tests.conftest import build, indexer_of
from tests.support.serving import wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]


@pytest.fixture(params=["disk", "postgres"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that say where the index is."""
    return request.getfixturevalue("database") if request.param == "postgres" else {}


def test_an_index_of_another_model_is_refused_everywhere(
    place: dict[str, Any], settings: MakeSettings, openai_settings: MakeSettings, serve: Serve, tmp_path: Path
) -> None:
    """Serving, rollback and doctor name both models and the remedy."""
    older = build(settings(**place)).index
    (tmp_path / "documents" / "more.md").write_text("# More\n\nMore of it.")
    newer = build(settings(**place)).index

    def refusal(index: str | None) -> str:
        return (
            f"the index {index} was built with local/wordllama-l2-supercat (256 dimensions), but the "
            "settings name openai/text-embedding-3-small: set them back, or run make reindex"
        )

    others = openai_settings(**place)
    client = serve(others, ready=False)
    wait_for(lambda: client.get("/health").json()["detail"] == refusal(newer), "the refusal")
    assert client.get("/health").json()["status"] == "failed"
    with pytest.raises(FingerprintMismatch) as caught:
        indexer_of(others).roll_back(older)
    assert str(caught.value) == refusal(older)
    assert [each.text for each in examine_with(others) if each.check == "index"] == [refusal(newer)]
