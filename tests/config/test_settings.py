"""Settings: names, defaults, and one line for a wrong one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config.settings import FIELDS, GROUPS, Settings, SettingsError, load_settings
from tests.support.serving import ROOT, clean_environment, run_reindex


def start_with(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=folder,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = Settings()
    assert (settings.documents.dir, settings.index.dir) == (Path("documents"), Path("index_storage"))
    assert (settings.server.port, settings.server.workers, settings.retrieval.top_k) == (8000, 1, 5)
    assert (settings.llm.model, settings.embedding.model) == ("gpt-4o-mini", "text-embedding-3-small")
    assert (settings.limits.request_timeout_s, settings.limits.max_body_bytes) == (60, 1024 * 1024)
    assert not settings.uses_openai_llm
    assert not settings.uses_openai_embeddings


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_a_key_or_an_address_enables_the_provider(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1/v1")
    settings = load_settings()
    assert settings.uses_openai_llm
    assert settings.uses_openai_embeddings


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Compose files and CI set variables to empty values."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert not load_settings().uses_openai_llm


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("TOP_K", "51"),
        ("CHUNK_SIZE", "many"),
        ("CHUNK_OVERLAP", "1000"),
        ("LLM_PROVIDER", "claude"),
        ("LLM_PROVIDER", "openai"),
        ("EMBEDDING_PROVIDER", "openai"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("LOG_LEVEL", "loud"),
        ("OPENAI_BASE_URL", "localhost:11434"),
        ("OPENAI_BASE_URL", "http://user:planted@localhost/v1"),
    ],
)
def test_an_invalid_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as error:
        load_settings()
    assert "\n" not in str(error.value)
    assert "planted" not in str(error.value)


def test_a_dotenv_file_in_another_encoding_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LLM_MODEL=caf\xe9\n")
    done = start_with({}, tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert ".env" in done.stderr


@pytest.mark.parametrize(
    ("name", "meant"), [("API_KEY", "API_KEYS"), ("RATELIMIT", "RATE_LIMIT"), ("chunk_siz", "CHUNK_SIZE")]
)
def test_a_misspelt_name_in_the_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    """Its setting would otherwise stay at the default, such as no keys at all."""
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text(f"TOP_K=3\n{name}=1\n")
    with pytest.raises(SettingsError, match=f"^{name}: there is no such setting; if {meant} is meant"):
        load_settings()


def test_names_for_other_programs_may_be_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    others = "POSTGRES_PASSWORD=a\nCOMPOSE_FILE=b\nOTEL_EXPORTER_OTLP_TRACES_ENDPOINT=c\n"
    (tmp_path / ".env").write_text(f"{others}TOP_K=3\nlog_level=DEBUG\n")
    assert load_settings().retrieval.top_k == 3


def test_the_default_overlap_depends_on_the_size() -> None:
    assert Settings(chunk_size=200).chunking.overlap == 20
    assert Settings(chunk_size=200, chunk_overlap=0).chunking.overlap == 0


def test_an_invalid_value_stops_the_server_with_one_line(tmp_path: Path) -> None:
    done = start_with({"TOP_K": "many"}, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Wrong setting: TOP_K: Input should be a valid integer, unable to parse string as an integer"
        " (it is 'many')"
    ]


def test_an_invalid_host_is_named(tmp_path: Path) -> None:
    done = start_with({"HOST": "999.1.1.1"}, tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Wrong setting: HOST: '999.1.1.1'")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """It is named before an index is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for workers in ("1", "2"):
            done = start_with({"PORT": str(port), "WORKERS": workers}, tmp_path)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
            assert done.stderr.startswith(f"Wrong setting: PORT: cannot listen on 127.0.0.1:{port} (Addr")


def test_an_invalid_value_stops_reindex_with_one_line() -> None:
    done = run_reindex({"CHUNK_SIZE": "0"})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "CHUNK_SIZE" in done.stderr


def test_settings_are_read_from_a_dotenv_file(tmp_path: Path) -> None:
    """Other names in it are ignored."""
    (tmp_path / ".env").write_text("SOMETHING_ELSE=1\nTOP_K=0\n")
    done = start_with({}, tmp_path)
    assert done.returncode == 2
    assert "TOP_K" in done.stderr


def test_secrets_are_not_in_representations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    assert "sk-planted" not in repr(load_settings()) + load_settings().model_dump_json()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of one group may come from both, and arguments of the constructor win over either."""
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    (tmp_path / ".env").write_text("DB_SCHEMA=of_the_file\nDB_POOL_MAX=20\nHNSW_M=20\n")
    monkeypatch.setenv("db_pool_max", "30")
    monkeypatch.setenv("DB_SCHEMA", "")
    monkeypatch.setenv("HNSW_M", "10")
    database = Settings(hnsw_m=8).database
    assert (database.schema_name, database.pool_max, database.hnsw_m) == ("of_the_file", 30, 8)


@pytest.mark.parametrize("name", ["INDEX", "INDEX__DIR", "DATABASE"])
def test_the_name_of_a_group_is_not_a_setting(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable of another program may have that name."""
    monkeypatch.setenv(name, '{"dir": "elsewhere"}')
    assert load_settings() == Settings()


def test_a_dump_can_be_read_again() -> None:
    """Settings that were not set stay so: a default that depends on another setting follows it."""
    settings = Settings(chunk_size=500, api_keys="alice:one", database_url="postgresql://u:p@db/rag")
    again = Settings(**settings.model_dump(exclude_unset=True))
    assert again == settings
    assert Settings(**settings.model_dump(exclude_unset=True) | {"chunk_size": 200}).chunking.overlap == 20


def test_the_constructor_refuses_an_unknown_name() -> None:
    """In the environment, it belongs to another program."""
    with pytest.raises(ValidationError, match="documents_dri"):
        Settings(documents_dri="documents")


def test_every_setting_has_one_name_and_one_place() -> None:
    assert len(FIELDS) == sum(len(group.model_fields) for group in GROUPS.values())
    assert not FIELDS.keys() & GROUPS.keys()
