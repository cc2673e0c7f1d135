"""Loading one model: tiny real ones on torch, fakes, and everything that is refused."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app.engines.base import Classifier, Embedder, Encoded, EngineRequest, FloatArray, Task
from app.engines.chat import LocalChat
from app.engines.chat_base import ChatEngine, Generation, GenerationOptions, Message, OnToken
from app.engines.torch import _choose_dtype
from app.engines.vector_rules import VectorRules
from app.errors import (
    EngineError,
    InferenceFailedError,
    SourceError,
    StartupError,
    UnsafeModelError,
)
from app.models.catalog import Limits, ModelSpec
from app.models.loading import Loaded, ModelLoader, warm
from app.models.sources import Sources

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] a an and but film good bad great poor very not of the
    i it is was they had to see watch plot cast story dull fine warm cold long short up engine
    so that has met more than one length text longer ##er ##ly ##s , .""".split()  # noqa: SIM905  # sixty strings in quotes read worse
WINDOW = 32
LABELS = {0: "COLD", 1: "MILD", 2: "WARM"}
TEXTS = ("good film", "the plot was dull and the cast was poor, but the story is warm.", "")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a classifier, an embedder and an adapter of 32 dimensions; copy before a change."""
    folder = tmp_path_factory.mktemp("shelf")
    torch.manual_seed(0)
    classifier = transformers.BertForSequenceClassification(tiny_config(id2label=LABELS))
    spread(classifier)
    classifier.save_pretrained(folder / "classifier")
    embedder = transformers.BertModel(tiny_config())
    embedder.save_pretrained(folder / "embedder")
    tiny_tokenizer().save(str(folder / "classifier" / "tokenizer.json"))
    tiny_tokenizer().save(str(folder / "embedder" / "tokenizer.json"))
    make_adapter(folder / "embedder", folder / "adapter")
    return folder


def tiny_config(**fields: Any) -> Any:
    return transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        **fields,
    )


def spread(model: Any) -> None:
    """Enlarge the weights, which are so small when new that every text scores the same."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(5)


def tiny_tokenizer() -> Tokenizer:
    ids = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@contextmanager
def old_names() -> Iterator[None]:
    """Let PEFT ask for a name that transformers deprecates, as the engine does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def make_adapter(base: Path, folder: Path) -> None:
    """Save a LoRA of the embedder that brings a classification head of two labels."""
    named = {0: "NO", 1: "YES"}
    import peft  # takes seconds

    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, id2label=named)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False
    )
    with old_names():
        adapted = peft.get_peft_model(model, config)
    spread(adapted.base_model.model.classifier)
    adapted.save_pretrained(folder)


def copy(shelf: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shelf / name, tmp_path / name))


def edit_json(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def load(folder: Path, source: str | None = None, *, device: str = "cpu", **fields: Any) -> Loaded:
    """Load `file:source` below a folder."""
    if source is not None:
        fields["source"] = f"file:{source}"
    spec = ModelSpec(name="tiny", **fields)
    loader = ModelLoader(Sources(folder / "cache"), folder=folder, device=device, threads=1)
    return loader(spec)


def classifier_of(loaded: Loaded) -> Classifier:
    assert isinstance(loaded.engine, Classifier)
    return loaded.engine


def embedder_of(loaded: Loaded) -> Embedder:
    assert isinstance(loaded.engine, Embedder)
    return loaded.engine


def logits_of(model: Any, texts: Sequence[str]) -> Any:
    """Run each text alone through transformers itself."""
    tokenizer = tiny_tokenizer()
    with torch.inference_mode():
        rows = [model.eval()(torch.tensor([tokenizer.encode(t).ids])).logits for t in texts]
    return torch.cat(rows)


def test_a_classifier_scores_as_transformers_does(shelf: Path) -> None:
    engine = classifier_of(load(shelf, "classifier"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(shelf / "classifier")
    expected = logits_of(model, TEXTS).softmax(-1).numpy()
    scores = engine.classify(engine.encode(TEXTS))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(scores, axis=0).max() > 0.01, "the texts have to differ for this to mean much"


def test_labels_come_from_the_model_or_else_from_the_catalogue(shelf: Path) -> None:
    assert classifier_of(load(shelf, "classifier")).labels == ("COLD", "MILD", "WARM")
    named = classifier_of(load(shelf, "classifier", labels=("a", "b", "c")))
    assert named.labels == ("a", "b", "c")


@pytest.mark.parametrize("labels", [("a",), ("a", "b"), ("a", "b", "c", "d")])
def test_labels_that_do_not_fit_the_head_are_refused_by_its_name(
    shelf: Path, labels: tuple[str, ...]
) -> None:
    with pytest.raises(EngineError, match=r"labels don't fit the shape of classifier\.bias"):
        load(shelf, "classifier", labels=labels)


@pytest.mark.parametrize(
    ("config", "count"), [({"problem_type": "multi_label_classification"}, 3), ({}, 1)]
)
def test_labels_that_do_not_exclude_each_other_have_a_sigmoid_each(
    tmp_path: Path, config: dict[str, str], count: int
) -> None:
    named = {index: f"L{index}" for index in range(count)}
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(tiny_config(id2label=named, **config))
    spread(model)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    engine = classifier_of(load(tmp_path, "."))
    expected = logits_of(model, TEXTS).sigmoid().numpy()
    np.testing.assert_allclose(engine.classify(engine.encode(TEXTS)), expected, atol=1e-5)


def test_an_embedding_is_the_unit_mean_of_the_last_layer(shelf: Path) -> None:
    engine = embedder_of(load(shelf, "embedder", task=Task.EMBEDDING))
    vectors = engine.embed(engine.encode(TEXTS))
    assert vectors.shape == (3, engine.dimensions) == (3, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    model = transformers.AutoModel.from_pretrained(shelf / "embedder").eval()
    with torch.inference_mode():
        ids = torch.tensor([tiny_tokenizer().encode(TEXTS[1]).ids])
        mean = model(ids).last_hidden_state.mean(1)[0].numpy()
    np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), atol=1e-5)


def test_an_embedder_says_where_each_token_is_beyond_its_window_too(shelf: Path) -> None:
    engine = embedder_of(load(shelf, "embedder", task=Task.EMBEDDING))
    assert engine.passage_tokens == WINDOW - 2
    text = "good  film " * 100
    offsets = engine.offsets(text)
    assert len(offsets) == 200
    assert {text[start:end] for start, end in offsets} == {"good", "film"}
    assert offsets == sorted(offsets)
    assert engine.offsets("") == []


def test_a_text_scores_the_same_alone_and_in_a_padded_batch(shelf: Path) -> None:
    classifier = classifier_of(load(shelf, "classifier"))
    embedder = embedder_of(load(shelf, "embedder", task=Task.EMBEDDING))
    for engine, run in ((classifier, classifier.classify), (embedder, embedder.embed)):
        texts = engine.encode(TEXTS)
        alone = np.concatenate([run([text]) for text in texts])
        np.testing.assert_allclose(run(texts), alone, atol=1e-5)


def test_a_text_longer_than_the_window_is_cut_and_says_so(shelf: Path) -> None:
    engine = classifier_of(load(shelf, "classifier"))
    fits, long = engine.encode(["good " * (WINDOW - 2), "good " * (WINDOW - 1)])
    assert (fits.cost, fits.is_truncated) == (WINDOW, False)
    assert (long.cost, long.is_truncated) == (WINDOW, True)
    assert list(long.token_ids) == list(fits.token_ids), "the end of a cut text is still [SEP]"
    assert engine.classify([long]).shape == (1, 3)


def test_the_smallest_of_all_limits_is_the_window(shelf: Path, tmp_path: Path) -> None:
    def window(**limits: int) -> int:
        engine = classifier_of(load(tmp_path, "classifier", limits=Limits(**limits)))
        return engine.encode(["good " * 100])[0].cost

    folder = copy(shelf, "classifier", tmp_path)
    edit_json(folder / "tokenizer_config.json", model_max_length=10**30)
    assert (window(), window(max_tokens=9), window(max_tokens=999)) == (WINDOW, 9, WINDOW)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=20)
    assert (window(), window(max_tokens=9), window(max_tokens=25)) == (20, 9, 20)
    edit_json(folder / "tokenizer_config.json", model_max_length=12)
    assert window() == 12


def test_a_family_that_offsets_positions_has_two_tokens_less(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=WINDOW,
        pad_token_id=1,
    )
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    # Without it transformers makes a RobertaTokenizer of it, with other special tokens.
    edit_json(tmp_path / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    engine = classifier_of(load(tmp_path, "."))
    batch = engine.encode(["good " * 100, "good"])
    assert [item.cost for item in batch] == [WINDOW - 2, 3]
    np.testing.assert_allclose(engine.classify(batch)[1], engine.classify(batch[1:])[0], atol=1e-5)


def test_a_limit_that_leaves_no_room_for_a_text_is_refused(shelf: Path) -> None:
    # [CLS] and [SEP] alone are two.
    with pytest.raises(EngineError, match="2 tokens leave no room for a text"):
        load(shelf, "classifier", limits=Limits(max_tokens=2))


def test_a_tokenizer_may_be_a_vocabulary_alone(shelf: Path, tmp_path: Path) -> None:
    folder = copy(shelf, "classifier", tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    converted = classifier_of(load(tmp_path, "classifier"))
    original = classifier_of(load(shelf, "classifier"))
    assert converted.encode(TEXTS) == original.encode(TEXTS)


def test_a_model_without_a_tokenizer_is_refused(shelf: Path, tmp_path: Path) -> None:
    (copy(shelf, "classifier", tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(EngineError, match=r"no tokenizer\.json, and none can be made"):
        load(tmp_path, "classifier")


def test_a_tokenizer_that_only_python_can_run_is_refused(shelf: Path, tmp_path: Path) -> None:
    folder = copy(shelf, "classifier", tmp_path)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"a": 0, "<unk>": 1, "b</w>": 2}')
    (folder / "merges.txt").write_text("#version\na b</w>\n")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="CTRLTokenizer")
    with pytest.raises(EngineError, match=r"no tokenizer\.json, and none can be made"):
        load(tmp_path, "classifier")


def test_a_head_that_the_weights_lack_is_never_left_to_chance(shelf: Path, tmp_path: Path) -> None:
    config = copy(shelf, "embedder", tmp_path) / "config.json"
    edit_json(config, architectures=["BertForSequenceClassification"])
    with pytest.raises(EngineError, match=r"the weights lack classifier\.bias, classifier\.weight"):
        load(tmp_path, "embedder", labels=("a", "b"))


def test_an_embedder_may_lack_its_pooler_and_nothing_else(shelf: Path, tmp_path: Path) -> None:
    weights = copy(shelf, "embedder", tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    without = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    assert len(without) < len(tensors)
    save_file(without, weights, metadata={"format": "pt"})
    assert embedder_of(load(tmp_path, "embedder", task=Task.EMBEDDING)).dimensions == 32
    del without["embeddings.word_embeddings.weight"]
    save_file(without, weights, metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"the weights lack embeddings\.word_embeddings\.weight"):
        load(tmp_path, "embedder", task=Task.EMBEDDING)


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def rename_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def rename_architecture(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="of_my_own")


def skip_a_label(folder: Path) -> None:
    edit_json(folder / "config.json", id2label={"0": "a", "2": "b", "5": "c"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_config, r"config\.json: can't be read as JSON"),
        (break_tokenizer, r"tokenizer\.json: can't be read as JSON"),
        (cut_weights, r"model\.safetensors: is cut off, 100 bytes are missing"),
        (rename_weights, r"can't load this model: OSError: .*no file named model\.safetensors"),
        (rename_architecture, "can't load this model: ValueError: .*`of_my_own`"),
        (skip_a_label, "id2label has no label for output 1 of 3"),
    ],
)
def test_broken_files_are_told_in_one_short_line(
    shelf: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(copy(shelf, "classifier", tmp_path))
    with pytest.raises((EngineError, SourceError), match=message) as refused:
        load(tmp_path, "classifier")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_a_model_that_needs_code_of_its_own_is_refused(shelf: Path, tmp_path: Path) -> None:
    config = copy(shelf, "classifier", tmp_path) / "config.json"
    (config.parent / "code.py").write_text("raise SystemExit('this ran')")
    edit_json(config, auto_map={"AutoConfig": "code.Config"})
    known = classifier_of(load(tmp_path, "classifier"))
    assert known.labels == ("COLD", "MILD", "WARM"), "what transformers knows needs no code"
    edit_json(config, model_type="of_my_own")
    with pytest.raises(UnsafeModelError, match=r"config\.json: the model needs code of its own"):
        load(tmp_path, "classifier")


def test_an_adapter_is_merged_and_scores_as_peft_does(shelf: Path) -> None:
    import peft  # takes seconds

    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        shelf / "embedder", num_labels=2
    )
    without = logits_of(base, TEXTS)
    with old_names():
        adapted = peft.PeftModel.from_pretrained(base, shelf / "adapter")
    logits = logits_of(adapted, TEXTS)
    engine = classifier_of(load(shelf, "embedder", adapter="adapter", labels=("NO", "YES")))
    assert engine.labels == ("NO", "YES")
    scores = engine.classify(engine.encode(TEXTS))
    np.testing.assert_allclose(scores, logits.softmax(-1).numpy(), atol=1e-5)
    assert np.abs(scores - without.softmax(-1).numpy()).max() > 0.01


def test_an_adapter_without_its_files_is_refused(shelf: Path, tmp_path: Path) -> None:
    copy(shelf, "embedder", tmp_path)
    adapter = copy(shelf, "adapter", tmp_path)

    def refusal() -> str:
        with pytest.raises(StartupError) as refused:
            load(tmp_path, "embedder", adapter="adapter", labels=("NO", "YES"))
        return f"{type(refused.value).__name__}: {refused.value}"

    (adapter / "adapter_config.json").rename(adapter / "config-of-adapter.json")
    assert "the weights lack classifier.bias" in refusal()
    (adapter / "config-of-adapter.json").rename(adapter / "adapter_config.json")
    (adapter / "adapter_model.safetensors").rename(adapter / "other.safetensors")
    # PEFT would take the pickle, although safetensors lie beside it.
    (adapter / "adapter_model.bin").write_bytes(b"\x80\x04.")
    assert "EngineError" in refusal()
    assert "the adapter has no adapter_model.safetensors" in refusal()
    (adapter / "other.safetensors").unlink()
    assert "UnsafeModelError" in refusal()
    assert "adapter_model.bin is a pickle" in refusal()
    shutil.rmtree(adapter)
    assert f"SourceError: adapter: there is no folder {adapter}" in refusal()


def test_an_adapter_that_names_a_head_and_brings_none_is_refused(
    shelf: Path, tmp_path: Path
) -> None:
    copy(shelf, "embedder", tmp_path)
    weights = copy(shelf, "adapter", tmp_path) / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: t for name, t in tensors.items() if "classifier" not in name}, weights)
    with pytest.raises(EngineError, match=r"KeyError: .*classifier"):
        load(tmp_path, "embedder", adapter="adapter", labels=("NO", "YES"))


def test_labels_that_do_not_fit_the_adapters_head_are_refused(shelf: Path) -> None:
    with pytest.raises(EngineError, match="size mismatch"):
        load(shelf, "embedder", adapter="adapter", labels=("a", "b", "c"))


def test_a_task_has_one_spelling_for_engines_or_converted_models_are_not_found_again() -> None:
    written = EngineRequest(name="x", task="text-classification", engine="auto")
    assert repr(written.task) == repr(Task.CLASSIFICATION)
    assert EngineRequest(name="x", task="language-detection", engine="auto").task == (
        "language-detection"
    )


def test_torch_has_no_chat_models(shelf: Path) -> None:
    with pytest.raises(
        EngineError, match="engine 'torch' doesn't do chat; these do: auto, llama_cpp, remote, fake"
    ):
        load(shelf, "classifier", engine="torch", task=Task.CHAT)


def test_torch_needs_a_folder(shelf: Path) -> None:
    with pytest.raises(EngineError, match="needs a source that is a folder"):
        load(shelf, "classifier/model.safetensors")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none(shelf: Path) -> None:
    with pytest.raises(EngineError, match="DEVICE=cuda, but torch finds no CUDA device"):
        load(shelf, "classifier", device="cuda")
    assert load(shelf, "classifier", device="auto").engine.device == "cpu"


def machine(*, has_cuda: bool, has_bf16: bool = False) -> Any:
    """Return what the engine asks torch about a machine."""
    cuda = SimpleNamespace(is_available=lambda: has_cuda, is_bf16_supported=lambda: has_bf16)
    return SimpleNamespace(cuda=cuda, float32="f32", float16="f16", bfloat16="bf16")


def test_a_gpu_computes_in_half_precision_and_a_cpu_does_not() -> None:
    assert _choose_dtype(machine(has_cuda=True, has_bf16=True), "cuda") == "bf16"
    assert _choose_dtype(machine(has_cuda=True), "cuda") == "f16"
    assert _choose_dtype(machine(has_cuda=True), "cpu") == "f32"


def test_a_closed_engine_holds_no_weights(shelf: Path) -> None:
    engine = load(shelf, "classifier").engine
    engine.close()
    assert not any(isinstance(held, torch.nn.Module) for held in vars(engine).values())


def test_the_version_is_that_of_the_source(shelf: Path) -> None:
    assert load(shelf, "classifier").version == load(shelf, "classifier").version != "none"
    assert load(shelf, engine="fake").version == "none"


def test_files_are_checked_against_their_pins(shelf: Path) -> None:
    with pytest.raises(UnsafeModelError, match=r"model\.safetensors: sha256"):
        load(shelf, "classifier", sha256={"model.safetensors": "0" * 64})


def test_a_model_needs_a_source_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the entry names no source"):
        load(tmp_path)
    with pytest.raises(SourceError, match="file:absent: there is no"):
        load(tmp_path, "absent")


def test_an_unknown_engine_is_refused_and_the_known_are_told(shelf: Path) -> None:
    with pytest.raises(EngineError, match="'abacus' is not known; known are auto, torch, openvino"):
        load(shelf, "classifier", engine="abacus")


def test_a_fake_needs_no_source_and_does_every_task(tmp_path: Path) -> None:
    kinds = {Task.CLASSIFICATION: Classifier, Task.EMBEDDING: Embedder, Task.CHAT: ChatEngine}
    for task, kind in kinds.items():
        assert isinstance(load(tmp_path, engine="fake", task=task).engine, kind)
    # Its source isn't looked at.
    assert load(tmp_path, "absent", engine="fake").version == "none"


def test_an_unknown_option_of_a_fake_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"may hold delay_ms, .* 'colour'"):
        load(tmp_path, engine="fake", fake={"colour": "red"})


def test_a_fake_fails_to_load_when_it_is_told_to(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="was told not to load"):
        load(tmp_path, engine="fake", fake={"fail_load": True})


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.EMBEDDING])
@pytest.mark.parametrize(
    ("option", "message"),
    [({"fail_on": "warm up"}, "FakeFailureError"), ({"oom_over": 1}, "MemoryError")],
)
def test_a_crash_in_the_first_call_is_told_before_the_first_request(
    tmp_path: Path, task: Task, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=f"the first call failed: {message}"):
        load(tmp_path, engine="fake", task=task, fake=option)


def test_a_tokenizer_of_another_model_is_told_before_the_first_request(
    shelf: Path, tmp_path: Path
) -> None:
    path = copy(shelf, "classifier", tmp_path) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["warm"] = 30_000
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(EngineError, match=r"a token 'warm' of id 30000, but .* ends at 52"):
        load(tmp_path, "classifier")


class WrongShape:
    """Claims 2 labels or 4 dimensions and answers with 3 columns."""

    kind = "test"
    device = "none"
    max_tokens = 512

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Encoded]:
        assert not prompt
        return [Encoded(token_ids=[1], is_truncated=False) for _ in texts]

    def close(self) -> NoReturn:
        raise AssertionError


class WrongClassifier(WrongShape):
    labels: tuple[str, ...] = ("a", "b")

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        return np.zeros((len(batch), 3), dtype=np.float32)


class WrongEmbedder(WrongShape):
    dimensions = 4
    vector_rules = VectorRules()
    passage_tokens = 512

    def offsets(self, text: str) -> NoReturn:
        raise AssertionError

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        return np.zeros((len(batch), 3), dtype=np.float32)


def test_an_engine_that_answers_in_another_shape_than_it_says_is_refused() -> None:
    with pytest.raises(EngineError, match=r"shape \(2, 3\) where \(2, 2\) is right"):
        warm(WrongClassifier())
    with pytest.raises(EngineError, match=r"shape \(2, 3\) where \(2, 4\) is right"):
        warm(WrongEmbedder())


class Recorder:
    """Notes what is generated, and fails when it is told to."""

    device, context_tokens = "none", 8

    def __init__(self, kind: str, failure: Exception | None = None) -> None:
        self.kind = kind
        self.asked: list[GenerationOptions] = []
        self._failure = failure

    def check(self, options: GenerationOptions) -> None:
        """Let all pass."""

    def generate(
        self, _messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        self.asked.append(options)
        if self._failure:
            raise self._failure
        on_token("x")
        return Generation(text="x", finish_reason="length", usage=None)

    def close(self) -> NoReturn:
        raise AssertionError


@pytest.mark.parametrize("kind", ["llama_cpp", "fake"])
def test_a_chat_model_of_this_process_has_said_a_token_before_the_first_request(kind: str) -> None:
    generator = Recorder(kind)
    warm(LocalChat(generator, name="x"))
    assert generator.asked == [GenerationOptions(max_tokens=1)]


def test_a_remote_chat_model_is_not_asked_before_the_first_request() -> None:
    generator = Recorder("remote")
    warm(LocalChat(generator, name="x"))
    assert generator.asked == []


@pytest.mark.parametrize("failure", [InferenceFailedError(), RuntimeError("broken")])
def test_a_chat_model_that_loads_but_cant_generate_is_told_before_the_first_request(
    failure: Exception,
) -> None:
    with pytest.raises(EngineError, match=f"the first call failed: {type(failure).__name__}"):
        warm(LocalChat(Recorder("llama_cpp", failure), name="x"))


def test_a_fake_that_is_to_fail_among_its_tokens_loads(tmp_path: Path) -> None:
    load(tmp_path, engine="fake", task=Task.CHAT, fake={"fail_after": 0})


def test_a_fake_answers_by_the_text_alone_however_slow_it_is(tmp_path: Path) -> None:
    slow = classifier_of(load(tmp_path, engine="fake", fake={"delay_ms": 0.001}))
    quick = classifier_of(load(tmp_path, engine="fake"))
    np.testing.assert_array_equal(
        slow.classify(slow.encode(TEXTS[:2]))[1], quick.classify(quick.encode(TEXTS[1:2]))[0]
    )
