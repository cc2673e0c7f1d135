"""A part of the suite that has each head, pooling, tokenizer and way to pad; and its tables."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import transformers
from architectures import ARCHITECTURES
from converted import kept_conversions
from kinds import CLASSIFIES, EMBEDDERS, HEADS, KINDS, POOLINGS, Head
from outcomes import BFLOAT16, MOST, Verdict, outcomes
from results import NO_CLASS, cell

from scripts.conformance import BEGIN, DOCUMENT
from scripts.document import END

# Each: what it is here for.
PART = {
    "Bert, single label": "softmax; a vocab.txt",
    "Roberta, multi-label": "sigmoids; byte pairs; positions that begin behind the pad token",
    "XLMRoberta, one label": "one sigmoid; sentencepiece",
    "GPT2, regression": "raw numbers; no special tokens; a text can have no tokens",
    "XLNet, single label": "token types at the end; padding on the left",
    "Bloom, single label": "OpenVINO refuses it",
    "Bert, token classification": "a label for each token; words are marked by ##",
    "Roberta, token classification": "words are told by blanks; accents are two tokens",
    "XLNet, token classification": "special tokens at the end; padding on the left",
    "DebertaV2, token classification": "sentencepiece",
    "FNet, token classification": "one window a call",
    "Qwen2, causal LM": "refused by the head's name",
    "Bert, a cross-encoder": "refused: it ranks pairs",
    "Bert, pairs": "token types of pairs",
    "XLNet, pairs": "other token types, on the other side",
    "Roberta, reranker": "two separators; no token types; packed",
    "XLMRoberta, reranker": "as the multilingual ones are; sentencepiece; packed",
    "GPT2, reranker": "no separators",
    "DebertaV2, zero-shot": "the entailment by its label; only the text is cut",
    "FNet, mean": "no attention mask; a model that sees its padding: one text a call",
    "Qwen2, lasttoken": "the last token, of a decoder",
    "Bert, mix": "several poolings",
    "Bert, dense": "a Dense behind the pooling",
    "Bert, max_seq_length": "sentence_bert_config.json",
}


@pytest.fixture(scope="module")
def tables() -> Mapping[str, str]:
    """Read kind → cell in docs/models.md."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()]
    cells: dict[str, str] = {}
    columns: list[str] = []
    for row in (line for line in lines if line):
        if row[0] == "":
            columns = row[1:]
        elif columns and row[0] in {*ARCHITECTURES, *POOLINGS}:
            is_head = row[0] in ARCHITECTURES
            names = [f"{row[0]}, {c}" if is_head else f"{c}, {row[0]}" for c in columns]
            cells |= dict(zip(names, row[1:], strict=True))
    return cells


# Most of its time is in the libraries; what it runs of ours is measured in the engines' own tests.
@pytest.mark.no_cover
@pytest.mark.parametrize("name", PART)
def test_a_kind_is_served_as_by_its_library_or_refused_as_the_table_says(
    name: str, tmp_path: Path, tables: Mapping[str, str]
) -> None:
    with kept_conversions("conformance") as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries' own models
        found = outcomes(KINDS[name], tmp_path / "model", kept=kept)
    wrong = {engine: o.difference for engine, o in found.items() if o.verdict is Verdict.WRONG}
    assert wrong == {}
    assert cell(found) == tables[name], "run `make conformance`"


def test_the_tables_name_every_kind_and_no_other(tables: Mapping[str, str]) -> None:
    assert {name for name, word in tables.items() if word != NO_CLASS} == set(KINDS)
    assert set(tables.values()) <= {"right", "torch", "refused", NO_CLASS}


def test_every_line_of_the_table_of_architectures_is_a_model_of_transformers() -> None:
    assert len(ARCHITECTURES) >= 20
    assert len(KINDS) >= 60
    for name in ARCHITECTURES:
        assert hasattr(transformers, f"{name}Config"), name


def test_the_part_has_each_head_that_is_served_and_each_tokenizer() -> None:
    heads: list[Head] = [KINDS[name].head for name in PART]
    assert set(EMBEDDERS) <= {KINDS[name].architecture for name in PART}
    served = {name for name, head in HEADS.items() if head.ending == CLASSIFIES}
    served |= {"mean", "token classification"}
    assert served <= {KINDS[name].name for name in PART}
    tokens = {ARCHITECTURES[KINDS[name].architecture].tokens for name in PART}
    assert {"words", "wordpiece", "bytes", "spiece.model"} <= tokens
    assert {head.task for head in heads} == {KINDS[name].head.task for name in KINDS}


def test_bfloat16_may_differ_by_more() -> None:
    assert MOST[BFLOAT16] == 2e-2
    assert {most for name, most in MOST.items() if name != BFLOAT16} == {1e-3}
