"""The documentation is true: its commands run, its links resolve, and its lists are complete.

Every `sh`, `python` and `javascript` block is run, unless a comment above it gives the reason why not:
`<!-- not run: needs a cluster -->`. A comment `<!-- shows: ... -->` holds what the block's output must have.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from app.config.choices import LogLevel
from app.config.settings import FIELDS
from app.domain.errors import RagError
from tests.support.kustomize import build
from tests.support.markdown import Block, anchors, blocks, links, prose
from tests.support.newcomer import Checkout
from tests.support.postgres import PASSWORD, PostgresServer, postgres_server
from tests.support.serving import ROOT

pytestmark = pytest.mark.slow

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
)
RUN = {"sh", "python", "javascript"}
LANGUAGES = {*RUN, "json", "sql", "mermaid"}
# Its blocks follow each other, from an empty database on: see the test at the end.
TOGETHER = "docs/postgresql.md"

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
SERVICE = re.compile(r"(?:http://)?localhost:8000")
SERVES = re.compile(r"make run|rag-service serve|uvicorn ")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def to_run(language: str) -> list[Block]:
    return [
        block
        for block in BLOCKS
        if block.language == language and block.not_run is None and block.document != TOGETHER
    ]


def ask(command: list[str], block: Block, service: httpx.Client, folder: Path) -> None:
    """Run a block that asks a service."""
    done = subprocess.run(
        [*command, SERVICE.sub(str(service.base_url).rstrip("/"), block.code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for text in block.shows:
        assert text in done.stdout


def test_every_block_has_a_known_language() -> None:
    """A block in another language would not be run, and nobody would notice."""
    assert {block.language for block in BLOCKS} <= LANGUAGES
    assert all(block.not_run is None for block in BLOCKS if block.language not in RUN)


@pytest.mark.parametrize("block", [each for each in to_run("sh") if SERVICE.search(each.code)], ids=str)
def test_documented_requests_work(block: Block, sample_on_disk: httpx.Client, tmp_path: Path) -> None:
    ask(["bash", "-euc"], block, sample_on_disk, tmp_path)


@pytest.mark.parametrize("block", to_run("python"), ids=str)
def test_documented_python_works(block: Block, sample_on_disk: httpx.Client, tmp_path: Path) -> None:
    ask([sys.executable, "-c"], block, sample_on_disk, tmp_path)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("block", to_run("javascript"), ids=str)
def test_documented_javascript_works(block: Block, sample_on_disk: httpx.Client, tmp_path: Path) -> None:
    ask(["node", "--input-type=module", "--eval"], block, sample_on_disk, tmp_path)


@pytest.mark.parametrize("block", [each for each in to_run("sh") if not SERVICE.search(each.code)], ids=str)
def test_documented_commands_of_the_project_work(block: Block, tmp_path: Path, provider_url: str) -> None:
    """They work in a fresh checkout; a fake provider stands in for OpenAI and Ollama."""
    checkout = Checkout(tmp_path)
    code = block.code.replace("http://localhost:11434/v1", f"{provider_url}/v1")
    if "OPENAI_API_KEY" in code:
        checkout.environment["OPENAI_BASE_URL"] = f"{provider_url}/v1"
    if SERVES.search(code.splitlines()[-1]):
        checkout.serve(code)
        return
    shown = checkout.run(code)
    for text in block.shows:
        assert text in shown


def test_the_postgresql_page_works_with_an_empty_database(tmp_path: Path) -> None:
    """The page's blocks work in their order, and a server starts with the role that only reads."""
    prepare, move, grant = blocks(TOGETHER)
    checkout = Checkout(tmp_path)
    checkout.run("make reindex")
    with postgres_server() as server:
        server.execute("DROP DATABASE rag")
        execute_as_superuser(server, prepare.code)
        address = f"127.0.0.1:{server.port}/rag"
        *commands, serve = move.code.replace("localhost/rag", address).splitlines()
        shown = checkout.run("\n".join(commands))
        assert all(text in shown for text in move.shows)
        checkout.serve("\n".join([commands[0], serve]))
        execute_as_superuser(server, f"\\connect rag\n{grant.code}")
        checkout.environment["DATABASE_URL"] = f"postgresql://rag_reader:password@{address}"
        checkout.serve("make run")


def execute_as_superuser(server: PostgresServer, code: str) -> None:
    """Execute statements one by one and follow `\\connect`, as psql does."""
    database = "postgres"
    for statement in re.findall(r"\\connect \w+|[^;\\]+;", code):
        if statement.startswith("\\connect"):
            database = statement.split()[1]
            continue
        url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{server.port}/{database}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document: str) -> None:
    """Linked files exist, and so do the headings in them. Other sites are not asked."""
    for link in links(document):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / document).parent.joinpath(name).resolve() if name else ROOT / document
        path = target.relative_to(ROOT).as_posix()
        assert target.exists(), f"{document}: {link}"
        assert not anchor or anchor in anchors(path), f"{document}: {link}"


@pytest.mark.parametrize("block", [each for each in BLOCKS if each.language == "json"], ids=str)
def test_json_examples_parse(block: Block) -> None:
    assert json.loads(block.code)


def test_the_readmes_answer_is_the_real_one(sample_on_disk: httpx.Client) -> None:
    """The fields, the text and the citation that the README prints are those of the real answer."""
    (shown,) = (json.loads(block.code) for block in blocks("README.md") if block.language == "json")
    answer = sample_on_disk.post("/query", json={"query": "How long is parental leave?"}).json()
    assert shown.keys() == answer.keys()
    assert shown["timings_ms"].keys() == answer["timings_ms"].keys()
    assert answer["answer"].startswith(shown["answer"].removesuffix("..."))
    (cited,) = shown["citations"]
    citation = next(each for each in answer["citations"] if each["marker"] == cited["marker"])
    assert cited.keys() == citation.keys()
    # Builds differ a little in their weights.
    assert cited.pop("score") == pytest.approx(citation.pop("score"), abs=0.01)
    for name, value in cited.items():
        assert str(citation[name]).startswith(str(value).removesuffix("...").rstrip()), name
    for name in ("status", "sources", "model", "usage"):
        assert shown[name] == answer[name]


@pytest.fixture(scope="module")
def openapi(sample_on_disk: httpx.Client) -> dict[str, Any]:
    description: dict[str, Any] = sample_on_disk.get("/openapi.json").json()
    return description


def test_every_route_is_described(openapi: dict[str, Any]) -> None:
    """The headings name all routes, and only those that exist."""
    headings = "\n".join(line for line in text_of("docs/api.md").splitlines() if line.startswith("#"))
    described = set(re.findall(r"`((?:GET|POST) /[^`]*)`", headings))
    there_are = {
        f"{method.upper()} {path}" for path, methods in openapi["paths"].items() for method in methods
    }
    assert described == there_are


def test_every_field_is_described(openapi: dict[str, Any]) -> None:
    """The page names every field of requests, responses and errors."""
    described = set(re.findall(r"`(\w+)`", prose("docs/api.md")))
    fields = {
        name for schema in openapi["components"]["schemas"].values() for name in schema.get("properties", ())
    }
    assert fields <= described, fields - described


def test_every_error_is_described() -> None:
    """The table has each code with its status, and only codes that exist."""
    classes: list[type[RagError]] = [RagError, *RagError.__subclasses__()]
    errors = {error.code: error.status for error in classes}
    errors |= {"not_found": 404, "method_not_allowed": 405}
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text_of("docs/api.md"), re.MULTILINE)
    assert sorted((code, int(status)) for status, code in rows) == sorted(errors.items())


def test_every_status_of_a_document_is_described(openapi: dict[str, Any]) -> None:
    """The table has all statuses in the order of the OpenAPI description."""
    statuses = openapi["components"]["schemas"]["DocumentStatus"]["enum"]
    section = text_of("docs/documents.md").split("## Statuses")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == statuses


def test_every_option_of_a_reindex_is_described() -> None:
    """The table has all options, and only those that exist."""
    shown = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reindex.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    rows = re.findall(r"^\| `(--[\w-]+)` \|", text_of("docs/documents.md"), re.MULTILINE)
    assert set(rows) == set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown, re.MULTILINE))


def test_every_metric_is_described(sample_on_disk: httpx.Client) -> None:
    """The table has all metrics under the names that queries use, and only those that exist."""
    there_are = set(re.findall(r"^# TYPE (rag_\w+) ", sample_on_disk.get("/metrics").text, re.MULTILINE))
    rows = re.findall(r"^\| `(rag_\w+)` \|", text_of("docs/observability.md"), re.MULTILINE)
    assert set(rows) == there_are


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_settings_exist(document: str) -> None:
    """Capital letters in code are a setting, alone or with a value, or one of a few other names."""
    known = {name.upper() for name in FIELDS}
    # Of make and of the database image; a file; a class; placeholders; levels of the log.
    others = {"ARGS", "POSTGRES_PASSWORD", "CURRENT", "LLM", "KEY", "HASH", *LogLevel}
    named = set(re.findall(r"`([A-Z][A-Z_]{2,})(?:=[^`]*)?`", prose(document)))
    unknown = {name for name in named - known - others if not name.startswith("OTEL_")}
    assert not unknown


def test_the_kubernetes_page_names_existing_objects() -> None:
    """Every file and object that the page uses exists."""
    page = text_of("docs/kubernetes.md")
    base = ROOT / "deploy" / "kubernetes" / "base"
    manifests = build(base)
    known = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in manifests}
    for path in re.findall(r"deploy/[\w./-]*\w", page):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"\b(?:deployment|cronjob|job|service)/[\w-]+\w", page)) <= known
    (job,) = (each for each in manifests if each["kind"] == "Job")
    assert f"`{job['spec']['template']['spec']['containers'][0]['command'][2]}`" in page


def test_the_container_is_run_as_the_image_is_built() -> None:
    """The name, port, folders and scripts of `docker run` are those of the Dockerfile and the Makefile."""
    (block,) = (each for each in blocks("docs/operations.md") if "docker run" in each.code)
    dockerfile, makefile = text_of("Dockerfile"), text_of("Makefile")
    (run,) = re.findall(r"docker run (.*?)\n(?!  )", block.code.replace("\\\n  ", " "), re.DOTALL)
    arguments = shlex.split(run)
    assert f"docker build --tag {arguments[-1]} ." in makefile
    (port,) = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
    assert f"127.0.0.1:8000:{port}" in arguments
    for folder in json.loads(re.findall(r"^VOLUME (.+)$", dockerfile, re.MULTILINE)[0]):
        assert f":{folder}" in run
    for script in re.findall(r"scripts/\w+\.py", block.code):
        assert f"COPY {script} {script}\n" in dockerfile


def test_the_compose_files_and_their_jobs_exist() -> None:
    """Every file and job that the page uses exists."""
    page = text_of("docs/operations.md")
    for path in re.findall(r"deploy/[\w.-]+\.yaml", page):
        assert (ROOT / path).exists(), path
    services = set()
    for name in ("compose.yaml", "compose.postgres.yaml"):
        services |= set(yaml.safe_load(text_of(f"deploy/{name}"))["services"])
    assert set(re.findall(r"docker compose (?:.* )?run --rm (\w+)", page)) <= services


@pytest.mark.skipif(not (ROOT / "app" / "domain").is_dir(), reason="the packages have not moved yet")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    """Paths of the code, the scripts, the tests and the benchmarks are right."""
    for path in re.findall(r"`((?:app|scripts|tests|benchmarks)/[\w./-]*)`", prose(document)):
        assert (ROOT / path).exists(), f"{document}: {path}"


def test_ci_runs_what_a_contributor_runs() -> None:
    """CI runs `make check` with every supported Python, and may not write to the repository."""
    workflow = yaml.safe_load(text_of(".github/workflows/ci.yml"))
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {"run": "make check"} in job["steps"]
