"""Fixtures of all tests; servers are real ones, on free ports of 127.0.0.1."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
from pydantic import SecretStr

from app.bootstrap.indexing import make_indexer, make_storage
from app.bootstrap.timing import Timing
from app.config.settings import FIELDS, Settings
from app.indexing.indexer import Indexer
from app.indexing.report import Report
from app.main import create_app
from tests.fake_provider import FakeProvider, serving
from tests.support.postgres import PostgresServer, drop_schema, postgres_server
from tests.support.serving import ROOT, serve_in_thread, wait_for
from tests.support.timing import PATIENT
from tests.support.watched import WatchedService, serve_watched

# No test depends on how long a machine takes for an example.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

DATA = ROOT.parent / "shared" / "data"
SAMPLE_DOCUMENTS = ROOT / "documents"


def pytest_configure() -> None:
    """Refuse to run with the commands of another folder, as in a `.venv` that was copied."""
    installed = distribution("rag-service").read_text("direct_url.json")
    if json.loads(installed or "{}").get("url") != ROOT.as_uri():
        pytest.exit("The project is not installed from this folder: run make install", returncode=4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the tests that have a long form in it")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """True if tests should run in their long form."""
    wanted: bool = request.config.getoption("--soak")
    return wanted


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Hide a developer's environment and `.env`, above all a real API key."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FIELDS:
            patch.delenv(name.upper(), raising=False)
            patch.delenv(name.lower(), raising=False)
        patch.setitem(Settings.model_config, "env_file", None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("needs the measuring data, which is not beside this checkout")
    return DATA


def indexer_of(settings: Settings) -> Indexer:
    """Make the indexer of these settings, which gives a database time to answer."""
    return make_indexer(settings, make_storage(settings, PATIENT.database))


def build(settings: Settings, *, full: bool = False, force: bool = False) -> Report:
    """Build an index in this process."""
    return indexer_of(settings).build(lambda _: None, threading.Event(), full=full, force=force)


def plan(settings: Settings) -> Report:
    return indexer_of(settings).plan(lambda _: None, threading.Event())


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    """A function that makes settings over an empty `documents/` and an empty index of this test."""
    (tmp_path / "documents").mkdir()

    defaults: dict[str, Any] = {
        "documents_dir": tmp_path / "documents",
        "index_dir": tmp_path / "index",
        "index_poll_s": 0.05,
        "parse_workers": 1,
    }

    def make(**values: Any) -> Settings:
        return Settings(**defaults | values)

    return make


@pytest.fixture
def serve() -> Iterator[Callable[..., httpx.Client]]:
    """A function that starts a server with given settings and, by default, waits until it is ready.

    The times that no setting changes may be given, too.
    """
    with ExitStack() as stack:

        def start(settings: Settings, *, ready: bool = True, timing: Timing = PATIENT) -> httpx.Client:
            url = stack.enter_context(serve_in_thread(create_app(settings, timing)))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
            if ready:
                wait_for(lambda: client.get("/health").status_code == 200, "the index to be ready")
            return client

        yield start


@pytest.fixture(scope="session")
def sample_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with an index of the sample documents, without any model provider."""
    settings = Settings(
        documents_dir=SAMPLE_DOCUMENTS, index_dir=tmp_path_factory.mktemp("sample_index"), parse_workers=2
    )
    build(settings)
    return settings


@contextmanager
def _served(settings: Settings) -> Iterator[httpx.Client]:
    app = create_app(settings, PATIENT)
    with serve_in_thread(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def sample_on_disk(sample_settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server over the sample documents, for tests that change nothing."""
    with _served(sample_settings) as client:
        yield client


@pytest.fixture(scope="session")
def sample_in_postgres(postgres: PostgresServer) -> Iterator[httpx.Client]:
    """A client of the same server with its index in PostgreSQL."""
    settings = Settings(
        documents_dir=SAMPLE_DOCUMENTS,
        parse_workers=2,
        database_url=SecretStr(postgres.url()),
        db_schema="sample",
    )
    build(settings)
    with _served(settings) as client:
        yield client


@pytest.fixture(scope="session", params=["on_disk", "in_postgres"])
def sample(request: pytest.FixtureRequest) -> httpx.Client:
    """A client of each of the two servers over the sample documents, in turn."""
    client: httpx.Client = request.getfixturevalue(f"sample_{request.param}")
    return client


@pytest.fixture(scope="session")
def _provider_server() -> Iterator[tuple[FakeProvider, str]]:
    with serving() as (provider, url):
        yield provider, url


@pytest.fixture(scope="session")
def provider_url(_provider_server: tuple[FakeProvider, str]) -> str:
    """Address of the fake model provider."""
    return _provider_server[1]


@pytest.fixture
def provider(_provider_server: tuple[FakeProvider, str]) -> Iterator[FakeProvider]:
    """The fake model provider in its initial state, before a test and after it."""
    _provider_server[0].reset()
    yield _provider_server[0]
    _provider_server[0].reset()


def write_two_documents(folder: Path) -> None:
    (folder / "leave.md").write_text("# Leave\n\n## Parental\n\nParental leave lasts 16 weeks.\n")
    (folder / "travel.md").write_text("# Travel\n\nTrains are booked in second class.\n")


@pytest.fixture
def openai_settings(
    provider: FakeProvider, provider_url: str, settings: Callable[..., Settings]
) -> Callable[..., Settings]:
    """A function that makes settings with the fake provider's models, over two documents of this test."""
    write_two_documents(settings().documents.dir)

    def make(**values: Any) -> Settings:
        return settings(**_provider_values(provider_url) | values)

    return make


@pytest.fixture(scope="session")
def _openai_index(provider_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("openai_level")
    write_two_documents(folder)
    settings = Settings(
        documents_dir=folder,
        index_dir=tmp_path_factory.mktemp("openai_index"),
        **_provider_values(provider_url),
    )
    build(settings)
    return settings


@pytest.fixture
def serve_openai_level(
    _openai_index: Settings, provider: FakeProvider, serve: Callable[..., httpx.Client]
) -> Callable[..., httpx.Client]:
    """A function that starts a new server over the same two documents, with the fake provider's models.

    The server is new for each test, because it remembers questions' embeddings and consecutive failures.
    """

    def start(timing: Timing = PATIENT) -> httpx.Client:
        return serve(_openai_index, ready=False, timing=timing)

    return start


@pytest.fixture
def openai_level(serve_openai_level: Callable[..., httpx.Client]) -> httpx.Client:
    """A client of such a server."""
    return serve_openai_level()


@pytest.fixture(scope="session")
def watched_settings(provider_url: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """A function that makes settings with the provider's models and an index, for one request at a time."""
    folder = tmp_path_factory.mktemp("watched")
    write_two_documents(folder)
    defaults = _provider_values(provider_url) | {
        "documents_dir": folder,
        "index_dir": tmp_path_factory.mktemp("watched_index"),
        "index_poll_s": 60,
        "request_timeout_s": 60,
        "max_concurrency": 1,
        "max_queue": 0,
    }
    build(Settings(**defaults))

    def make(**values: Any) -> Settings:
        return Settings(**defaults | values)

    return make


@pytest.fixture(scope="session")
def _watched_services() -> Iterator[dict[str, tuple[WatchedService, ExitStack]]]:
    services: dict[str, tuple[WatchedService, ExitStack]] = {}
    yield services
    for _, stack in services.values():
        stack.close()


@pytest.fixture
def watched_service(
    provider: FakeProvider,
    watched_settings: Callable[..., Settings],
    _watched_services: dict[str, tuple[WatchedService, ExitStack]],
) -> Callable[..., WatchedService]:
    """A function that serves given settings and watches the server, reusing clean servers."""

    def get(*, timing: Timing = PATIENT, **values: Any) -> WatchedService:
        key = repr((timing, sorted(values.items())))
        service, stack = _watched_services.pop(key, (None, ExitStack()))
        if service is None or not service.clean:
            stack.close()
            app = create_app(watched_settings(**values), timing)
            service = stack.enter_context(serve_watched(app, provider))
        _watched_services[key] = service, stack
        service.note_idle()
        return service

    return get


def _provider_values(url: str) -> dict[str, Any]:
    return {"openai_base_url": f"{url}/v1", "openai_api_key": "sk-test", "request_timeout_s": 60}


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for tests that leave it running."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[dict[str, Any]]:
    """Settings that keep the index in PostgreSQL, in an empty schema of this test's own."""
    schema = f"test_{secrets.token_hex(4)}"
    yield {"database_url": postgres.url(), "db_schema": schema}
    drop_schema(postgres, schema)
