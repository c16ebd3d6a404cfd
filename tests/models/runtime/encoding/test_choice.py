"""Where caches are kept, and that a server says so."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from cnerta.models.runtime.bundle import find_bundle, load_bundle
from cnerta.models.runtime.encoding.choice import choose_encoder
from cnerta.models.runtime.encoding.device import DeviceEncoder
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.inference import Model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

BUNDLE = load_bundle(find_bundle(None))


def test_on_the_cpu_caches_are_values_unless_asked_otherwise() -> None:
    assert isinstance(choose_encoder(BUNDLE, None, "cpu"), HostEncoder)
    asked = choose_encoder(BUNDLE, None, "cpu", resident_streams=3)
    assert isinstance(asked, DeviceEncoder)
    assert asked.slots is not None
    assert asked.slots.capacity == 3


def test_where_a_table_would_not_be_safe_there_is_none() -> None:
    shallow = replace(BUNDLE, geometry=replace(BUNDLE.geometry, layers=1))
    assert isinstance(choose_encoder(shallow, None, "cpu", resident_streams=3), HostEncoder)
    assert isinstance(choose_encoder(BUNDLE, None, "tensorrt", resident_streams=3), HostEncoder)
    whole = replace(BUNDLE, geometry=replace(BUNDLE.geometry, streaming=False))
    assert choose_encoder(whole, None, "cpu", resident_streams=3) is None


def test_a_device_without_room_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", refuse)
    encoder = choose_encoder(BUNDLE, None, "cpu", resident_streams=3)
    assert isinstance(encoder, HostEncoder)
    assert "do not fit on the device: CUDA failure 2: out of memory" in caplog.text


def test_loading_says_what_runs_it_and_where_caches_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = Model.load(BUNDLE.path, device="cpu", resident_streams=3)
    assert "graphs run on the CPU: as asked for" in caplog.text
    assert "caches of up to 3 streams stay on the device: 2 MB" in caplog.text
    assert model.device_faults == 0
    # The golden answers were checked with them.
    assert isinstance(model._encoder, DeviceEncoder)
