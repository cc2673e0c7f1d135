"""`device` of an entry: which there are, and what each engine makes of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from serving import serving

from app.engines.base import EngineRequest, Task
from app.engines.devices import check_name, count_cuda, here
from app.engines.llama_cpp.server import count_gpus
from app.engines.loader import EngineTable
from app.engines.torch import _choose_device
from app.errors import CatalogError, EngineError
from app.models.catalog import ModelSpec, read_catalog
from app.models.loading import ModelLoader
from app.models.sources import Sources

HAS_GPU = torch.cuda.is_available()
CLASS = """
class Told:
    def load(self, device: str) -> None:
        self.device = device

    def predict_one(self, item: str) -> str:
        return self.device
"""
TOLD = """
[[models]]
name = "told"
engine = "python"
source = "file:told.py:Told"
isolation = "thread"
"""


def request(device: str, *, is_own: bool = True, **given: Any) -> EngineRequest:
    fields = {"name": "x", "task": Task.CLASSIFICATION, "engine": "torch"} | given
    return EngineRequest(device=device, is_own_device=is_own, **fields)


def machine(gpus: int) -> Any:
    """Return what torch says of a machine with so many GPUs."""
    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus)
    )


@pytest.mark.parametrize(
    "device", ["tpu", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "", "cpu:0"]
)
def test_a_device_of_another_name_is_refused_with_those_that_there_are(device: str) -> None:
    with pytest.raises(EngineError) as refused:
        EngineTable().load(request(device))
    assert str(refused.value) == f'device: there is no "{device}"; there are {here(count_cuda())}'


def test_devices_are_named_with_their_numbers() -> None:
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:12"):
        check_name(device)
    assert here(0) == "auto, cpu"
    assert here(2) == "auto, cpu, cuda:0, cuda:1"


def test_torch_takes_the_gpu_of_that_number_if_it_has_so_many() -> None:
    devices = ("auto", "cpu", "cuda", "cuda:1")
    two = [_choose_device(machine(2), request(device)) for device in devices]
    assert two == ["cuda", "cpu", "cuda", "cuda:1"]
    with pytest.raises(EngineError) as refused:
        _choose_device(machine(1), request("cuda:1"))
    assert str(refused.value) == 'device = "cuda:1", but for torch there are auto, cpu, cuda:0'
    with pytest.raises(EngineError, match=r'^device = "cuda:1", but torch finds no CUDA device$'):
        _choose_device(machine(0), request("cuda:1"))
    with pytest.raises(EngineError, match=r"^DEVICE=cuda, but torch finds no CUDA device$"):
        _choose_device(machine(0), request("cuda", is_own=False))


@pytest.mark.parametrize("engine", ["openvino", "fake"])
def test_an_engine_without_a_gpu_says_so_to_an_entry_that_wants_one(engine: str) -> None:
    with pytest.raises(EngineError, match=rf"'{engine}' computes on the CPU alone; remove device"):
        EngineTable().load(request("cuda:0", engine=engine))
    assert EngineTable().load(request("cuda", engine="fake", is_own=False)), "a setting for others"


def test_a_remote_model_has_no_device(tmp_path: Path) -> None:
    entry = '[[models]]\nname = "x"\ntask = "chat"\nengine = "remote"\ndevice = "cpu"\n'
    (tmp_path / "models.toml").write_text(entry, encoding="utf-8")
    with pytest.raises(CatalogError, match="device has no meaning for the engine"):
        read_catalog(tmp_path / "models.toml")


def test_an_entry_overrules_the_setting(tmp_path: Path) -> None:
    def asked(**entry: Any) -> tuple[str, bool]:
        loader = ModelLoader(Sources(tmp_path), folder=tmp_path, device="cuda", threads=1)
        made, _ = loader.request(ModelSpec(name="x", engine="fake", **entry))
        return made.device, made.is_own_device

    assert asked() == ("cuda", False)
    assert asked(device="cpu") == ("cpu", True)
    assert asked(device="auto") == ("auto", True)


async def test_a_class_is_told_its_entrys_device_and_models_shows_it(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(CLASS, encoding="utf-8")
    async with serving(tmp_path, TOLD + 'device = "cpu"\n', device="cuda") as client:
        answer = await client.post("/predict/told", json="x")
        (model,) = (await client.get("/models")).json()["models"]
    assert answer.json() == "cpu"
    assert model["device"] == "cpu"


@pytest.mark.skipif(HAS_GPU, reason="this machine has a CUDA device")
async def test_a_class_whose_gpu_isnt_there_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(CLASS, encoding="utf-8")
    models = TOLD + 'device = "cuda:1"\nrequired = false\n'
    async with serving(tmp_path, models) as client:
        (model,) = (await client.get("/models")).json()["models"]
    assert (model["state"], model["detail"]) == (
        "failed",
        'device = "cuda:1": there are auto, cpu',
    )


def test_llama_cpps_gpus_are_counted_among_its_devices() -> None:
    kinds = ("GGML_BACKEND_DEVICE_TYPE_CPU", "GGML_BACKEND_DEVICE_TYPE_GPU")
    assert count_gpus([{"type": SimpleNamespace(name=kind)} for kind in kinds]) == 1
    assert count_gpus([]) == 0
