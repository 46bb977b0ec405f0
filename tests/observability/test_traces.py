"""Traces: the spans that a collector gets, the headers that providers get, and none when tracing is off."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.config.settings import Settings
from app.main import create_app
from tests.config.test_settings import start_with
from tests.conftest import build
from tests.fake_provider import FakeProvider, faults
from tests.support.serving import serve_in_thread, wait_for
from tests.test_architecture import run_code

if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
    pytest.skip("needs the packages of the extra `tracing`", allow_module_level=True)

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

QUESTION = {"query": "How long is parental leave?"}
SERVER, CLIENT, INTERNAL = 2, 3, 1


class Collector:
    """A collector that takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.app = Starlette(routes=[Route("/v1/traces", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        message = ExportTraceServiceRequest.FromString(await request.body())
        for resource in message.resource_spans:
            self.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return Response(b"", media_type="application/x-protobuf")

    def named(self, start: str) -> Any:
        (span,) = [span for span in self.spans if span.name.startswith(start)]
        return span


def attributes_of(span: Any) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        return [value(one) for one in of.array_value.values] if kind == "array_value" else getattr(of, kind)

    return {each.key: value(each.value) for each in span.attributes}


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    made = Collector()
    with serve_in_thread(made.app) as url:
        yield made, url


@pytest.fixture
def ask(
    collector: tuple[Collector, str], openai_settings: Callable[..., Settings]
) -> Callable[..., httpx.Response]:
    """Send one request to a traced service and stop it, so that all of its spans have been sent."""
    build(openai_settings())

    def ask_once(path: str, *, headers: dict[str, str] | None = None) -> httpx.Response:
        settings = openai_settings(otel_exporter_otlp_endpoint=collector[1])
        with serve_in_thread(create_app(settings)) as url, httpx.Client(base_url=url, timeout=30) as client:
            wait_for(lambda: client.get("/health").status_code == 200, "the index")
            return client.post(path, json=QUESTION, headers=headers)

    return ask_once


@pytest.mark.parametrize("path", ["/query", "/query/stream"])
def test_a_request_is_a_span_with_its_stages_below(
    ask: Callable[..., httpx.Response], collector: tuple[Collector, str], path: str
) -> None:
    """Spans are named by the conventions for generative AI; probes have none, and none has the question."""
    answer = ask(path, headers={"X-Request-ID": "my-request"})
    assert answer.status_code == 200
    got = collector[0]
    assert got.services == {"rag-service"}
    assert len(got.spans) == 4
    request = got.named(f"POST {path}")
    assert request.kind == SERVER
    assert attributes_of(request)["http.route"] == path
    assert attributes_of(request)["http.response.status_code"] == 200
    assert attributes_of(request)["rag.request_id"] == "my-request"
    embed, retrieve, generate = (got.named(name) for name in ("embeddings", "retrieval", "chat"))
    for span in (embed, retrieve, generate):
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
    assert (embed.name, embed.kind) == ("embeddings text-embedding-3-small", CLIENT)
    assert attributes_of(embed) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.embeddings.dimension.count": 96,
    }
    assert retrieve.kind == INTERNAL
    assert attributes_of(retrieve)["gen_ai.operation.name"] == "retrieval"
    assert attributes_of(retrieve)["gen_ai.request.top_k"] == 5
    assert re.fullmatch(r"\d{8}T\d{6}Z-\w+", attributes_of(retrieve)["gen_ai.data_source.id"])
    assert generate.name == "chat gpt-4o-mini"
    assert attributes_of(generate) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 64,
    }
    assert "parental" not in str(got.spans).lower()


def test_a_trace_goes_from_the_caller_to_the_provider(
    ask: Callable[..., httpx.Response], collector: tuple[Collector, str], provider: FakeProvider
) -> None:
    """Each call to the provider belongs to its stage, and baggage is not passed on."""
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    ask("/query", headers={"traceparent": f"00-{trace_id}-{parent}-01", "baggage": "user=somebody"})
    request = collector[0].named("POST /query")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace_id, parent)
    told = [exchange.headers["traceparent"] for exchange in provider.exchanges[-2:]]
    spans = [collector[0].named(name).span_id.hex() for name in ("embeddings", "chat")]
    assert told == [f"00-{trace_id}-{span}-01" for span in spans]
    assert "baggage" not in provider.exchanges[-1].headers


def test_the_callers_sampling_decision_is_respected(
    ask: Callable[..., httpx.Response], collector: tuple[Collector, str], provider: FakeProvider
) -> None:
    """A trace that the caller does not sample is not recorded here."""
    ask("/query", headers={"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"})
    assert collector[0].spans == []
    assert provider.exchanges[-1].headers["traceparent"].endswith("-00")


def test_a_failed_span_has_the_errors_code_only(
    ask: Callable[..., httpx.Response], collector: tuple[Collector, str], provider: FakeProvider
) -> None:
    """The stage has the error's code, but no span has the provider's text or the query string."""
    provider.chat.fault = faults.status(400, message="planted by the provider")
    assert ask("/query?key=planted-in-the-query").status_code == 502
    generate = collector[0].named("chat")
    assert attributes_of(generate)["error.type"] == "model_unavailable"
    assert generate.status.code == collector[0].named("POST").status.code == 2
    assert "planted" not in str(collector[0].spans)


def test_an_unreachable_collector_has_no_effect(openai_settings: Callable[..., Settings]) -> None:
    """It delays neither requests nor the stop of a server."""
    build(openai_settings())
    settings = openai_settings(otel_exporter_otlp_endpoint="http://127.0.0.1:1")
    with serve_in_thread(create_app(settings)) as url:
        wait_for(lambda: httpx.get(f"{url}/health", timeout=60).status_code == 200, "the index")
        assert httpx.post(f"{url}/query", json=QUESTION, timeout=60).status_code == 200


def test_the_sdk_is_not_imported_when_tracing_is_off(tmp_path: Path) -> None:
    """FastAPI itself imports only OpenTelemetry's interfaces."""
    code = (
        "import os, sys\n"
        "os.environ |= {'FASTAPI_OTEL_AUTO_CONFIGURE': 'true', 'INDEX_DIR': 'index'}\n"
        "from app.main import create_app\n"
        "app = create_app()\n"
        "assert not app._native_telemetry.enabled()\n"
        "loaded = [name for name in sys.modules if name.startswith(('opentelemetry.sdk', "
        "'opentelemetry.exporter', 'app.observability.tracing'))]\n"
        "assert not loaded, loaded\n"
    )
    run_code(code, tmp_path)


def test_missing_packages_stop_the_start_with_one_line(tmp_path: Path) -> None:
    """The line says what to install."""
    hide = tmp_path / "opentelemetry" / "exporter"
    hide.mkdir(parents=True)
    (hide / "__init__.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        "import opentelemetry.version, opentelemetry\n"
        f"opentelemetry.__path__ = [{str(tmp_path / 'opentelemetry')!r}, *opentelemetry.__path__]\n"
    )
    done = start_with(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        tmp_path,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: traces need more packages: python -m pip install" in done.stderr
