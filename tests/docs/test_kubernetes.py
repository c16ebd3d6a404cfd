"""The manifests are what Kubernetes takes, and say of the server what it has."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from typing import Any

import pytest
import yaml

from cnerta.streamer.commands.configuration import CONFIG_VARIABLE
from cnerta.streamer.commands.serve import serve
from cnerta.streamer.commands.settings import read_environment, read_file, settings_of
from cnerta.streamer.serving.pages import METRICS_PATH
from cnerta.streamer.serving.server import ServerOptions
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.wire.asyncapi import STREAM_PATH

from .test_deploy import DEPLOY, exposed, instructions, variables_of

kubernetes_validate = pytest.importorskip("kubernetes_validate")

FOLDER = DEPLOY / "kubernetes"
POOLS = {"cpu": "Dockerfile", "gpu": "Dockerfile.cuda"}
SETTINGS = settings_of(serve)
OLDEST, NEWEST = "1.30", "1.37"


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def the(name: str, kind: str) -> dict[str, Any]:
    (found,) = (each for each in manifests(name) if each["kind"] == kind)
    return found


def pod(pool: str) -> dict[str, Any]:
    spec: dict[str, Any] = the(pool, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(pool: str) -> dict[str, Any]:
    (found,) = pod(pool)["containers"]
    return dict(found)


def options(pool: str) -> dict[str, Any]:
    text: str = the(pool, "ConfigMap")["data"]["serve.toml"]
    return tomllib.loads(text)


@pytest.mark.parametrize(
    ("name", "version"), [*product(["namespace", "cpu", "gpu", "ingress"], [OLDEST, NEWEST])]
)
def test_kubernetes_takes_every_field(name: str, version: str) -> None:
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_does_not_exist_would_be_noticed() -> None:
    manifest = the("cpu", "Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"] = {"rest": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, OLDEST, strict=True)


def test_all_files_are_applied_or_named() -> None:
    text = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"- (\w+\.yaml)", text))
    others = {"kustomization.yaml", "adapter-rules.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == named | others
    images = {image["name"] for image in yaml.safe_load(text)["images"]}
    assert images == {container(pool)["image"] for pool in POOLS}


@pytest.mark.parametrize("pool", POOLS)
def test_options_are_those_of_the_server(pool: str, tmp_path: Any) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(the(pool, "ConfigMap")["data"]["serve.toml"], encoding="utf-8")
    read_file(file, SETTINGS)
    variables = {each["name"]: each["value"] for each in container(pool)["env"]}
    assert variables.pop(CONFIG_VARIABLE) == "/etc/cnerta/serve.toml"
    assert set(read_environment(variables, SETTINGS)) == {"token_file"}
    mounts = {each["mountPath"]: each["name"] for each in container(pool)["volumeMounts"]}
    volumes = {each["name"]: each for each in pod(pool)["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert mounts["/etc/cnerta/serve.toml"] == "options"
    assert volumes["options"]["configMap"]["name"] == the(pool, "ConfigMap")["metadata"]["name"]
    assert variables["CNERTA_TOKEN_FILE"].startswith("/etc/cnerta/tokens/")


@pytest.mark.parametrize(("pool", "dockerfile"), POOLS.items())
def test_ports_paths_and_user_are_those_of_the_image(pool: str, dockerfile: str) -> None:
    found = container(pool)
    ports = {each["name"]: each["containerPort"] for each in found["ports"]}
    image = variables_of(DEPLOY / dockerfile)
    metrics_port = int(image["CNERTA_METRICS_ADDRESS"].rpartition(":")[2])
    assert ports == {"stream": SETTINGS["port"].default, "metrics": metrics_port}
    for probe, path in (
        ("readiness", "/readyz"),
        ("liveness", "/healthz"),
        ("startup", "/healthz"),
    ):
        assert found[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}
    annotations = the(pool, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(metrics_port)
    assert METRICS_PATH == "/metrics", "where Prometheus looks unless it is told otherwise"
    (user,) = (what for name, what in instructions(DEPLOY / dockerfile) if name == "USER")
    context = pod(pool)["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    service = the(pool, "Service")["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["stream"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_stop_is_longer_than_the_longest_utterance(pool: str) -> None:
    said = options(pool)
    longest_s = SessionLimits().retained_ms / 1000
    assert said["grace_s"] >= longest_s
    assert said["drain_s"] / 2 >= said["grace_s"], "more than half of it is not waited for"
    stop_s = ServerOptions(drain_timeout_s=said["drain_s"]).stop_timeout_s
    before_s = container(pool)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(pool)["terminationGracePeriodSeconds"] > before_s + stop_s
    # The service has noticed by then.
    probe = container(pool)["readinessProbe"]
    assert before_s > probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("pool", POOLS)
def test_there_are_as_many_pods_as_streams_want(pool: str) -> None:
    scaler = the(pool, "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in exposed()
    (rule,) = manifests("adapter-rules")[0]["rules"]["custom"]
    assert re.match(rule["name"]["matches"], name)
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert set(re.findall(r"(\w+)!=", rule["seriesQuery"])) == set(rule["resources"]["overrides"])
    wanted = int(metric["pods"]["target"]["averageValue"])
    assert 0.5 < wanted / options(pool)["max_sessions"] < 0.9
    assert scaler["minReplicas"] < scaler["maxReplicas"]
    assert "replicas" not in the(pool, "Deployment")["spec"], "an update would undo the scaling"


@pytest.mark.parametrize("pool", POOLS)
def test_all_parts_mean_the_same_pods(pool: str) -> None:
    labels = the(pool, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        the(pool, "Deployment")["spec"]["selector"]["matchLabels"],
        the(pool, "Service")["spec"]["selector"],
        the(pool, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod(pool)["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selectors)
    target = the(pool, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == the(pool, "Deployment")["metadata"]["name"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_pod_may_do_nothing_beyond_serving(pool: str) -> None:
    context = container(pool)["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    spec = pod(pool)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    limits, requests = (container(pool)["resources"][key] for key in ("limits", "requests"))
    assert limits["memory"] == requests["memory"]
    assert (
        (pool == "gpu") == ("nvidia.com/gpu" in limits) == (options(pool).get("device") == "cuda")
    )


def test_the_way_in_leads_to_a_service_that_is_there() -> None:
    ingress = the("ingress", "Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert STREAM_PATH.startswith(path["path"])
    target = path["backend"]["service"]
    service = the("cpu", "Service")
    assert target["name"] == service["metadata"]["name"]
    assert target["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    defaults = ServerOptions()
    tunnel_s = float(ingress["metadata"]["annotations"]["haproxy.org/timeout-tunnel"].rstrip("s"))
    assert tunnel_s > defaults.ping_interval_s + defaults.ping_timeout_s
