"""Image models on torch and OpenVINO: as transformers answers, or refused in a line."""

import builtins
import json
import shutil
import threading
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pictures import pictures, png
from PIL import Image
from tiny import edit
from tiny_images import LABELS, pipeline_rows, request_for, write

from app.doctor.trial import _would_convert
from app.engines.base import EmbeddingOptions, EngineRequest, FloatArray, ImageOptions, Task
from app.engines.images.conversion import convert, find, load, load_reference, prepare
from app.engines.images.items import ImageItem
from app.engines.images.on_openvino import _pieces
from app.engines.images.on_torch import load as load_torch
from app.engines.loader import load_engine, load_openvino
from app.engines.openvino.agreement import Verdict, write_verdict
from app.engines.openvino.converted import folder_of, options_of
from app.engines.openvino.failures import ConversionError
from app.engines.openvino.processor import Processor
from app.errors import EngineError, ImageTooLargeError, ImageUnreadableError, UnsafeModelError

FILES = [pictures()[name] for name in ("JPEG", "JPEG, EXIF 6", "PNG, RGBA", "GIF", "very wide")]
load_here = partial(load, prepare=prepare)


def rows_of(engine: Any, files: list[bytes] = FILES) -> FloatArray:
    """Return the rows of images in one call."""
    return np.stack(engine.run(engine.encode([ImageItem(file) for file in files])))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vit") / "model")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("resnet") / "model", "ResNet")


def test_images_in_one_call_are_answered_as_alone(vit: Path) -> None:
    engine = load_torch(request_for(vit))
    together = rows_of(engine)
    alone = np.concatenate([rows_of(engine, [file]) for file in FILES])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - pipeline_rows(vit, FILES)).max() < 1e-5


def test_openvino_answers_as_torch_and_is_converted_once(resnet: Path, tmp_path: Path) -> None:
    request = request_for(resnet, engine="openvino")
    engine = load_here(request)
    assert (engine.kind, engine.device, engine.labels) == ("openvino", "cpu", LABELS)
    assert np.abs(rows_of(engine) - pipeline_rows(resnet, FILES)).max() < 2e-2
    found = find(folder_of(request), Processor(options_of(request)))
    assert found is not None
    assert found.verdict.agrees
    assert found.verdict.figures.keys() == {
        "labels_equal",
        "score_difference_max",
        "batch_difference_max",
    }

    def never(_: EngineRequest) -> None:
        raise AssertionError("there was nothing to prepare")

    assert load(request, prepare=never).kind == "openvino"
    assert not _would_convert(request)
    (folder_of(request) / "model.json").write_text("{}")
    assert find(folder_of(request), Processor(options_of(request))) is None
    shutil.rmtree(folder_of(request))


def test_a_child_process_converts(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    steps: list[int] = []
    request = request_for(folder, engine="auto", on_step=lambda step: steps.append(step.number))
    engine = load_engine(request)
    assert engine.kind == "openvino"
    assert steps == [1, 2, 3, 4]


def test_what_differs_from_torch_is_served_by_torch(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    request = request_for(folder, engine="openvino")
    convert(load_reference(request), folder_of(request))
    prepare(request)
    (verdict,) = folder_of(request).glob("verdict-*.json")
    write_verdict(verdict, Verdict(agrees=False, figures={"labels_equal": 0.5}))
    assert load_openvino(request, load=load_here).kind == "torch"


def test_calls_have_few_numbers_of_images() -> None:
    for count in range(1, 40):
        pieces = list(_pieces(count))
        assert [number for start, end in pieces for number in range(start, end)] == list(
            range(count)
        )
        assert {end - start for start, end in pieces} <= {8, 4, 2, 1}


def test_several_threads_may_call_at_once(vit: Path) -> None:
    engine = load_torch(request_for(vit))
    expected, found = rows_of(engine), []
    threads = [threading.Thread(target=lambda: found.append(rows_of(engine))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert all(np.abs(rows - expected).max() < 1e-6 for rows in found)


def test_an_image_costs_the_memory_that_it_takes(vit: Path) -> None:
    engine = load_torch(request_for(vit, images=ImageOptions(workers=3)))
    (pixels,) = engine.encode([ImageItem(png())])
    assert not isinstance(pixels, Exception)
    assert pixels.cost == 3 * 32 * 32 * 4 // 1024
    assert engine.estimate([ImageItem(b"")] * 5) == 5 * pixels.cost
    assert engine.workers == 3
    assert engine.threads._max_workers == 3  # type: ignore[attr-defined]  # a ThreadPoolExecutor


def test_what_would_grow_when_it_is_scaled_is_refused_by_its_size(resnet: Path) -> None:
    engine = load_torch(request_for(resnet, images=ImageOptions(max_pixels=40_000)))
    fits, long = engine.encode([ImageItem(png((100, 5))), ImageItem(png((500, 2)))])
    assert not isinstance(fits, Exception)
    assert isinstance(long, ImageTooLargeError)
    assert "too long and narrow" in long.detail


def test_what_the_processor_fails_on_is_unreadable(vit: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    engine = load_torch(request_for(folder))

    def fail(**_: Any) -> Any:
        raise ValueError("mean must have 1 elements")

    engine.preparation._processor = fail
    (error,) = engine.encode([ImageItem(png((9, 7)))])
    assert isinstance(error, ImageUnreadableError)
    assert error.detail.endswith("can't do an image of 9 times 7 pixels.")


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_scores_are_what_the_configuration_says(tmp_path: Path, problem: str) -> None:
    folder = write(tmp_path / "model", problem_type=problem)
    engine = load_torch(request_for(folder))
    assert np.abs(rows_of(engine) - pipeline_rows(folder, FILES)).max() < 1e-4


def test_labels_of_the_catalogue_name_the_head_s(vit: Path, tmp_path: Path) -> None:
    engine = load_torch(request_for(vit, labels=("a", "b", "c")))
    assert engine.labels == ("a", "b", "c")
    with pytest.raises(EngineError, match="don't fit the shape of"):
        load_torch(request_for(vit, labels=("a", "b")))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's
def test_an_adapter_is_merged(vit: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model  # takes seconds

    model = transformers.AutoModelForImageClassification.from_pretrained(vit)
    config = LoraConfig(
        r=2,
        target_modules=r".*(q_proj|query)",
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    torch.manual_seed(3)
    adapted = get_peft_model(model, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    engine = load_torch(request_for(vit, adapter=tmp_path / "adapter"))
    (pixels,) = engine.encode([ImageItem(FILES[0])])
    assert not isinstance(pixels, Exception)
    with torch.inference_mode():
        logits = adapted(pixel_values=torch.from_numpy(pixels.values[None])).logits
    assert np.abs(engine.run([pixels])[0] - logits.softmax(-1)[0].numpy()).max() < 1e-5


def test_without_pillow_the_line_says_how_to_get_it(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **fields: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **fields)

    monkeypatch.setattr(builtins, "__import__", without)
    for load_one in (load_torch, load_engine):
        with pytest.raises(EngineError, match=r"pip install 'ml-api\[images\]'"):
            load_one(request_for(vit))


def break_folder(folder: Path, how: str) -> None:
    """Make a folder that can't be served."""
    if how == "no processor":
        (folder / "preprocessor_config.json").unlink()
    elif how == "a processor of its own":
        edit(
            folder / "preprocessor_config.json",
            image_processor_type="MyImageProcessor",
            auto_map={"AutoImageProcessor": "mine.MyImageProcessor"},
        )
    elif how == "a processor that isn't JSON":
        (folder / "preprocessor_config.json").write_text("{")
    elif how == "several sizes":
        edit(
            folder / "preprocessor_config.json",
            image_processor_type="CLIPImageProcessor",
            size={"shortest_edge": 32},
            do_center_crop=False,
        )
    elif how == "another size":
        edit(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    elif how == "another task":
        edit(folder / "config.json", architectures=["ViTForMaskedImageModeling"])
    elif how == "code of its own":
        edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    else:
        (folder / "model.safetensors").write_bytes(b"no weights")


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("no processor", "its image processor can't be loaded"),
        ("a processor of its own", "its image processor can't be loaded"),
        ("a processor that isn't JSON", "its image processor can't be loaded"),
        ("several sizes", "makes images of different sizes"),
        ("another size", "torch can't load this model: ValueError: Input image size"),
        ("another task", "architectures says ViTForMaskedImageModeling, which doesn't classify"),
        ("code of its own", "needs code of its own"),
        ("damaged", "torch can't load this model"),
    ],
)
def test_a_folder_that_cant_be_served_is_refused_in_one_line(
    vit: Path, tmp_path: Path, how: str, line: str
) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    break_folder(folder, how)
    with pytest.raises((EngineError, UnsafeModelError)) as refused:
        load_torch(request_for(folder))
    assert line in str(refused.value)
    assert "\n" not in refused.value.line


def test_a_model_that_cant_be_converted_is_remembered_and_served_by_torch(
    vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(vit, tmp_path / "model"))
    request = request_for(folder, engine="openvino")
    tries: list[str] = []

    def fail(_: EngineRequest) -> None:
        tries.append("one")
        raise ConversionError("no such operation")

    for _ in range(2):
        with pytest.raises(ConversionError, match="no such operation"):
            load(request, prepare=fail)
    assert tries == ["one"]


def embedding(folder: Path, *pooling: str, **fields: Any) -> EngineRequest:
    options = EmbeddingOptions(pooling=pooling, **fields)
    return request_for(folder, task=Task.IMAGE_EMBEDDING, embedding=options)


def expected_vectors(folder: Path, take: Any) -> FloatArray:
    """Return what transformers' own model gives, image by image, scaled to length 1."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    rows = []
    for file in FILES:
        image = transformers.image_utils.load_image(Image.open(BytesIO(file)))
        with torch.inference_mode():
            rows.append(take(model, **processor(images=image, return_tensors="pt"))[0].flatten())
    vectors = torch.stack(rows)
    return np.asarray((vectors / vectors.norm(dim=1, keepdim=True)).numpy(), dtype=np.float32)


VECTORS: list[tuple[str, tuple[str, ...], Any]] = [
    ("ViT", (), lambda model, **inputs: model(**inputs).pooler_output),
    ("ViT", ("cls",), lambda model, **inputs: model(**inputs).last_hidden_state[:, 0]),
    ("ViT", ("mean",), lambda model, **inputs: model(**inputs).last_hidden_state.mean(1)),
    ("Dinov2", (), lambda model, **inputs: model(**inputs).pooler_output),
    ("ResNet", (), lambda model, **inputs: model(**inputs).pooler_output),
    ("CLIP", (), lambda model, **inputs: model.get_image_features(**inputs).pooler_output),
    ("Siglip", (), lambda model, **inputs: model.get_image_features(**inputs).pooler_output),
]


@pytest.mark.parametrize(("name", "pooling", "take"), VECTORS)
def test_vectors_are_those_of_transformers_on_both_engines(
    tmp_path: Path, name: str, pooling: tuple[str, ...], take: Any
) -> None:
    folder = write(tmp_path / "model", name, ending="Model")
    expected = expected_vectors(folder, take)
    request = embedding(folder, *pooling)
    assert np.abs(rows_of(load_torch(request)) - expected).max() < 1e-5
    converted = load_here(replace(request, engine="openvino"))
    assert converted.head.dimensions == expected.shape[1]
    rows = rows_of(converted)
    assert (rows * expected).sum(axis=1).min() > 0.999


def test_vectors_keep_their_length_where_the_entry_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", ending="Model")
    long = rows_of(load_torch(embedding(folder, "cls", normalize=False)))
    unit = rows_of(load_torch(embedding(folder, "cls")))
    lengths = np.linalg.norm(long, axis=1, keepdims=True)
    assert not np.allclose(lengths, 1)
    assert np.abs(long / lengths - unit).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "pooling", "line"),
    [
        ("ViT", ("max",), 'pooling max is not done of images; "cls" and "mean" are'),
        ("ViTMSN", (), 'no pooled output; say pooling = "cls" or "mean"'),
        ("ResNet", ("mean",), "no tokens to pool"),
    ],
)
def test_a_vector_that_a_model_doesnt_have_is_refused(
    tmp_path: Path, name: str, pooling: tuple[str, ...], line: str
) -> None:
    folder = write(tmp_path / "model", name, ending="Model")
    with pytest.raises(EngineError, match=line):
        load_torch(embedding(folder, *pooling))


def test_a_pooler_without_weights_is_refused_and_not_needed_with_a_pooling(vit: Path) -> None:
    with pytest.raises(EngineError, match=r'pooler.*say pooling = "cls" or "mean"'):
        load_torch(embedding(vit))  # a classifier's folder
    assert load_torch(embedding(vit, "cls")).head.dimensions == 32


def test_a_model_that_leaves_out_random_parts_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    fields: dict[str, Any] = {"image_size": 32, "patch_size": 8, "hidden_size": 32}
    fields |= {"num_hidden_layers": 1}
    fields |= {"num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.5}
    torch.manual_seed(1)
    transformers.ViTMAEModel(transformers.ViTMAEConfig(**fields)).save_pretrained(folder)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(EngineError, match="answers to one image vary"):
        load_torch(embedding(folder, "cls"))
