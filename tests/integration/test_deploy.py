"""The KubeRay manifests and the image: read as Kubernetes would, and held to what docs/cluster.md promises of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.processes import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = ("access.yaml", "raycluster.yaml", "rayjob.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def cluster_spec(name: str) -> dict[str, Any]:
    (document,) = documents(name)
    spec: dict[str, Any] = document["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec", spec)
    return cluster


def pods(name: str) -> list[dict[str, Any]]:
    spec = cluster_spec(name)
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


clusters = pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])


def test_manifests__the_two_clusters_are_the_same() -> None:
    assert cluster_spec("rayjob.yaml") == cluster_spec("raycluster.yaml")
    kinds = [(document["apiVersion"], document["kind"]) for name in MANIFESTS for document in documents(name)]
    expected = ["ServiceAccount", "NetworkPolicy", "RayCluster", "RayJob"]
    assert [kind for _, kind in kinds] == expected
    assert [version for version, _ in kinds] == ["v1", "networking.k8s.io/v1", "ray.io/v1", "ray.io/v1"]


@clusters
def test_manifests__every_ray_is_of_the_pinned_version(name: str) -> None:
    pinned = re.search(r'"ray\[data,default\]>=([\d.]+),', (ROOT / "pyproject.toml").read_text())
    assert pinned is not None
    base = re.search(r"^FROM rayproject/ray:(\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert base[1] == f"{pinned[1]}.0-py311-gpu"
    assert cluster_spec(name)["rayVersion"] == f"{pinned[1]}.0"
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert launcher["docker"]["image"] == f"rayproject/ray:{base[1]}"
    assert len({container["image"] for pod in pods(name) for container in pod["containers"]}) == 1


@clusters
def test_manifests__tokens_are_required_and_the_dashboard_is_private(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["enableIngress"] is False
    assert "dashboard-host" not in spec["headGroupSpec"]["rayStartParams"]


def test_manifests__only_the_namespace_and_the_operator_reach_the_pods() -> None:
    policy = next(document for document in documents("access.yaml") if document["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    here, operator = rule["from"]
    assert here == {"podSelector": {}}
    assert operator["podSelector"]["matchLabels"]  # no whole namespace, let alone all of them


@clusters
def test_manifests__the_head_does_no_work_and_workers_are_spot_gpus_from_none(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert spec["enableInTreeAutoscaling"] is True
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"]) == (0, 0)
    assert group["maxReplicas"] > 1
    pod = group["template"]["spec"]
    assert pod["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}
    assert {toleration["key"] for toleration in pod["tolerations"]} == {"nvidia.com/gpu", "spot"}
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"]
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert {"name": "object-store", "mountPath": "/dev/shm"} in container["volumeMounts"]


@clusters
def test_manifests__nobody_is_root(name: str) -> None:
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (DEPLOY / "Dockerfile").read_text().rstrip().endswith("USER 1000")


def values(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a document with the names that lead to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from values(value, path)
    else:
        yield path, str(node)


def test_manifests__credentials_come_from_the_service_account_alone() -> None:
    account = next(document for document in documents("access.yaml") if document["kind"] == "ServiceAccount")
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    for name in ("raycluster.yaml", "rayjob.yaml"):
        assert {pod["serviceAccountName"] for pod in pods(name)} == {account["metadata"]["name"]}
    for name in MANIFESTS:
        for document in documents(name):
            for path, value in values(document):
                assert not re.search(r"\.(env|envFrom|secretName|hostNetwork|hostPath)\b", path), path
                assert not re.search(r"(?i)AKIA|secret|password|aws_|token=|[0-9a-f]{32}", value), value


def test_job__is_one_of_the_projects_and_goes_on_where_images_are_pending() -> None:
    (job,) = documents("rayjob.yaml")
    match = re.match(r"python -m jobs\.(\w+) ", job["spec"]["entrypoint"])
    assert match is not None
    assert (ROOT / "jobs" / f"{match[1]}.py").is_file()
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_image__takes_in_the_package_and_nothing_else() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[2:-1]}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)
    assert not [line for line in lines if re.match(r"(ENV|ARG) \w*(KEY|TOKEN|SECRET|PASSWORD)", line)]
    assert Path(ROOT / "pyproject.toml").name in copied
