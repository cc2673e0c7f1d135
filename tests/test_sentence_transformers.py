"""Embedders are read as sentence-transformers reads them, on both engines, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libraries import library
from tiny import SIZES, TEXTS, alone, seeded, word_tokenizer
from tiny_embedders import (
    ALONE,
    BF16,
    KINDS,
    NORMALIZE,
    TYPES,
    assert_like,
    both,
    dense,
    embedder,
    engines,
    on_torch,
    pooled,
    write,
)

from app.engines.base import EmbeddingOptions
from app.engines.folder import (
    cross_encoder,
    module_list,
    modules,
    transformer_settings,
    vector_settings,
)
from app.errors import EngineError


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_folder_gives_exactly_its_modules(encoder: Path, tmp_path: Path, kind: Any) -> None:
    folder = embedder(encoder, tmp_path / "model", *kind)
    expert = library(folder)
    expected = expert.encode(list(TEXTS), batch_size=2)
    assert np.ptp(expected, axis=0).max() > 0.1, "the texts have to differ for this to mean much"
    on_torch, on_openvino = engines(folder)
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


def test_what_the_library_saves_today_is_read(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), dense(), NORMALIZE)
    expert = library(folder)
    expert.save(str(tmp_path / "again"))
    assert_like(on_torch(tmp_path / "again"), expert.encode(list(TEXTS)), most=ALONE)


NFC = {"type": "NFC"}


@pytest.mark.parametrize("normalizer", [None, NFC, {"type": "Sequence", "normalizers": [NFC]}])
def test_texts_are_lowered_and_cut_as_the_library_does(
    encoder: Path, tmp_path: Path, normalizer: Any
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    tokenizer = folder / "tokenizer.json"
    cased = json.loads(tokenizer.read_text()) | {"normalizer": normalizer}
    tokenizer.write_text(json.dumps(cased))
    upper = ["GOOD film", "BAD [SEP] Film", "ΣΑΣ cat", "The CAT is long . " * 20]
    found = {}
    for lowers in (True, False):
        write(folder / "sentence_bert_config.json", {"max_seq_length": 30, "do_lower_case": lowers})
        expert = library(folder)
        expected = expert.encode(upper)
        for engine in engines(folder):
            found[lowers] = engine.embed(engine.encode(upper))
            assert np.abs(found[lowers] - expected).max() <= BF16 * np.abs(expected).max()
            assert engine.max_tokens == 30
    assert np.abs(found[True] - found[False]).max() > 0.1


@pytest.mark.parametrize(("max_seq_length", "expected"), [(None, 40), (20, 20), (46, 46), (99, 48)])
def test_max_seq_length_overrules_the_tokeniser_s_own(
    encoder: Path, tmp_path: Path, max_seq_length: int | None, expected: int
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
    expert = library(folder)
    expert.max_seq_length = min(max_seq_length or 40, 48)  # beyond it fails for long texts
    for engine, most in both(folder):
        assert engine.max_tokens == expected
        assert_like(engine, expert.encode(list(TEXTS)), most=most)


def rotary(folder: Path) -> Path:
    """Write an embedder of 64 positions that runs longer texts as well."""
    model = folder.with_name("rotary")
    sizes = {name: value for name, value in SIZES.items() if name != "num_labels"}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 64}
    seeded("Qwen2Model", "Qwen2Config", **sizes | more).save_pretrained(model)
    word_tokenizer(model_max_length=40).save_pretrained(model)
    return embedder(model, folder, pooled("lasttoken"))


@pytest.mark.parametrize("max_seq_length", [None, 128])
def test_max_seq_length_overrules_positions_that_the_model_needn_t_look_up(
    tmp_path: Path, max_seq_length: int | None
) -> None:
    folder = rotary(tmp_path / "model")
    write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length})
    texts = [*TEXTS, "the cat was good but the film is dull , " * 12]
    expected = library(folder).encode(texts, batch_size=1)
    engine = on_torch(folder)
    assert engine.max_tokens == (max_seq_length or 40)
    assert np.abs(alone(engine, texts) - expected).max() <= ALONE * np.abs(expected).max()


def test_the_first_file_of_settings_that_is_not_empty_counts(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    write(folder / "sentence_bert_config.json", {})
    write(folder / "sentence_roberta_config.json", {"max_seq_length": 9, "unpad_inputs": True})
    expected = library(folder).encode(list(TEXTS))
    engine = on_torch(folder)
    assert engine.max_tokens == 9
    assert_like(engine, expected, most=ALONE)
    write(folder / "sentence_roberta_config.json", {"pool": 9})
    with pytest.raises(EngineError, match=r"sentence_roberta_config.json: pool: 9 is not done"):
        on_torch(folder)


def test_a_plain_folder_is_not_cut_by_sentence_transformers_settings(
    encoder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    write(folder / "sentence_bert_config.json", {"max_seq_length": 5, "do_lower_case": True})
    expected = library(folder).encode(list(TEXTS), normalize_embeddings=True)
    engine = on_torch(folder)
    assert_like(engine, expected, most=ALONE)
    assert engine.max_tokens == 40


def test_the_encoder_of_an_encoder_decoder_embeds_alone(tmp_path: Path) -> None:
    sizes = {"vocab_size": SIZES["vocab_size"], "d_model": 32, "d_kv": 8, "d_ff": 64}
    ids = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    more = {"num_layers": 2, "num_heads": 4, "initializer_factor": 0.3}
    seeded("MT5Model", "MT5Config", **sizes, **ids, **more).save_pretrained(tmp_path / "plain")
    word_tokenizer(model_max_length=40).save_pretrained(tmp_path / "plain")
    folder = embedder(tmp_path / "plain", tmp_path / "model", pooled("mean_tokens"))
    expected = library(folder).encode(list(TEXTS), batch_size=1)
    on_torch, on_openvino = engines(folder)
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


def test_a_model_that_takes_no_mask_is_pooled_by_it_all_the_same(tmp_path: Path) -> None:
    fields = {name: value for name, value in SIZES.items() if "head" not in name}
    seeded("FNetModel", "FNetConfig", **fields).save_pretrained(tmp_path / "plain")
    word_tokenizer(model_max_length=40).save_pretrained(tmp_path / "plain")
    folder = embedder(tmp_path / "plain", tmp_path / "model", pooled("mean_tokens"), NORMALIZE)
    expected = library(folder).encode(list(TEXTS), batch_size=1)
    on_torch, on_openvino = engines(folder)
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


def test_a_plain_folder_is_mean_pooled_and_normalised(encoder: Path, tmp_path: Path) -> None:
    expert = library(encoder)
    expected = expert.encode(list(TEXTS), normalize_embeddings=True)
    on_torch, on_openvino = engines(encoder)
    assert_like(on_torch, expected, most=ALONE)
    assert_like(on_openvino, expected, most=BF16)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "q", "prompts": {"p": "P: "}},
         "config_sentence_transformers.json: default_prompt_name: 'q' is not done here; there are"),
        ("config_sentence_transformers.json", {"prompts": {"q": 1}}, "say a text for each name"),
        ("config_sentence_transformers.json", {"prompts": None}, "say a text for each name"),
        ("config_sentence_transformers.json", {"prompts": {"query": "good " * 40}},
         "prompts: 'query' has 40 tokens, and the model takes 38; shorten it"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim: 0 is not done"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"},
         "similarity_fn_name: 'maxsim' is not done here; known are cosine, dot, euclidean,"),
        ("config_sentence_transformers.json", {"mystery": 1}, "mystery: 1 is not done here"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length: 0 is not done"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type: "),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task: "),
        ("config_sentence_transformers.json", {"similarity_fn_name": ["cosine"]},
         "similarity_fn_name: ['cosine'] is not done here; known are"),
        ("config_sentence_transformers.json", {"model_type": {}}, "model_type: {} is not done"),
        ("1_Pooling/config.json", {"pooling_mode": [["cls"]]}, "pooling_mode: ['cls'] is not done"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "pooling_mode: [] is not done here; name"),
        ("1_Pooling/config.json", {"pooling_mode": None}, "pooling_mode: None is not done here"),
        ("2_Dense/config.json", {"in_features": 32}, "config.json: out_features: None is not done"),
        ("2_Dense/config.json", {"in_features": "32"}, "in_features: '32' is not done here; say"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pooling_mode: 'attention'"),
        ("1_Pooling/config.json", {"embedding_dimension": 32, "heads": 2}, "config.json: heads: 2"),
        ("2_Dense/config.json", dense(activation_function="mine.Act")[1], "activation_function: "),
        ("2_Dense/config.json", dense(use_residual=True)[1], "use_residual: True"),
        ("2_Dense/config.json", dense(width=31)[1], "takes 31 dimensions, and is given 32"),
        ("2_Dense/config.json", dense(size=8)[1], "2_Dense/model.safetensors: the weights don't"),
        ("modules.json", [{"path": "", "type": "sentence_transformers.models.WordEmbeddings"}],
         "modules.json: type: 'sentence_transformers.models.WordEmbeddings' is not done here"),
        ("modules.json", [{"path": "", "type": "mine.Transformer"}], "type: 'mine.Transformer'"),
        ("modules.json", [{"path": "", "type": f"{TYPES}.Transformer"},
                          {"path": "1_Pooling", "type": f"{TYPES}.Normalize"}], "begins with"),
        ("modules.json", [{"path": "0_T", "type": f"{TYPES}.Transformer"},
                          {"path": "1_Pooling", "type": f"{TYPES}.Pooling"}], "lies in '0_T'"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_file_and_field(
    encoder: Path, tmp_path: Path, file: str, content: Any, message: str
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), dense())
    write(folder / file, content)
    with pytest.raises(EngineError) as refused:
        engines(folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "torch can't load" not in str(refused.value)


def test_a_layer_norm_has_no_other_field(encoder: Path, tmp_path: Path) -> None:
    norm = ("LayerNorm", {"dimension": 32})
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), norm)
    write(folder / "2_LayerNorm" / "config.json", {"dimension": 32, "eps": 1e-3})
    with pytest.raises(EngineError, match=r"2_LayerNorm/config.json: eps: 0.001 is not done here"):
        on_torch(folder)


def test_what_the_library_only_reports_or_passes_on_changes_no_vector(
    encoder: Path, tmp_path: Path
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"))
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [module | {"kwargs": ["task"]} for module in modules])
    config = pooled("mean_tokens")[1] | {"word_embedding_dimension": 99}
    write(folder / "1_Pooling" / "config.json", config)
    assert_like(on_torch(folder), library(folder).encode(list(TEXTS)), most=ALONE)


def test_weights_in_a_pickle_are_not_read(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), dense())
    weights = folder / "2_Dense" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(EngineError, match=r"2_Dense/model.safetensors: is missing: .* safetensors"):
        engines(folder)


def test_a_changed_module_makes_another_converted_model(encoder: Path, tmp_path: Path) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("cls_token"), NORMALIZE)
    first = engines(folder)[1]
    write(folder / "1_Pooling" / "config.json", pooled("max_tokens")[1])
    second = engines(folder)[1]
    items = first.encode(TEXTS)
    assert np.abs(first.embed(items) - second.embed(items)).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            EmbeddingOptions(pooling=("cls",)),
            "modules.json: names mean, and the catalogue's pooling",
        ),
        (EmbeddingOptions(normalize=False), "modules.json: names Normalize, and the catalogue's"),
        (
            EmbeddingOptions(dimensions=9),
            "truncate_dim: is 8, and the catalogue's dimensions are 9",
        ),
    ],
)
def test_a_catalogue_that_contradicts_a_folder_is_refused(
    encoder: Path, tmp_path: Path, options: EmbeddingOptions, message: str
) -> None:
    folder = embedder(encoder, tmp_path / "model", pooled("mean_tokens"), NORMALIZE)
    write(folder / "config_sentence_transformers.json", {"truncate_dim": 8})
    agreeing = EmbeddingOptions(pooling=("mean",), normalize=True, dimensions=8)
    assert engines(folder, agreeing)[0].vector_rules.dimensions == 8
    with pytest.raises(EngineError) as refused:
        engines(folder, options)
    assert message in str(refused.value)


def test_more_dimensions_than_the_model_has_are_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="dimensions are 33, and the model has 32"):
        engines(encoder, EmbeddingOptions(dimensions=33))


def test_a_plain_folder_s_settings_are_not_read_as_in_the_library(
    encoder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    write(
        folder / "config_sentence_transformers.json", {"truncate_dim": 8, "default_prompt_name": 1}
    )
    expected = library(folder).encode(list(TEXTS), normalize_embeddings=True)
    assert_like(on_torch(folder), expected, most=ALONE)


def test_what_is_left_aside_is_documented_with_its_reason() -> None:
    page = (Path(__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    files = (cross_encoder, module_list, modules, transformer_settings, vector_settings)
    left_aside = {name: why for file in files for name, why in file.IGNORED.items()}
    for field, reason in left_aside.items():
        assert f"| {field} | {reason} |" in page
