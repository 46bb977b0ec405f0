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


def test_a_working_service_gets_only_ok(served: Settings) -> None:
    """It needs neither network nor key, prints a line for each check, and changes nothing in the index."""
    before = {path: path.stat().st_mtime_ns for path in served.index.dir.rglob("*")}
    status, output = run_doctor(environment_of(served))
    assert status == 0
    assert all(line.startswith("ok ") for line in output.splitlines()), output
    assert re.search(r"^ok   index .* is intact: 2 documents, 2 chunks, local/.* ago$", output, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in served.index.dir.rglob("*")} == before


def test_a_missing_first_index_is_only_a_warning(settings: MakeSettings) -> None:
    """There is something to do, but nothing has failed."""
    found = examine(settings(port=free_port()))
    assert (found["index"].state, found["documents"].state) == ("warn", "warn")
    assert "make reindex" in found["index"].advice
    assert not any(each.state is State.FAIL for each in found.values())


def test_an_invalid_setting_is_named(served: Settings) -> None:
    status, found = run_json(environment_of(served, TOP_K="many"))
    assert (status, list(found)) == (1, ["settings"])
    assert "TOP_K" in found["settings"]["text"]


def test_an_open_server_without_keys_fails(settings: MakeSettings) -> None:
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
def test_a_failing_provider_is_described_by_its_status(
    provider: FakeProvider, openai_settings: MakeSettings, status: int, state: str, named: str
) -> None:
    """Its own message may contain a part of the key."""
    provider.chat.fault = faults.status(status, message=f"Incorrect API key provided: {KEY}")
    found = examine(openai_settings(openai_api_key=KEY))
    assert found["embedding"].state is State.OK
    assert "96 dimensions" in found["embedding"].text
    assert (found["chat"].state, str(status) in found["chat"].text) == (state, True)
    assert named in found["chat"].advice
    assert len(provider.chat.requests) == 1


def test_an_unreachable_provider_fails(openai_settings: MakeSettings) -> None:
    found = examine(openai_settings(openai_base_url=f"http://127.0.0.1:{free_port()}/v1"))
    for check in ("embedding", "chat"):
        assert (found[check].state, "cannot be reached" in found[check].text) == (State.FAIL, True)
        assert "OPENAI_BASE_URL" in found[check].advice


def test_an_index_of_another_model_fails(openai_settings: MakeSettings, settings: MakeSettings) -> None:
    build(settings())
    found = examine(openai_settings())["index"]
    assert found.state is State.FAIL
    assert "openai/text-embedding-3-small" in found.text
    assert "make reindex" in found.text


def test_a_damaged_index_fails(served: Settings) -> None:
    """A single changed bit is enough."""
    (file,) = served.index.dir.glob("snapshots/*/documents.jsonl")
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    found = examine(served)["index"]
    assert found.state is State.FAIL
    assert "documents.jsonl" in found.text
    assert "make reindex" in found.text


def test_unreadable_documents_and_other_chunk_settings_are_warnings(settings: MakeSettings) -> None:
    write_two_documents(settings().documents.dir)
    (settings().documents.dir / "empty.md").touch()
    build(settings())
    found = [each for each in examine_with(settings(chunk_size=500)) if each.check == "index"]
    assert [each.state for each in found] == ["ok", "warn", "warn"]
    assert "1 documents could not be read" in found[1].text
    assert "CHUNK_" in found[2].text


def test_unusable_folders_are_named_with_their_settings(settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = examine(settings(documents_dir=tmp_path / "no", scratch_dir=tmp_path / "file"))
    for check, setting in (("documents", "DOCUMENTS_DIR"), ("scratch", "SCRATCH_DIR")):
        assert (found[check].state, setting in found[check].advice) == (State.FAIL, True)


def test_a_disk_without_space_fails(settings: MakeSettings) -> None:
    settings().index.dir.mkdir()
    status, found = run_json(environment_of(settings()), within=small(settings().index.dir, "1m"))
    assert (status, found["disk"]["state"]) == (1, "fail")


def test_an_unreachable_rate_limit_storage_fails(settings: MakeSettings, tmp_path: Path) -> None:
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


def test_a_port_in_use_fails(settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        found = examine(settings(port=other.getsockname()[1]))["port"]
    assert (found.state, "PORT" in found.advice) == (State.FAIL, True)


def test_the_port_of_a_running_server_of_the_service_is_ok(served: Settings) -> None:
    """In a container, the doctor runs beside it."""
    with serve_in_thread(create_app(served)) as url:
        found = examine(with_values(served, port=urlsplit(url).port))["port"]
    assert (found.state, "a server of this service" in found.text) == (State.OK, True)


def test_the_database_and_its_index_are_checked(
    postgres: PostgresServer, database: dict[str, Any], settings: MakeSettings
) -> None:
    """At first there are no tables, then an index; a wrong password is reported, but not shown."""
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


def test_an_unreachable_database_fails(settings: MakeSettings) -> None:
    found = examine(settings(database_url=f"postgresql://rag:planted@127.0.0.1:{free_port()}/rag"))[
        "database"
    ]
    assert (found.state, "cannot be reached" in found.text) == (State.FAIL, True)


def test_no_secret_is_shown(settings: MakeSettings) -> None:
    """Secret settings are masked in every line, whatever a library says."""
    secret = settings(openai_api_key=KEY, database_url="postgresql://rag:pl%40nted@db:5432/rag")
    finding = fail(
        "x", f"refused {KEY} of postgresql://rag:pl%40nted@db:5432/rag", "not pl@nted or pl%40nted"
    )
    shown = str(finding.without(secrets_of(secret)))
    assert not re.search("planted|pl@nted|pl%40nted", shown)
