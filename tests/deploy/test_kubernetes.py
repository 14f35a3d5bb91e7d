"""The manifests are valid, complete, hardened, and agree with each other."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
MANIFESTS = sorted(set(FOLDER.rglob("*.yaml")) - set(KUSTOMIZATIONS))
OLDEST, NEWEST = "1.28", kubernetes_validate.latest_version()

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document]


def everything() -> Iterator[tuple[Path, Document]]:
    for path in MANIFESTS:
        for document in documents(path.read_text()):
            yield path, document


def label(value: object) -> str | None:
    """A test id for a document and for the path it comes from."""
    match value:
        case {"kind": str(kind), "metadata": {"name": str(name)}}:
            return f"{kind}-{name}"
        case Path():
            return str(value.relative_to(FOLDER))
        case _:
            return None


def pods(kind: str) -> list[Document]:
    return [document for _, document in everything() if document["kind"] == kind]


def one(kind: str, name: str) -> Document:
    (found,) = [document for document in pods(kind) if document["metadata"]["name"] == name]
    return found


def check(document: Document, version: str) -> None:
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        pytest.fail(f"{label(document)} at {where}: {error.message}")


DAEMONS = pods("Deployment")
WORKLOADS = DAEMONS + pods("StatefulSet")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("path", "document"), list(everything()), ids=label)
def test_every_document_is_what_kubernetes_expects(
    path: Path, document: Document, version: str
) -> None:
    check(document, version)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=label)
def test_a_kustomization_lists_what_is_there_and_all_of_it(path: Path) -> None:
    (kustomization,) = documents(path.read_text())
    assert kustomization["kind"] in ("Kustomization", "Component")
    listed = {
        (path.parent / entry).resolve()
        for entry in kustomization["resources"] + kustomization.get("components", [])
    }
    for entry in listed:
        assert entry.is_file() or (entry / "kustomization.yaml").is_file(), f"no {entry}"
    assert {file for file in MANIFESTS if file.parent == path.parent} <= listed


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", ["base", "overlays/try"])
def test_kustomize_renders_it_to_something_valid(folder: str) -> None:
    rendered = subprocess.run(
        ["kubectl", "kustomize", FOLDER / folder], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    for document in documents(rendered.stdout):
        check(document, NEWEST)


@pytest.mark.parametrize("workload", WORKLOADS, ids=label)
def test_nothing_runs_as_root_or_writes_to_its_image(workload: Document) -> None:
    pod = workload["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=label)
def test_a_service_cannot_set_variables_that_look_like_ours(workload: Document) -> None:
    assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("daemon", DAEMONS, ids=label)
def test_a_daemon_is_probed_where_it_serves_its_health(daemon: Document) -> None:
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    flags = container["args"]
    assert flags[flags.index("--health") + 1] == "0.0.0.0:8081"
    assert container["ports"] == [{"name": "health", "containerPort": 8081}]
    for probe, path in (("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": "health"}


@pytest.mark.parametrize("daemon", DAEMONS, ids=label)
def test_a_daemon_takes_its_redis_from_the_secret_and_the_rest_from_config_maps(
    daemon: Document,
) -> None:
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {
            "name": "RESOLUTE_REDIS",
            "valueFrom": {"secretKeyRef": {"name": "resolute-redis", "key": "url"}},
        }
    ]
    for source in container["envFrom"]:
        assert one("ConfigMap", source["configMapRef"]["name"])


def test_the_valkey_to_try_brings_that_secret_and_keeps_what_it_is_told() -> None:
    service = one("Service", "resolute-valkey")
    url = one("Secret", "resolute-redis")["stringData"]["url"]
    assert url == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
    server = one("StatefulSet", "resolute-valkey")
    flags = server["spec"]["template"]["spec"]["containers"][0]["args"]
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--dir"] == "/data"
    assert server["spec"]["volumeClaimTemplates"]


def test_a_worker_is_killed_later_than_its_grace_ends() -> None:
    grace = one("ConfigMap", "resolute-worker")["data"]["RESOLUTE_GRACE"]
    assert grace.endswith("s")
    pod = one("Deployment", "resolute-worker-enrichment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= int(grace.removesuffix("s")) + 15


@pytest.mark.parametrize("workload", WORKLOADS, ids=label)
def test_selectors_find_their_pods(workload: Document) -> None:
    pod_labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == pod_labels
    for constraint in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
        assert constraint["labelSelector"]["matchLabels"] == pod_labels


@pytest.mark.parametrize("daemon", DAEMONS, ids=label)
def test_a_drained_machine_takes_one_pod_at_a_time(daemon: Document) -> None:
    budget = one("PodDisruptionBudget", daemon["metadata"]["name"])
    assert budget["spec"]["selector"] == daemon["spec"]["selector"]
    assert budget["spec"]["maxUnavailable"] == 1 < daemon["spec"]["replicas"]
