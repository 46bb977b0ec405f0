"""The compose files, as far as they can be proven without a Docker engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config.settings import FIELDS, Settings
from tests.support.serving import ROOT

DEPLOY = ROOT / "deploy"
FILES = ("compose.yaml", "compose.postgres.yaml")
IMAGE = "rag-service"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SETTINGS = {name.upper() for name in FIELDS}


def parsed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content


def merged(*names: str) -> dict[str, dict[str, Any]]:
    """The services, as compose merges files: mappings by name, lists by appending."""
    services: dict[str, dict[str, Any]] = {}
    for name in names:
        for service, fields in parsed(name)["services"].items():
            known = services.setdefault(service, {})
            for field, value in fields.items():
                if isinstance(value, list) and field != "command":
                    known[field] = [*known.get(field, []), *value]
                elif isinstance(value, dict):
                    known[field] = {**known.get(field, {}), **value}
                else:
                    known[field] = value
    return services


def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: fields for name, fields in services.items() if fields["image"] == IMAGE}


def servers(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: fields for name, fields in ours(services).items() if "profiles" not in fields}


def env_files(service: dict[str, Any]) -> set[str]:
    return {each if isinstance(each, str) else each["path"] for each in service.get("env_file", [])}


@pytest.mark.parametrize("names", [FILES[:1], FILES])
def test_the_compose_service_agrees_with_the_image(names: tuple[str, ...]) -> None:
    """This holds for command, port and folders, and every variable is a setting."""
    folders = json.loads(re.findall(r"^VOLUME (.+)$", DOCKERFILE, re.MULTILINE)[0])
    port = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)[0]
    services = ours(merged(*names))
    assert "service" in services
    for service in services.values():
        assert set(service.get("environment", {})) <= SETTINGS
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            assert target in folders
            assert options == (["ro"] if target == "/service/documents" else [])
            assert source == "index" or (DEPLOY / source).is_dir()
        for published in service.get("ports", []):
            assert published.split(":")[2] == port
            assert published.startswith("127.0.0.1:"), "there is no login yet"
        if command := service.get("command"):
            assert command[0] == "python"
            assert f"COPY {command[1]} {command[1]}\n" in DOCKERFILE
    assert f"docker build --tag {IMAGE} ." in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", FILES)
def test_the_compose_files_contain_no_secret(name: str) -> None:
    """Secrets are in files that git ignores."""
    text = (DEPLOY / name).read_text()
    assert "://" not in text
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for service in parsed(name)["services"].values():
        for variable in service.get("environment", {}):
            assert not re.search("KEY|PASSWORD|URL|SECRET", variable)
        for path in env_files(service):
            assert path == "../.env" or f"/deploy/{path}" in ignored
    assert ".env" in ignored


def test_every_process_of_the_service_gets_the_database() -> None:
    """Each waits for it, and the two servers have different ports."""
    services = merged(*FILES)
    for service in ours(services).values():
        assert "service.env" in env_files(service)
        assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    ports = [fields["ports"] for fields in servers(services).values()]
    assert len(ports) == 2
    assert len({each.split(":")[1] for (each,) in ports}) == 2
    assert set(ours(services)) - set(servers(services)) == {"reindex", "migrate"}


def test_the_database_keeps_its_data() -> None:
    """The volume is where PostgreSQL 18's image expects it, and the shared memory suffices for an index."""
    content = parsed("compose.postgres.yaml")
    database = content["services"]["database"]
    assert database["image"] == "pgvector/pgvector:pg18"
    assert database["volumes"] == ["database:/var/lib/postgresql"]
    assert "database" in content["volumes"]
    assert env_files(database) == {"database.env"}
    assert "pg_isready" in database["healthcheck"]["test"]
    shared_mb = int(database["shm_size"].removesuffix("gb")) * 1024
    assert shared_mb >= 2 * Settings().database.maintenance_mb


def test_a_server_has_time_to_drain() -> None:
    """It can drain before it is killed."""
    for service in servers(merged(*FILES)).values():
        assert int(service["stop_grace_period"].removesuffix("s")) > Settings().limits.drain_timeout_s + 5


def test_all_paths_exist_in_the_project() -> None:
    service = parsed("compose.yaml")["services"]["service"]
    assert (DEPLOY / service["build"]).resolve() == Path(ROOT)
