"""The part of `kustomize build` that `deploy/kubernetes` uses; anything else is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KEYS = {"apiVersion", "kind", "resources", "images", "patches"}


def build(folder: Path) -> list[Manifest]:
    """Return all objects of a kustomization, with its patches and images applied."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) <= _KEYS, set(kustomization) - _KEYS
    found = [each for name in kustomization["resources"] for each in _load(folder / name)]
    for patch in kustomization.get("patches", []):
        found = _patched(found, patch, folder)
    for image in kustomization.get("images", []):
        for container in (each for manifest in found for each in containers(manifest)):
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def pod(manifest: Manifest) -> Manifest | None:
    """Return the specification of an object's pods, if it has any."""
    spec = manifest.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: Manifest | None = spec.get("template", {}).get("spec")
    return found


def containers(manifest: Manifest) -> list[Manifest]:
    return list((pod(manifest) or {}).get("containers", []))


def _load(path: Path) -> list[Manifest]:
    if path.is_dir():
        return build(path)
    # Copied by way of JSON: an anchor puts one object in two places, and a patch must change only one.
    return [json.loads(json.dumps(each)) for each in yaml.safe_load_all(path.read_text())]


def _patched(manifests: list[Manifest], patch: Manifest, folder: Path) -> list[Manifest]:
    text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
    content = yaml.safe_load(text)
    target = patch.get("target") or {"kind": content["kind"], "name": content["metadata"]["name"]}
    (wanted,) = (each for each in manifests if _matches(each, target))
    if isinstance(content, dict):
        assert content["$patch"] == "delete", "other strategic merges are not known"
        return [each for each in manifests if each is not wanted]
    for operation in content:
        _apply(wanted, **operation)
    return manifests


def _matches(manifest: Manifest, target: Manifest) -> bool:
    return bool(manifest["kind"] == target["kind"] and manifest["metadata"]["name"] == target["name"])


def _apply(manifest: Manifest, op: str, path: str, value: Any = None) -> None:
    """Apply an operation of RFC 6902."""
    *parents, last = path.strip("/").split("/")
    place: Any = manifest
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    key: Any = int(last) if isinstance(place, list) and last != "-" else last
    match op:
        case "test":
            assert place[key] == value, f"{path} is {place[key]!r}, not {value!r}"
        case "remove":
            del place[key]
        case "add" if isinstance(place, list):
            place.insert(len(place) if key == "-" else key, value)
        case "replace" | "add":
            assert op == "add" or key in place
            place[key] = value
        case _:
            raise AssertionError(f"{op} is not known")
