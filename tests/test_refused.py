"""Conversions that fail are remembered until files, libraries or settings change."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from test_openvino import flip_last_bit, never, request_for, tiny

from app.engines.base import EngineRequest, OpenVinoOptions
from app.engines.loader import load_best, load_openvino
from app.engines.openvino.conversion import convert
from app.engines.openvino.converted import folder_of
from app.engines.openvino.failures import ConversionError, InterruptedConversionError
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
from app.engines.openvino.refused import file_of
from app.engines.torch import TorchClassifier
from app.errors import EngineError


class Broken(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Can't be traced."""

    def forward(self, **_inputs: Any) -> NoReturn:
        raise RuntimeError("an operation is\nnot known")


class Untraceable(TorchClassifier):
    """Scores, and can't be converted."""

    @property
    def module(self) -> Any:
        return Broken()


def untraceable(request: EngineRequest) -> Untraceable:
    real = load_reference(request)
    return Untraceable(real.encoder, torch=torch, model=real.module, device="cpu")


fails = partial(prepare, load_reference=untraceable)


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    return request_for(tiny(tmp_path / "model"), tmp_path / "cache")


def refuse(request: EngineRequest, prepare: Callable[[EngineRequest], None] = fails) -> str:
    with pytest.raises(ConversionError) as refused:
        load(request, prepare=prepare)
    return str(refused.value)


def test_a_conversion_that_failed_isn_t_tried_again_and_the_reason_says_where_to_delete(
    request_: EngineRequest,
) -> None:
    first = refuse(request_)
    assert "not known" in first
    again = refuse(request_, never)
    assert "not known" in again
    assert f"delete {file_of(request_)} to try" in again
    assert "\n" not in again
    file_of(request_).unlink()
    load(request_, prepare=partial(prepare, load_reference=load_reference))


def test_auto_goes_to_torch_at_once_and_the_log_says_why_and_where_to_delete(
    request_: EngineRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(request_)
    # What would start a process fails loudly.
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with caplog.at_level(logging.WARNING):
        assert load_best(request_, has_gpu=lambda: False).kind == "torch"
    (line,) = caplog.records
    assert line.message == "engine_fallback"
    assert "not known" in vars(line)["reason"]
    assert str(file_of(request_)) in vars(line)["reason"]


def test_openvino_by_name_is_refused_at_once_too(request_: EngineRequest) -> None:
    refuse(request_)
    with pytest.raises(EngineError, match=r"not known.*to try"):
        load_openvino(request_, load=partial(load, prepare=never))


def other_file(request: EngineRequest) -> EngineRequest:
    assert request.folder is not None
    flip_last_bit(request.folder / "model.safetensors")
    return request


def other_cores(request: EngineRequest) -> EngineRequest:
    assert request.openvino is not None
    options = OpenVinoOptions(cache=request.openvino.cache, cores=1, calls=2)
    return replace(request, openvino=options)


def other_window(request: EngineRequest) -> EngineRequest:
    return replace(request, max_tokens=16)


@pytest.mark.parametrize("change", [other_file, other_cores, other_window])
def test_whatever_changes_lets_it_be_tried_again(
    request_: EngineRequest, change: Callable[[EngineRequest], EngineRequest]
) -> None:
    refuse(request_)
    changed = change(request_)
    load(changed, prepare=partial(prepare, load_reference=load_reference))
    assert not file_of(changed).exists()


def test_another_version_of_a_library_lets_it_be_tried_again(
    request_: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(request_)
    monkeypatch.setattr("importlib.metadata.version", lambda library: "99.0")
    with pytest.raises(AssertionError, match="nothing to prepare"):
        load(request_, prepare=never)


def test_what_may_be_over_by_the_next_start_is_not_remembered(request_: EngineRequest) -> None:
    def full(_request: EngineRequest) -> NoReturn:
        raise InterruptedConversionError("no space left on device")

    assert refuse(request_, full) == "no space left on device"
    assert not file_of(request_).exists()
    with pytest.raises(AssertionError, match="nothing to prepare"):
        load(request_, prepare=never)


def test_a_folder_that_can_t_be_written_is_no_lasting_failure(request_: EngineRequest) -> None:
    folder = folder_of(request_)
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("in the way")
    with pytest.raises(InterruptedConversionError):
        convert(load_reference(request_), folder)


def test_a_conversion_leaves_the_log_as_loud_as_it_was(request_: EngineRequest) -> None:
    before = logging.getLogger().level
    load(request_, prepare=partial(prepare, load_reference=load_reference))
    assert logging.getLogger().level == before


def test_a_note_that_can_t_be_read_counts_as_none(request_: EngineRequest) -> None:
    refuse(request_)
    file_of(request_).write_text("{")
    with pytest.raises(AssertionError, match="nothing to prepare"):
        load(request_, prepare=never)
