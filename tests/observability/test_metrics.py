"""The metrics: their values, also with several workers, and their use in the dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.bootstrap.timing import Timing
from app.config.settings import Settings
from tests.conftest import build, write_two_documents
from tests.fake_provider import FakeProvider, faults
from tests.http.middleware.test_admission import held_streams, wait_until_held
from tests.http.server.test_processes import children_of
from tests.support.serving import ROOT, ServerProcess, server_process, wait_for

MakeSettings = Callable[..., Settings]
Serve = Callable[..., httpx.Client]
QUESTION = {"query": "How long is parental leave?"}
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


class Figures:
    """The samples of a scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name for family in text_string_to_metric_families(text)}
        self.samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def get(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def scrape(client: httpx.Client | str) -> Figures:
    if isinstance(client, str):
        response = httpx.get(f"{client}/metrics", timeout=60)
    else:
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Figures(response.text)


def test_requests_are_counted_by_route_method_and_status(openai_level: httpx.Client) -> None:
    """Routes count by their template and unknown methods as one, so that clients cannot add series."""
    for path in ("/v1/models/one", "/v1/models/two", "/nowhere/1", "/nowhere/2"):
        openai_level.get(path)
    openai_level.request("PROPFIND", "/query")
    openai_level.post("/query", json=QUESTION)
    openai_level.post("/query", json={})
    found = scrape(openai_level)
    name = "rag_requests_total"
    assert found.get(name, route="/v1/models/{model}", method="GET", status="404") == 2
    assert found.get(name, route="none", method="GET", status="404") == 2
    assert found.get(name, method="other") == 1
    assert found.get(name, route="/query", method="POST", status="200") == 1
    assert found.get(name, route="/query", method="POST", status="422") == 1
    assert found.get("rag_request_duration_seconds_count", route="/query") >= 2


def test_stages_answers_and_tokens_are_counted(openai_level: httpx.Client) -> None:
    """Only a stream has a first token; tokens are counted by the provider."""
    openai_level.post("/query", json=QUESTION)
    openai_level.post("/query/stream", json=QUESTION)
    openai_level.post("/retrieve", json=QUESTION)
    found = scrape(openai_level)
    counts = {
        stage: found.get("rag_stage_duration_seconds_count", stage=stage)
        for stage in ("embed", "retrieve", "generate", "first_token")
    }
    assert counts == {"embed": 3, "retrieve": 3, "generate": 2, "first_token": 1}
    assert found.get("rag_answers_total", status="answered") == 2
    assert found.get("rag_tokens_total", kind="prompt") == 2 * 812
    assert found.get("rag_tokens_total", kind="completion") == 2 * 64


def test_no_context_is_counted(openai_settings: MakeSettings, serve: Serve) -> None:
    """An answer without passages has a status of its own."""
    build(openai_settings())
    client = serve(openai_settings(min_score=1))
    assert client.post("/query", json={"query": "xyzzy"}).json()["status"] == "no_context"
    assert scrape(client).get("rag_answers_total", status="no_context") == 1


def test_failures_retries_and_the_circuit_breaker_are_shown(
    provider: FakeProvider, openai_level: httpx.Client
) -> None:
    """Each attempt counts with its status, and the breaker opens after five failed calls."""
    provider.chat.fault = faults.status(503)
    openai_level.post("/query", json=QUESTION)
    found = scrape(openai_level)
    chat = {"endpoint": "chat/completions"}
    assert found.get("rag_provider_failures_total", reason="503", **chat) == 3
    assert found.get("rag_provider_retries_total", **chat) == 2
    assert found.get("rag_provider_breaker_open", **chat) == 0

    provider.chat.fault = faults.status(500)
    while scrape(openai_level).get("rag_provider_breaker_open", **chat) == 0:
        assert openai_level.post("/query", json=QUESTION).status_code == 502
        assert len(provider.chat.requests) <= 15
    assert scrape(openai_level).get("rag_provider_breaker_open", endpoint="embeddings") == 0


def test_load_and_rejections_are_shown(
    provider: FakeProvider, openai_settings: MakeSettings, serve: Serve
) -> None:
    """Gauges show running and waiting requests, and a counter the rejected ones with their reason."""
    build(openai_settings())
    client = serve(openai_settings(max_concurrency=1, max_queue=1), timing=Timing(queue_s=60))
    with held_streams(provider, client) as (ask, released):
        answers = [ask()]
        wait_until_held(provider, 1)
        answers.append(ask())
        wait_for(lambda: scrape(client).get("rag_requests_queued") == 1, "one to wait")
        assert scrape(client).get("rag_requests_in_flight") == 1
        assert client.post("/query", json=QUESTION).status_code == 503
        released.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    # A request ends after its answer.
    wait_for(lambda: scrape(client).get("rag_requests_in_flight") == 0, "the last to end")
    found = scrape(client)
    assert found.get("rag_rejected_requests_total", reason="overloaded") == 1
    assert found.get("rag_requests_queued") == 0


def test_the_index_its_swaps_and_failures_are_shown(settings: MakeSettings, serve: Serve) -> None:
    """Only the id of the served index is shown."""
    made = settings()
    write_two_documents(made.documents.dir)
    first = build(made)
    client = serve(made)
    assert scrape(client).get("rag_index_served", index=str(first.index)) == 1
    assert scrape(client).get("rag_index_swaps_total") == 0

    (made.documents.dir / "more.md").write_text("More.")
    second = build(made)
    wait_for(lambda: scrape(client).get("rag_index_served", index=str(second.index)) == 1, "the swap")
    found = scrape(client)
    assert found.get("rag_index_served") == 1
    assert found.get("rag_index_documents") == 3
    assert found.get("rag_index_chunks") == client.get("/health").json()["index"]["chunks"]
    assert found.get("rag_index_swaps_total") == 1
    assert found.get("rag_index_built_timestamp_seconds") > 1.7e9

    (made.index.dir / "CURRENT").write_text("nonsense")
    wait_for(lambda: scrape(client).get("rag_index_failures_total") == 1, "the failure to be counted")


def test_the_pools_of_database_connections_are_shown(
    settings: MakeSettings, serve: Serve, database: dict[str, Any]
) -> None:
    """The connections to a server have a gauge, and so have the searches that wait for one."""
    made = settings(**database, db_pool_min=2)
    write_two_documents(made.documents.dir)
    build(made)
    client = serve(made)
    wait_for(lambda: scrape(client).get("rag_database_connections", server="primary") >= 2, "the pool")
    assert scrape(client).get("rag_database_waiting", server="primary") == 0


def test_a_scraper_may_ask_for_openmetrics(sample: httpx.Client) -> None:
    """The format follows the Accept header."""
    response = sample.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def ask_often(server: ServerProcess, count: int) -> None:
    """Send requests over a connection each, so that every worker gets some."""
    for _ in range(count):
        assert httpx.post(f"{server.url}/query", json=QUESTION, timeout=60).status_code == 200


def test_several_workers_count_together(settings: MakeSettings, tmp_path: Path) -> None:
    """Any worker shows the figures of all. A dead worker's counters stay, and its gauges and all files go."""
    made = settings()
    write_two_documents(made.documents.dir)
    build(made)
    environment = {
        "DOCUMENTS_DIR": str(made.documents.dir),
        "INDEX_DIR": str(made.index.dir),
        "WORKERS": "2",
        "SCRATCH_DIR": str(tmp_path),
    }
    with server_process(environment, tmp_path / "log") as server:
        server.wait_until_ready()
        wait_for(lambda: scrape(server.url).get("rag_index_served") == 2, "both workers")
        ask_often(server, 20)
        # A worker counts a request after its answer.
        wait_for(
            lambda: scrape(server.url).get("rag_requests_total", route="/query") == 20, "all to be counted"
        )
        for _ in range(5):
            assert scrape(server.url).get("rag_requests_total", route="/query") == 20
            assert scrape(server.url).get("rag_index_documents") == 2

        (folder,) = tmp_path.glob("rag-metrics-*")
        worker = next(int(re.findall(r"\d+", path.name)[-1]) for path in folder.glob("gauge_livesum_*.db"))
        assert worker in children_of(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: f"[{worker}]" in server.output, "the worker to be missed")
        wait_for(lambda: server.output.count("index: serving") == 3, "another one")
        found = scrape(server.url)
        assert found.get("rag_requests_total", route="/query") == 20
        assert found.get("rag_index_served") == 2
        assert found.get("rag_requests_in_flight") == 0
        assert server.stop() == 0
    assert not list(tmp_path.glob("rag-metrics-*"))


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\brag_\w+", expression))


def test_the_dashboard_uses_exactly_the_existing_metrics(sample: httpx.Client) -> None:
    """Its queries use all metrics, and only labels that they have."""
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    shown = {name for panel in panels for target in panel["targets"] for name in names_in(target["expr"])}
    known = {re.sub(r"_total$|_bucket$", "", name): name for name in shown}
    families = scrape(sample).families
    assert known.keys() == {name for name in families if name.startswith("rag_")}
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(
    "target",
    [target for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", [])],
    ids=lambda target: target["expr"][:60],
)
def test_each_legend_names_labels_that_are_kept(target: dict[str, str]) -> None:
    """A legend uses only labels that its query groups by."""
    kept = set(re.findall(r"\w+", "".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept
