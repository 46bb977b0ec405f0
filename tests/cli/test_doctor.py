"""`scripts/doctor.py`: what is wrong is named, with what to do; nothing is changed, and no secret shown."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.cli.doctor.finding import Finding, State, fail
from app.cli.doctor.run import examine_with
from app.config.choices import WhenDown
from app.config.secrets import secrets_of
from app.config.settings import Settings
from app.main import create_app
from tests.conftest import build, write_two_documents
from tests.fake_provider import FakeProvider, faults
from tests.support.mounts import small
from tests.support.postgres import PASSWORD, PostgresServer
from tests.support.redis import redis_server
from tests.support.serving import ROOT, clean_environment, free_port, serve_in_thread
from tests.support.settings import with_values

MakeSettings = Callable[..., Settings]

KEY = "sk-planted-0123456789"


def run_doctor(environment: dict[str, str], *arguments: str, within: Sequence[str] = ()) -> tuple[int, str]:
    done = subprocess.run(
        [*within, sys.executable, str(ROOT / "scripts" / "doctor.py"), *arguments],
        env=clean_environment() | {"PORT": str(free_port())} | environment,
        # Without a developer's .env.
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    for secret in (KEY, "planted", PASSWORD):
        assert secret not in done.stdout
    return done.returncode, done.stdout


def run_json(
    environment: dict[str, str], within: Sequence[str] = ()
) -> tuple[int, dict[str, dict[str, str]]]:
    """By the check, its last finding."""
    status, output = run_doctor(environment, "--json", within=within)
    found = json.loads(output)
    assert found["ok"] == (status == 0)
    return status, {each["check"]: each for each in found["checks"]}


def examine(settings: Settings) -> dict[str, Finding]:
    """The same in this process, which is faster."""
    found = list(examine_with(settings))
    for secret in (KEY, "planted", PASSWORD):
        assert secret not in "".join(map(str, found))
    return {each.check: each for each in found}


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    return {
        "DOCUMENTS_DIR": str(settings.documents.dir),
        "INDEX_DIR": str(settings.index.dir),
        "SCRATCH_DIR": str(settings.documents.dir.parent),
        **more,
    }


@pytest.fixture
def served(settings: MakeSettings) -> Settings:
    """Settings with two documents and an index of them."""
    write_two_documents(settings().documents.dir)
    build(settings())
    return settings()


def test_all_is_well(served: Settings) -> None:
    """Without network or key; a line each, and the index is as it was."""
    before = {path: path.stat().st_mtime_ns for path in served.index.dir.rglob("*")}
    status, output = run_doctor(environment_of(served))
    assert status == 0
    assert all(line.startswith("ok ") for line in output.splitlines()), output
    assert re.search(r"^ok   index .* is intact: 2 documents, 2 chunks, local/.* ago$", output, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in served.index.dir.rglob("*")} == before


def test_before_the_first_index(settings: MakeSettings) -> None:
    """It works: there is something to do, but nothing has failed."""
    found = examine(settings(port=free_port()))
    assert (found["index"].state, found["documents"].state) == ("warn", "warn")
    assert "make reindex" in found["index"].advice
    assert not any(each.state is State.FAIL for each in found.values())


def test_a_wrong_setting_is_named(served: Settings) -> None:
    status, found = run_json(environment_of(served, TOP_K="many"))
    assert (status, list(found)) == (1, ["settings"])
    assert "TOP_K" in found["settings"]["text"]


def test_an_open_server_without_keys_is_told(settings: MakeSettings) -> None:
    found = examine(settings(host="0.0.0.0"))
    assert found["settings"].state is State.FAIL
    assert "set API_KEYS or API_KEYS_FILE" in found["settings"].text


@pytest.mark.parametrize(
    ("status", "state", "named"),
    [
        (401, "fail", "OPENAI_API_KEY"),
        (404, "fail", "LLM_MODEL"),
        (400, "fail", "LLM_MODEL"),
        (429, "warn", "limits"),
        (503, "fail", "later"),
    ],
)
def test_what_is_wrong_with_the_provider(
    provider: FakeProvider, openai_settings: MakeSettings, status: int, state: str, named: str
) -> None:
    """By the kind of its answer; what it says itself may hold a part of the key."""
    provider.chat.fault = faults.status(status, message=f"Incorrect API key provided: {KEY}")
    found = examine(openai_settings(openai_api_key=KEY))
    assert found["embedding"].state is State.OK
    assert "96 dimensions" in found["embedding"].text
    assert (found["chat"].state, str(status) in found["chat"].text) == (state, True)
    assert named in found["chat"].advice
    assert len(provider.chat.requests) == 1


def test_a_provider_that_is_not_there(openai_settings: MakeSettings) -> None:
    found = examine(openai_settings(openai_base_url=f"http://127.0.0.1:{free_port()}/v1"))
    for check in ("embedding", "chat"):
        assert (found[check].state, "cannot be reached" in found[check].text) == (State.FAIL, True)
        assert "OPENAI_BASE_URL" in found[check].advice


def test_an_index_of_another_model(openai_settings: MakeSettings, settings: MakeSettings) -> None:
    build(settings())
    found = examine(openai_settings())["index"]
    assert found.state is State.FAIL
    assert "openai/text-embedding-3-small" in found.text
    assert "make reindex" in found.text


def test_a_damaged_index(served: Settings) -> None:
    """Also where only a bit has changed."""
    (file,) = served.index.dir.glob("snapshots/*/documents.jsonl")
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    found = examine(served)["index"]
    assert found.state is State.FAIL
    assert "documents.jsonl" in found.text
    assert "make reindex" in found.text


def test_documents_that_could_not_be_read_and_other_chunks(settings: MakeSettings) -> None:
    write_two_documents(settings().documents.dir)
    (settings().documents.dir / "empty.md").touch()
    build(settings())
    found = [each for each in examine_with(settings(chunk_size=500)) if each.check == "index"]
    assert [each.state for each in found] == ["ok", "warn", "warn"]
    assert "1 documents could not be read" in found[1].text
    assert "CHUNK_" in found[2].text


def test_folders_that_cannot_be(settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = examine(settings(documents_dir=tmp_path / "no", scratch_dir=tmp_path / "file"))
    for check, setting in (("documents", "DOCUMENTS_DIR"), ("scratch", "SCRATCH_DIR")):
        assert (found[check].state, setting in found[check].advice) == (State.FAIL, True)


def test_a_disk_without_room(settings: MakeSettings) -> None:
    settings().index.dir.mkdir()
    status, found = run_json(environment_of(settings()), within=small(settings().index.dir, "1m"))
    assert (status, found["disk"]["state"]) == (1, "fail")


def test_limits_that_nobody_counts(settings: MakeSettings, tmp_path: Path) -> None:
    with redis_server(tmp_path) as address:
        # However long a busy machine keeps it waiting.
        patiently = f"{address}?socket_timeout=60&socket_connect_timeout=60"
        limited = settings(rate_limit="1/minute", rate_limit_storage=patiently)
        assert examine(limited)["limits"].state is State.OK
    assert "nobody is limited" in examine(limited)["limits"].text
    refusing = with_values(limited, rate_limit_when_down=WhenDown.REFUSE)
    found = examine(refusing)["limits"]
    assert (found.state, "every question is refused" in found.text) == (State.FAIL, True)
    assert "limits" not in examine(settings(rate_limit="1/minute"))


def test_a_port_that_is_taken(settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = examine(settings(port=other.getsockname()[1]))["port"]
    assert (found.state, "PORT" in found.advice) == (State.FAIL, True)


def test_beside_a_running_server(served: Settings) -> None:
    """As in a container: its own port is no problem."""
    with serve_in_thread(create_app(served)) as url:
        found = examine(with_values(served, port=urlsplit(url).port))["port"]
    assert (found.state, "a server of this service" in found.text) == (State.OK, True)


def test_an_index_in_a_database(
    postgres: PostgresServer, database: dict[str, Any], settings: MakeSettings
) -> None:
    """First without its tables, then with an index; a wrong password is told, and not shown."""
    write_two_documents(settings().documents.dir)
    postgres.execute("CREATE EXTENSION IF NOT EXISTS vector", "rag")
    found = examine(settings(**database))["database"]
    assert (found.state, "make reindex" in found.advice) == (State.FAIL, True)

    build(settings(**database))
    found, index = (examine(settings(**database))[check] for check in ("database", "index"))
    assert (found.state, index.state) == (State.OK, State.OK)
    assert re.search(r"PostgreSQL \d+, pgvector 0\.\d+.*, role postgres may reindex", found.text)
    assert "2 documents" in index.text

    wrong = database["database_url"].replace(PASSWORD, "planted%20word")
    found = examine(settings(**database | {"database_url": wrong}))["database"]
    assert (found.state, "password authentication failed" in found.text) == (State.FAIL, True)
    assert "DATABASE_URL" in found.advice


def test_a_database_that_is_not_there(settings: MakeSettings) -> None:
    found = examine(settings(database_url=f"postgresql://rag:planted@127.0.0.1:{free_port()}/rag"))[
        "database"
    ]
    assert (found.state, "cannot be reached" in found.text) == (State.FAIL, True)


def test_no_secret_is_shown(settings: MakeSettings) -> None:
    """Whatever a library says: what a setting hides is hidden in every line."""
    secret = settings(openai_api_key=KEY, database_url="postgresql://rag:pl%40nted@db:5432/rag")
    finding = fail(
        "x", f"refused {KEY} of postgresql://rag:pl%40nted@db:5432/rag", "not pl@nted or pl%40nted"
    )
    shown = str(finding.without(secrets_of(secret)))
    assert not re.search("planted|pl@nted|pl%40nted", shown)
