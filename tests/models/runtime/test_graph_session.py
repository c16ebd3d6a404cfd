"""A GPU that fails: once more on the CPU, and there for good if it goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from cnerta.models.runtime.graph_session import GraphSession


class Runtime:
    """A stand-in: sessions on a GPU fail while ``gpu_fails``, all of them while ``input_fails``."""

    def __init__(self) -> None:
        self.gpu_fails = False
        self.input_fails = False
        self.opened: list[bool] = []
        self.runs: list[str] = []

    def open(self, use_gpu: bool) -> Any:
        self.opened.append(use_gpu)
        runtime, place = self, "CUDAExecutionProvider" if use_gpu else "CPUExecutionProvider"

        class Session:
            def get_providers(self) -> list[str]:
                return [place]

            def run(self, names: Any, feed: Any) -> list[str]:
                runtime.runs.append(place[:3])
                if runtime.input_fails or (use_gpu and runtime.gpu_fails):
                    raise RuntimeError("CUDA failure 999: unknown error")
                return [place]

        return Session()


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def graph(runtime: Runtime) -> GraphSession:
    return GraphSession("tagger.onnx", runtime.open, use_gpu=True)


def test_a_call_that_fails_on_the_gpu_is_made_on_the_cpu(
    runtime: Runtime, graph: GraphSession, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.gpu_fails = True
    with caplog.at_level(logging.ERROR):
        assert graph.run(None, {}) == ["CPUExecutionProvider"]
    assert "tagger.onnx failed on the GPU and was run on the CPU: CUDA failure 999" in caplog.text
    runtime.gpu_fails = False
    assert graph.run(None, {}) == ["CUDAExecutionProvider"], "one fault is none"
    assert (graph.faults, graph.get_providers()[0]) == (1, "CUDAExecutionProvider")


def test_a_gpu_that_is_lost_is_asked_no_more(
    runtime: Runtime, graph: GraphSession, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.gpu_fails = True
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert graph.run(None, {}) == ["CPUExecutionProvider"]
    assert runtime.runs == ["CUD", "CPU"] * 3 + ["CPU"] * 2
    assert runtime.opened == [True, False], "the CPU's session is opened once"
    assert graph.faults == 3
    assert graph.get_providers() == ["CPUExecutionProvider"]
    assert "the GPU is lost" in caplog.text
    graph.reopen()
    assert runtime.opened[-1] is False


def test_faults_that_do_not_follow_each_other_leave_it_on_the_gpu(
    runtime: Runtime, graph: GraphSession
) -> None:
    for number in range(12):
        runtime.gpu_fails = number % 3 < 2
        graph.run(None, {})
    assert graph.get_providers() == ["CUDAExecutionProvider"]


def test_what_fails_on_both_is_the_inputs_fault(runtime: Runtime, graph: GraphSession) -> None:
    runtime.input_fails = True
    for _ in range(5):
        with pytest.raises(RuntimeError, match="CUDA failure"):
            graph.run(None, {})
    assert (graph.faults, graph.get_providers()) == (0, ["CUDAExecutionProvider"])


def test_on_the_cpu_a_call_is_made_once(runtime: Runtime) -> None:
    graph = GraphSession("tagger.onnx", runtime.open, use_gpu=False)
    runtime.input_fails = True
    with pytest.raises(RuntimeError):
        graph.run(None, {})
    assert runtime.runs == ["CPU"]


def test_it_can_be_opened_anew(runtime: Runtime, graph: GraphSession) -> None:
    graph.reopen()
    assert runtime.opened == [True, True]
    assert graph.run(None, {}) == ["CUDAExecutionProvider"]
