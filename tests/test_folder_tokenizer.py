"""Tokenisers: a folder is encoded as transformers' AutoTokenizer does it, or refused by name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from converted import converted_once
from tiny import (
    SIZES,
    TEXTS,
    alone,
    bert,
    edit,
    on_torch,
    pipeline_rows,
    request_for,
    seeded,
    together,
    word_tokenizer,
)
from tiny_tokenizers import VOCABULARY, pieces

from app.engines.base import Encoded
from app.engines.folder.tokenizer import IGNORED
from app.engines.openvino.converted import folder_of, read
from app.engines.openvino.loading import load
from app.engines.openvino.preparation import load_reference, prepare
from app.engines.tokenizer import TextEncoder
from app.errors import EngineError

PHRASES = (
    "The CAT café was Good .",
    "我喜 the cat",
    "a <new> film[SEP]",
    "the cat was good . " * 30 + "The CAT",
    " leading  blanks",
    "",
)


def vocab_only(folder: Path, **fields: Any) -> Path:
    """Write a BERT whose tokenizer is a vocab.txt and what tokenizer_config.json says."""
    bert(folder, vocab_size=len(VOCABULARY) + 2)
    for file in folder.glob("*token*.json"):
        file.unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    if fields:
        edit(folder / "tokenizer_config.json", **fields)
    return folder


def expected_ids(folder: Path, texts: tuple[str, ...], window: int) -> list[list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=window)["input_ids"]
    return rows


def ids_of(items: Sequence[Encoded]) -> list[list[int]]:
    return [list(item.token_ids) for item in items]


SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "cased": {"do_lower_case": False},
    "lower case": {"do_lower_case": True},
    "accents kept": {"do_lower_case": True, "strip_accents": False},
    "accents stripped": {"do_lower_case": False, "strip_accents": True},
    "chinese in words": {"tokenize_chinese_chars": False},
    "cut on the left": {"truncation_side": "left"},
    "a short window": {"model_max_length": 9},
    "a token of its own": {"added_tokens_decoder": {"19": {"content": "<new>", "special": False}}},
    "special tokens are text": {"split_special_tokens": True},
    "extra special tokens": {"extra_special_tokens": ["ca"]},
}


@pytest.mark.parametrize("fields", SETTINGS.values(), ids=SETTINGS)
def test_tokenizer_config_counts_as_it_does_in_transformers(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    for name in ("vocabulary", "whole"):
        folder = vocab_only(tmp_path / name)
        if name == "whole":  # with a tokenizer.json, which tokenizer_config.json overrules
            transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        edit(folder / "tokenizer_config.json", **fields)
        engine = on_torch(folder)
        encoded = ids_of(engine.encode(PHRASES))
        assert encoded == expected_ids(folder, PHRASES, engine.max_tokens), name


def test_each_setting_makes_a_difference(tmp_path: Path) -> None:
    """Else the test above would show nothing."""
    plain = ids_of(on_torch(vocab_only(tmp_path / "plain", do_lower_case=True)).encode(PHRASES))
    for name, fields in SETTINGS.items():
        if name in {"nothing", "lower case"}:
            continue
        folder = vocab_only(tmp_path / name, **{"do_lower_case": True} | fields)
        assert ids_of(on_torch(folder).encode(PHRASES)) != plain, name


def test_special_tokens_map_counts_where_older_folders_have_it(tmp_path: Path) -> None:
    folder = vocab_only(tmp_path)
    edit(folder / "special_tokens_map.json", sep_token="film", cls_token="cat")
    engine = on_torch(folder)
    encoded = ids_of(engine.encode(PHRASES))
    assert encoded == expected_ids(folder, PHRASES, engine.max_tokens)
    assert [encoded[0][0], encoded[0][-1]] == [VOCABULARY.index("cat"), VOCABULARY.index("film")]


def test_a_converted_model_keeps_all_of_it_without_transformers(tmp_path: Path) -> None:
    folder = vocab_only(
        tmp_path / "model",
        do_lower_case=False,
        truncation_side="left",
        model_max_length=9,
        split_special_tokens=True,
    )
    request = request_for(folder, engine="openvino")
    engine = load(request, prepare=lambda given: prepare(given, load_reference))
    converted = read(folder_of(request))
    assert converted is not None
    read_again = TextEncoder.read(converted.tokenizer, converted.rules)
    expected = expected_ids(folder, PHRASES, 9)
    assert ids_of(engine.encode(PHRASES)) == ids_of(read_again.encode(PHRASES)) == expected
    rows = pipeline_rows(folder, PHRASES, window=9)
    np.testing.assert_allclose(together(engine, PHRASES), rows, atol=0.02)


def test_places_of_tokens_are_in_order_where_the_left_is_cut(tmp_path: Path) -> None:
    folder = vocab_only(tmp_path, truncation_side="left", model_max_length=6)
    places = on_torch(folder).encoder.offsets("the cat was good . the cat")
    assert places == sorted(places)
    assert len(places) == 7


def test_tokens_of_a_long_text_are_shown_whole_with_the_special_ones_around(tmp_path: Path) -> None:
    encoder = on_torch(vocab_only(tmp_path, model_max_length=6)).encoder
    text = "The cat was good . the cat"
    shown = encoder.tokens(text, with_special=True)
    words = text.split()
    assert [token.text for token in shown] == ["[CLS]", *words, "[SEP]"]
    assert [token.place for token in shown[1:-1]] == encoder.offsets(text)
    assert [token.id for token in (shown[0], shown[-1])] == encoder.encode([""])[0].token_ids
    assert shown[0].place is None
    assert encoder.tokens(text, with_special=False) == shown[1:-1]
    assert [token.text for token in encoder.tokens("", with_special=True)] == ["[CLS]", "[SEP]"]


def test_a_token_beyond_the_table_is_refused_on_both_engines(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<far>"])
    folder = bert(tmp_path / "model", tokenizer)
    last = SIZES["vocab_size"] - 1
    said = rf"a token '<far>' of id {last + 1}, but the model's table of embeddings ends at {last}"
    with pytest.raises(EngineError, match=said):
        on_torch(folder)
    with pytest.raises(EngineError, match=said):
        prepare(request_for(folder, engine="openvino"), load_reference)


SENTENCEPIECE: dict[str, tuple[str, dict[str, Any]]] = {
    "XLMRoberta": ("sentencepiece.bpe.model", {}),
    "Camembert": ("sentencepiece.bpe.model", {}),
    "Albert": ("spiece.model", {"embedding_size": 16}),
    "DebertaV2": ("spm.model", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "Llama": ("tokenizer.model", {"num_key_value_heads": 2}),
}


@pytest.mark.parametrize("family", SENTENCEPIECE)
def test_a_sentencepiece_model_is_all_that_a_folder_needs(tmp_path: Path, family: str) -> None:
    name, fields = SENTENCEPIECE[family]
    sizes = SIZES | {"vocab_size": 100, "max_position_embeddings": 50} | fields
    model = seeded(f"{family}ForSequenceClassification", f"{family}Config", **sizes)
    model.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(
        pieces(
            model_type="bpe" if family == "Llama" else "unigram",
            user_defined_symbols=["[CLS]", "[SEP]", "[MASK]", "<pad>"],
        )
    )
    engine = on_torch(tmp_path)
    assert ids_of(engine.encode(TEXTS)) == expected_ids(tmp_path, TEXTS, engine.max_tokens)
    expected = pipeline_rows(tmp_path, TEXTS, window=engine.max_tokens)
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=1e-4)
    np.testing.assert_allclose(together(engine, TEXTS), expected, atol=1e-3)


def test_xlnet_is_padded_on_the_left_and_given_token_types_that_its_folder_names(
    tmp_path: Path,
) -> None:
    fields = {"vocab_size": 100, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    more = {"initializer_range": 0.3, "num_labels": 3, "pad_token_id": 5}
    model = seeded("XLNetForSequenceClassification", "XLNetConfig", **fields, **more)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    (folder / "spiece.model").write_bytes(pieces(user_defined_symbols=["<sep>", "<cls>", "<pad>"]))
    assert on_torch(folder).encode(["good film"])[0].type_ids == (), "as transformers 5 does"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    edit(folder / "tokenizer_config.json", model_input_names=names)
    engine = on_torch(folder)
    (item,) = engine.encode(["good film"])
    assert item.type_ids[-1] == 2, "[CLS] is at the end, and of a type of its own"
    expected = pipeline_rows(folder, TEXTS, window=engine.max_tokens)
    np.testing.assert_allclose(alone(engine, TEXTS), expected, atol=1e-4)
    np.testing.assert_allclose(together(engine, TEXTS), expected, atol=1e-3)
    without = [Encoded(token_ids=item.token_ids, is_truncated=False)]  # all are 0
    assert np.abs(engine.classify(without) - engine.classify([item])).max() > 1e-3
    request = converted_once(request_for(folder, engine="openvino"))
    prepare(request, load_reference)
    converted = read(folder_of(request))
    assert converted is not None
    graph = load(request, prepare=lambda _: None)
    np.testing.assert_allclose(together(graph, TEXTS), expected, atol=0.03)


def test_a_tokenizer_that_does_more_in_python_is_refused_by_name(tmp_path: Path) -> None:
    folder = vocab_only(tmp_path, tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(EngineError, match=r"(BertJapaneseTokenizer|the tokenizer can't be read)"):
        on_torch(folder)


def test_what_only_a_class_of_transformers_names_is_plain_text(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    for file in folder.glob("*token*.json"):
        file.unlink()
    tokenizer = word_tokenizer().backend_tokenizer.to_str()
    made = json.loads(tokenizer)
    made["added_tokens"] = []
    made["model"]["vocab"] = {
        f"w{i}" if t == "[MASK]" else t: i for t, i in made["model"]["vocab"].items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(made))
    engine = on_torch(folder)
    (item,) = engine.encode(["a [MASK] film"])
    assert max(item.token_ids) < SIZES["vocab_size"]


def test_what_is_left_aside_is_documented_with_its_reason() -> None:
    page = (Path(__file__).parents[1] / "docs/models.md").read_text(encoding="utf-8")
    for field, reason in IGNORED.items():
        assert f"| {field} | {reason} |" in page
