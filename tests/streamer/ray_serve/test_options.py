"""What options and files become, as far as that can be seen without Ray."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cnerta.models.errors import ConfigError
from cnerta.streamer.commands import serve_ray
from cnerta.streamer.commands.serve import app, serve
from cnerta.streamer.commands.settings import read_table, settings_of
from cnerta.streamer.ray_serve.application import RayOptions, Replicas
from cnerta.streamer.ray_serve.cluster import Cluster
from cnerta.streamer.serving.server import ServerOptions

FILE = Path(__file__).parents[3] / "docs" / "deploy" / "ray" / "serve.yaml"
HAS_RAY = importlib.util.find_spec("ray") is not None


def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def application() -> dict[str, Any]:
    (one,) = config()["applications"]
    return dict(one)


# --- how many -------------------------------------------------------------------------------------


def test_a_number_of_replicas_or_a_range() -> None:
    assert Replicas.parse("3") == Replicas(3, 3)
    assert Replicas.parse("1:8") == Replicas(1, 8)
    assert str(Replicas(1, 8)) == "1 to 8"


@pytest.mark.parametrize("text", ["", "0", "0:2", "3:2", "two", "1:2:3", "-1", "1:", "٣", "10001"])
def test_what_is_no_number_of_replicas(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected N or MIN:MAX replicas, at least 1, got"):
        Replicas.parse(text)


def test_a_connection_is_an_ongoing_request() -> None:
    options = RayOptions(Replicas(1, 4), 64, 128, stop_timeout_s=32, cpus=2, gpus=1).deployment()
    assert options["max_ongoing_requests"] == 128
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 4)
    assert scaling["target_ongoing_requests"] == 64
    assert "num_replicas" not in options
    assert options["ray_actor_options"] == {"num_cpus": 2, "num_gpus": 1}
    # A replica has done before Ray ends it.
    assert options["graceful_shutdown_timeout_s"] > 32


def test_a_fixed_number_is_not_scaled() -> None:
    options = RayOptions(Replicas(2, 2), 64, 32, stop_timeout_s=10).deployment()
    assert options["num_replicas"] == 2
    assert "autoscaling_config" not in options


def test_no_more_are_wanted_than_are_taken() -> None:
    options = RayOptions(Replicas(1, 2), 64, 32, stop_timeout_s=10).deployment()
    assert options["autoscaling_config"]["target_ongoing_requests"] == 32


# --- a replica's options --------------------------------------------------------------------------


def test_a_replica_has_the_server_that_the_command_would_have(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-sixteen-or-more\n", encoding="utf-8")
    plan = serve_ray._plan_of(
        {
            "host": "0.0.0.0",
            "token_file": str(tokens),
            "max_sessions": 7,
            "drain_s": 3.5,
            "origin": ["https://one.example", "https://two.example"],
            "insecure": False,
        }
    )
    assert plan.host == "0.0.0.0"
    assert plan.options.max_sessions == 7
    assert plan.options.drain_timeout_s == 3.5
    assert plan.options.origins == ("https://one.example", "https://two.example")
    assert plan.options.tokens


def test_a_replica_wants_a_token_where_others_reach_it() -> None:
    with pytest.raises(ConfigError, match=r"expected --token-file, CNERTA_TOKEN or --insecure"):
        serve_ray._plan_of({"host": "0.0.0.0"})


def test_a_replica_opens_its_server(monkeypatch: pytest.MonkeyPatch, kit: SimpleNamespace) -> None:
    monkeypatch.setattr(serve_ray.WorkerPlan, "load", lambda self: kit.FakeModel())
    with serve_ray.open_server({"max_sessions": 3}) as hosted:
        assert hosted.host == "127.0.0.1"
        hosted.read_anew()


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed here")
def test_without_ray_the_command_says_what_to_install() -> None:
    result = CliRunner().invoke(app, ["--ray"])
    assert result.exit_code == 2
    said = " ".join(result.output.replace("│", " ").split())
    assert "expected the extra ray for --ray, got none: pip install 'cnerta-stream[ray]'" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2"], "expected --ray-replicas with --ray, got --workers"),
        (["--metrics-address", "127.0.0.1:9100"], "expected Ray to give metrics"),
        (["--port", "0"], "expected --port of its own with --ray, got 0"),
        (["--ray-replicas", "3:1"], "expected N or MIN:MAX replicas"),
    ],
)
def test_what_does_not_go_with_ray(
    monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setattr(serve_ray, "is_installed", lambda: True)
    result = CliRunner().invoke(app, ["--ray", *options])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_replicas_that_others_reach_want_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ray, "is_installed", lambda: True)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    result = CliRunner().invoke(app, ["--ray"])
    assert result.exit_code == 2
    assert "expected --token-file or --insecure" in " ".join(result.output.split())


def test_what_replicas_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    def run_on(cluster: Cluster, make: Any, options: RayOptions) -> None:
        told.update(cluster=cluster, options=options, application=make())

    monkeypatch.setattr(serve_ray, "is_installed", lambda: True)
    monkeypatch.setattr(serve_ray, "run_on", run_on)
    monkeypatch.setattr(serve_ray, "make_application", lambda *arguments: arguments)
    monkeypatch.chdir(tmp_path)
    Path("tokens").write_text("a-token-of-sixteen-or-more\n", encoding="utf-8")
    monkeypatch.setenv("CNERTA_MAX_SESSIONS", "9")
    command = ["--ray", "--ray-replicas", "1:3", "--ray-streams", "5", "--port", "8800"]
    command += ["--token-file", "tokens", "--bundle", "accurate", "--threads", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert told["cluster"] == Cluster(None, "127.0.0.1", 8800)
    opener, given, options = told["application"]
    assert opener is serve_ray.open_server
    # From the environment, too; and files by where they lie, whatever folder a replica runs in.
    assert given == {
        "bundle": "accurate",
        "max_sessions": 9,
        "threads": 2,
        "token_file": str(tmp_path / "tokens"),
    }
    assert options == told["options"]
    assert options.replicas == Replicas(1, 3)
    assert (options.target_streams, options.most_streams, options.cpus) == (5, 9, 2)


# --- the file of a cluster ------------------------------------------------------------------------


def test_the_file_has_options_of_the_command() -> None:
    args = application()["args"]
    assert set(read_table(args, settings_of(serve), "args")) == set(args)
    assert application()["import_path"] == f"{serve_ray.__name__}:{serve_ray.build.__name__}"


def test_a_file_with_another_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"args: expected a key .* got max_session: is max_se"):
        serve_ray.build({"max_session": 3})
    with pytest.raises(ConfigError, match=r"args: max_sessions: expected a whole number"):
        serve_ray.build({"max_sessions": "many"})


def test_what_a_file_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ray, "make_application", lambda *arguments: arguments)
    _, given, options = serve_ray.build(application()["args"])
    assert given == {
        # Others than this machine come: without a token no replica would start.
        "host": "0.0.0.0",
        "max_sessions": 64,
        "token_file": "/etc/cnerta/tokens.toml",
        "session_token_secret_file": "/etc/cnerta/session-token-secret",
    }
    assert options.replicas == Replicas(2, 20)
    assert options.stop_timeout_s == ServerOptions().stop_timeout_s
    assert options.gpus == 0


def test_a_gpu_is_asked_for_where_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_ray, "make_application", lambda *arguments: arguments)
    assert serve_ray.build({"device": "cuda"})[2].gpus == 1


def test_ray_takes_the_file() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="make test-integrations installs ray")
    read = schema.ServeDeploySchema.model_validate(config())
    (one,) = read.applications
    assert [each.name for each in one.deployments] == ["streams"]
    broken = config()
    broken["applications"][0]["deployments"][0]["user_config"] = 2
    with pytest.raises(ValueError, match="user_config"):
        schema.ServeDeploySchema.model_validate(broken)
