"""`deploy/kubernetes`: right by the API's schemas, and in agreement with the image and the settings."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate.utils import ValidationError, validate

from app.config.settings import FIELDS, Settings
from tests.support.kustomize import Manifest, build, containers, pod
from tests.support.serving import ROOT
from tests.test_dockerfile import steps

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, POSTGRES = FOLDER / "base", FOLDER / "overlays" / "postgres"
# The oldest that is meant to work, and the newest that the schemas are there for.
API_VERSIONS = ["1.29", "1.37"]
SECRETS = [FOLDER / "secret.example.yaml", POSTGRES / "secret.example.yaml"]
# After a drain: cut (the draining middleware), close (__main__), end a build and close the pool (main).
CLOSING_S = 2 + 5 + 3 + 2
WORKLOADS = [("Deployment", "rag"), ("Job", "rag-reindex"), ("CronJob", "rag-reindex")]

both = pytest.mark.parametrize("folder", [BASE, POSTGRES], ids=["base", "postgres"])


def get(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod_of(folder: Path, kind: str, name: str) -> Manifest:
    found = pod(get(build(folder), kind, name))
    assert found is not None
    return found


def key_of(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


@both
@pytest.mark.parametrize("version", API_VERSIONS)
def test_the_manifests_follow_the_schemas(folder: Path, version: str) -> None:
    """The check is strict: a misspelt field is an error, for which Kubernetes itself would only warn."""
    secrets = [yaml.safe_load(path.read_text()) for path in SECRETS]
    for manifest in [*build(folder), *secrets]:
        validate(manifest, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    manifest = get(build(BASE), "Deployment", "rag")
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(ValidationError):
        validate(manifest, API_VERSIONS[-1], strict=True)


@both
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_builds_the_same_manifests(folder: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=True
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(built, key=key_of) == sorted(build(folder), key=key_of)


@both
def test_every_variable_is_a_setting(folder: Path) -> None:
    """The settings accept its value, and the Secrets have none."""
    manifests = build(folder)
    secrets = [yaml.safe_load(path.read_text())["stringData"] for path in SECRETS]
    assert not any(value for secret in secrets for value in secret.values())
    data = get(manifests, "ConfigMap", "rag-settings")["data"]
    direct = [env["name"] for each in manifests for one in containers(each) for env in one.get("env", [])]
    known = {name.upper() for name in FIELDS}
    assert {*data, *secrets[0], *direct} <= known
    Settings(**{name.lower(): value for name, value in data.items()})


@both
def test_every_reference_resolves(folder: Path) -> None:
    """They name ConfigMaps, Secrets with their keys, claims, volumes, labels and ports."""
    manifests = build(folder)
    names = {key_of(each) for each in manifests}
    secrets = {
        secret["metadata"]["name"]: set(secret["stringData"])
        for secret in (yaml.safe_load(path.read_text()) for path in SECRETS)
    }
    for manifest in manifests:
        spec = pod(manifest) or {}
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for volume in spec.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in names
        for container in containers(manifest):
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            for source in container["envFrom"]:
                if "configMapRef" in source:
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
                else:
                    assert source["secretRef"]["name"] in secrets
            for env in container.get("env", []):
                reference = env["valueFrom"]["secretKeyRef"]
                assert reference["key"] in secrets[reference["name"]]
    labels = get(manifests, "Deployment", "rag")["spec"]["template"]["metadata"]["labels"]
    for kind, path in [
        ("Service", ["selector"]),
        ("PodDisruptionBudget", ["selector", "matchLabels"]),
        ("NetworkPolicy", ["podSelector", "matchLabels"]),
        ("Deployment", ["selector", "matchLabels"]),
    ]:
        selector: Any = get(manifests, kind, "rag")["spec"]
        for part in path:
            selector = selector[part]
        assert selector.items() <= labels.items(), kind
    target = get(manifests, "HorizontalPodAutoscaler", "rag")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in names


@both
@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_pods_have_minimal_rights(folder: Path, kind: str, name: str) -> None:
    spec = pod_of(folder, kind, name)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any("hostPath" in volume for volume in spec["volumes"])
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"]["requests"])
        assert {"memory", "ephemeral-storage"} <= set(container["resources"]["limits"])


@both
@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_the_manifests_agree_with_the_image(folder: Path, kind: str, name: str) -> None:
    """This holds for user, port, folders, program and writable paths."""
    spec = pod_of(folder, kind, name)
    assert steps("USER") == [str(spec["securityContext"]["runAsUser"])]
    data = get(build(folder), "ConfigMap", "rag-settings")["data"]
    in_image = json.loads(steps("VOLUME")[0])
    for container in spec["containers"]:
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
        assert data["SCRATCH_DIR"] in writable
        assert set(mounts) - {data["SCRATCH_DIR"]} <= set(in_image)
        assert container["image"].split(":")[0] == "rag-service"
        for port in container.get("ports", []):
            assert steps("EXPOSE") == [str(port["containerPort"])]
        if kind != "Deployment":
            assert "/service/documents" in mounts
            assert "/service/index_storage" in writable or folder == POSTGRES
            assert writable <= {"/tmp", "/service/index_storage"}
        else:
            assert "command" not in container
            assert "args" not in container
            assert writable == {"/tmp"}
    assert {data["DOCUMENTS_DIR"], data.get("INDEX_DIR", in_image[1])} == set(in_image)


def test_a_pod_can_drain_in_time() -> None:
    """preStop, the drain and the rest fit into the time until Kubernetes kills it."""
    manifests = build(BASE)
    spec = pod_of(BASE, "Deployment", "rag")
    drain_s = float(get(manifests, "ConfigMap", "rag-settings")["data"]["DRAIN_TIMEOUT_S"])
    program, seconds = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert spec["terminationGracePeriodSeconds"] >= int(seconds) + drain_s + CLOSING_S


@both
def test_a_rollout_never_reduces_the_ready_pods(folder: Path) -> None:
    manifests = build(folder)
    deployment = get(manifests, "Deployment", "rag")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in deployment
    assert get(manifests, "HorizontalPodAutoscaler", "rag")["spec"]["minReplicas"] >= 2
    probes = deployment["template"]["spec"]["containers"][0]
    paths = [probes[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
    assert paths == ["/health/live", "/health/live", "/health"]


@pytest.mark.parametrize("folder", [BASE, POSTGRES], ids=["base", "postgres"])
def test_the_cronjob_equals_the_job(folder: Path) -> None:
    assert pod_of(folder, "Job", "rag-reindex") == pod_of(folder, "CronJob", "rag-reindex")


def test_with_a_database_no_pod_mounts_the_index() -> None:
    manifests = build(POSTGRES)
    assert ("PersistentVolumeClaim", "rag-index") not in {key_of(each) for each in manifests}
    for kind, name in WORKLOADS:
        (container,) = pod_of(POSTGRES, kind, name)["containers"]
        assert [env["name"] for env in container["env"]] == ["DATABASE_URL"]
