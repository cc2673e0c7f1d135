"""Reads a model folder's tokeniser as transformers does, and what the model makes of its tokens."""

import dataclasses
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from app.engines.base import CLASSIFYING, Pair, Task
from app.engines.folder.modules import Pooling
from app.engines.folder.transformer_settings import lowers_case, own_window
from app.engines.token_windows import TokenEncoder
from app.engines.tokenizer import Padding, TextEncoder, TextRules, read_json
from app.engines.window import MOST_TRIED, runnable_window, runs
from app.errors import EngineError

# tokenizer_config.json says 10^30 where it means "no limit".
UNLIMITED = 1_000_000
FALLBACK_MAX_TOKENS = 512
# Without one of these transformers makes a tokenizer to which every word is unknown.
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.spm", "*.tiktoken", "tekken.json")
# Where the tokens of a folder are named.
TOKEN_FILES = ("*token*.json", "vocab.*")
# Encoded both ways, so that a tokeniser that does more than its backend shows: cases, accents,
# scripts, blanks, characters that vanish, and a text that is cut.
PROBES = (
    "A film that stays with you.",
    " Café NOËL  Straße\tÅngström\n",
    "我喜欢 🤗 это кино ไทย",
    "it's 3,141.59 @user #tag http://a.b/c?d=e",
    "\u200b \x07 \u00a0",
)
# The same of pairs: types, the template; `_long_pairs` says which of the two is cut how far.
PAIR_PROBES: tuple[Pair, ...] = ((PROBES[0], PROBES[3]), (PROBES[1], PROBES[2]), (PROBES[0], ""))
LEAST_COPIES, MOST_COPIES = 2, 20
# Where only the first may be cut, a second that is longer than the window has no answer.
SHORT_CHARS = 8
# Fields that transformers reads, or its users know, and this service ignores, with the reason.
# docs/models.md shows the list.
IGNORED = {
    "tokenizer_config.json: padding_side, pad_token_type_id": (
        "padding must not change an answer; the side is tried when the model is loaded"
    ),
    "tokenizer_config.json: clean_up_tokenization_spaces": "is for decoding",
    "tokenizer_config.json: chat_template, response_template": "are for chat",
    "tokenizer_config.json: max_length, stride, truncation_strategy, pad_to_multiple_of": (
        "pipelines don't use them either"
    ),
    "special tokens of a tokenizer's class that no file names and the model has no row for": (
        "a text that spells one has no answer in transformers; here it is plain text"
    ),
    "config.json: function_to_apply": (
        "the pipeline reads it only for a head of no output, which can't be"
    ),
    "config.json: label2id (but for zero-shot-classification), task_specific_params,"
    " finetuning_task": "pipelines don't use them either",
    "config.json: use_cache, output_attentions, output_hidden_states, return_dict": (
        "change no score"
    ),
    "config.json: torch_dtype, dtype": "the engine chooses the precision",
    "generation_config.json": "is for generating",
}


def read_tokenizer(folder: Path, transformers: Any) -> Any:
    """Return transformers' own tokeniser of a folder, with every file of it that counts.

    Raises:
        EngineError: there is none, it can't be read, or only Python can run it.

    """
    if not any(True for pattern in VOCABULARIES for _ in folder.glob(pattern)):
        raise EngineError(f"{folder}: no tokenizer.json, and none can be made of what is there")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(  # nosec B615  # a local folder
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as failure:  # the libraries raise anything
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())[:300]
        raise EngineError(f"{folder}: the tokenizer can't be read: {reason}") from failure
    if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
        raise EngineError(
            f"{folder}: {type(tokenizer).__name__} runs in Python only: there is no"
            " tokenizer.json, and none can be made of what is there"
        )
    return tokenizer


def copy_backend(tokenizer: Any, folder: Path, *, rows: int) -> Tokenizer:
    """Return the tokeniser as the tokenizers library runs it, independent of transformers.

    Args:
        tokenizer: transformers'.
        folder: is named in what goes wrong.
        rows: of the table of embeddings. Tokens beyond are those that transformers' class names
            and no file of the folder does: a text that spells them has no answer there, and is
            plain text here.

    Raises:
        EngineError: a part of it is Python code.

    """
    try:
        text = tokenizer.backend_tokenizer.to_str()
        if any(index >= rows for index in tokenizer.backend_tokenizer.get_added_tokens_decoder()):
            content = json.loads(text)  # a second or so for a large vocabulary
            content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < rows]
            text = json.dumps(content)
        return Tokenizer.from_str(text)
    except Exception as failure:  # the library raises nothing narrower
        raise EngineError(
            f"{folder}: {type(tokenizer).__name__} can't be written as tokenizer.json: {failure}"
        ) from failure


def make_encoder(
    folder: Path,
    *,
    model: Any,
    transformers: Any,
    limit: int | None,
    pooling: Pooling | None = None,
    task: str = Task.CLASSIFICATION,
) -> TextEncoder:
    """Return the encoder of a model that is loaded, on the CPU, with the window that it runs.

    Args:
        folder: the model's.
        model: the model.
        transformers: the library.
        limit: the catalogue's own `max_tokens`.
        pooling: an embedder's; what sentence-transformers keeps of the tokeniser counts then too,
            as it does for a cross-encoder.
        task: under which the model is served; those that classify may take pairs of texts,
            and one that labels tokens reads a text of any length.

    Raises:
        EngineError: the tokeniser can't do what transformers' does, has tokens that the model
            doesn't know, or no text fits into what the model runs.

    """
    tokenizer = read_tokenizer(folder, transformers)
    rows = _rows(model)
    _refuse_unknown_tokens(folder, tokenizer, rows)
    backend = copy_backend(tokenizer, folder, rows=rows)
    is_of_library = pooling is not None or task == Task.RANKING
    window = _declared_window(folder, tokenizer, model.config, is_of_library=is_of_library)
    rules = _rules(tokenizer, model, window=window, task=task)
    try:
        window = runnable_window(model, TextEncoder(backend, rules))
        rules = dataclasses.replace(rules, window=window)
        _refuse_other_encoding(folder, tokenizer, TextEncoder(backend, rules))
        if rules.takes_pairs:
            takes = _takes_pairs(tokenizer, model, TextEncoder(backend, rules))
            rules = dataclasses.replace(rules, takes_pairs=takes)
        if is_of_library and lowers_case(folder):
            rules = dataclasses.replace(rules, lowers_case=_lower_case(backend))
        if pooling is not None and not pooling.includes_prompt:
            special = tuple(tokenizer.all_special_ids)
            rules = dataclasses.replace(rules, leaves_prompt_out=True, special_ids=special)
        kind = TokenEncoder if task == Task.NER else TextEncoder
        return kind(backend, rules, limit=limit)
    except EngineError as failure:
        is_named = str(failure).startswith(str(folder))
        raise failure if is_named else EngineError(f"{folder}: {failure}") from failure


def _lower_case(backend: Tokenizer) -> bool:
    """Put lower case before a tokeniser's normaliser; return whether that changes anything.

    In the normaliser, as sentence-transformers does it: special tokens in a text keep their case.
    """
    texts = [*PROBES, *(text.upper() for text in PROBES)]
    before = [e.ids for e in backend.encode_batch(texts)]
    own = backend.normalizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])
    return [e.ids for e in backend.encode_batch(texts)] != before


def _declared_window(folder: Path, tokenizer: Any, config: Any, *, is_of_library: bool) -> int:
    """Return how many tokens a text may have: the least of what the model's files say.

    Of what sentence-transformers reads, embedders and cross-encoders, `max_seq_length` overrules
    them in a folder with modules, as in the library; as far as that can be tried, `runnable_window`
    finds out whether the model has so many positions. Without modules the library doesn't read it.
    """
    limits: tuple[int | None, ...]
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if is_of_library and (own := own_window(folder)):
        limits = (own, max(positions, MOST_TRIED) if positions and positions > 0 else None)
    elif is_of_library:
        limits = (positions, tokenizer.model_max_length)
    else:
        settings = read_json(folder / "sentence_bert_config.json")
        limits = (positions, tokenizer.model_max_length, settings.get("max_seq_length"))
    usable = [int(n) for n in limits if n and 0 < n < UNLIMITED]
    return min(usable, default=FALLBACK_MAX_TOKENS)


def _rules(tokenizer: Any, model: Any, *, window: int, task: str) -> TextRules:
    """Return what the tokeniser does beside tokenizer.json; how to pad is still to be tried."""
    accepted = inspect.signature(model.forward).parameters
    takes_types = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in accepted
    takes_pairs = task in CLASSIFYING
    # With a second text where there may be one: in most models its tokens alone have a type.
    probe = PAIR_PROBES[0] if takes_pairs else (PROBES[0],)
    types = tokenizer(*probe, return_token_type_ids=True)["token_type_ids"]
    if takes_pairs:
        types += tokenizer(PROBES[0], return_token_type_ids=True)["token_type_ids"]
    pad_id = model.config.pad_token_id
    if pad_id is None:
        pad_id = tokenizer.pad_token_id or 0
    # An id without a row in the table can't be looked up, not even to be masked. Encoder-decoders
    # pool at the end token, and mistake each other's where a text of a batch spells it out.
    is_padded = 0 <= pad_id < _rows(model) and not model.config.is_encoder_decoder
    return TextRules(
        window=window,
        truncation=tokenizer.truncation_side,
        padding=Padding.RIGHT if is_padded else Padding.NONE,
        pad_id=pad_id,
        takes_types=takes_types,
        has_types=takes_types and any(types),
        takes_pairs=takes_pairs,
        cuts_first=task == Task.ZERO_SHOT,  # as transformers' pipeline does
        splits_special_tokens=tokenizer.split_special_tokens,
        unknown_id=tokenizer.unk_token_id,
    )


def _rows(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _refuse_unknown_tokens(folder: Path, tokenizer: Any, rows: int) -> None:
    """Check that every token that the folder names has a row in the table of embeddings."""
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if not beyond:
        return
    files = (f for pattern in TOKEN_FILES for f in folder.glob(pattern))
    named = "".join(f.read_text(encoding="utf-8", errors="replace") for f in files)
    beyond = {t: i for t, i in beyond.items() if t in named or json.dumps(t)[1:-1] in named}
    if beyond:
        token, index = max(beyond.items(), key=lambda item: item[1])
        raise EngineError(
            f"{folder}: the tokenizer has a token {token!r} of id {index}, but the model's table of"
            f" embeddings ends at {rows - 1}: resize the embeddings, or remove the added tokens"
        )


def _refuse_other_encoding(folder: Path, tokenizer: Any, encoder: TextEncoder) -> None:
    """Check that probes are encoded as transformers does it, whatever its class adds in Python."""
    vocabulary = encoder.vocabulary()
    special = " ".join(token for token in tokenizer.all_special_tokens if token in vocabulary)
    texts = [*PROBES, f"a {special} b", " ".join(PROBES[:4] * 20)]
    expected = tokenizer(
        texts,
        truncation=True,
        max_length=encoder.max_tokens,
        return_token_type_ids=True,
    )
    for number, encoded in enumerate(encoder.encode(texts)):
        types = expected["token_type_ids"][number] if encoder.rules.has_types else []
        ids = expected["input_ids"][number]
        if list(encoded.token_ids) != ids or list(encoded.type_ids) != types:
            raise EngineError(
                f"{folder}: {type(tokenizer).__name__} does in Python what tokenizer.json can't"
                f" say: it encodes {texts[number][:40]!r} otherwise"
            )


def _long_pairs(tokenizer: Any, window: int) -> Sequence[Pair]:
    """Return pairs of which the first, the second and both are longer than the window.

    But not by much: what is cut off both texts the library makes into a piece for each combination,
    which of long texts and a small window are millions.
    """
    line = " ".join(PROBES[:4])
    tokens = len(tokenizer(line, add_special_tokens=False, verbose=False)["input_ids"])
    copies = min(MOST_COPIES, max(LEAST_COPIES, 2 * window // max(1, tokens) + 1))
    long, shorter = (" ".join([line] * number) for number in (copies, -(-copies * 3 // 5)))
    return (long, PROBES[0]), (PROBES[0], long), (long, shorter)


def _takes_pairs(tokenizer: Any, model: Any, encoder: TextEncoder) -> bool:
    """Say whether pairs are encoded as transformers does it, and the model runs them."""
    rules = encoder.rules
    try:
        pairs = [*PAIR_PROBES, *_long_pairs(tokenizer, encoder.max_tokens)]
        if rules.cuts_first:
            pairs = [(first, second[:SHORT_CHARS]) for first, second in pairs[:-2]]
        expected = tokenizer(
            [list(pair) for pair in pairs],
            truncation="only_first" if rules.cuts_first else "longest_first",
            max_length=encoder.max_tokens,
            return_token_type_ids=True,
        )
        encoded = encoder.encode(pairs)
    except Exception:  # noqa: BLE001  # the libraries raise anything, say for want of a template
        return False
    types = expected["token_type_ids"] if rules.has_types else [[]] * len(pairs)
    is_alike = [list(e.token_ids) for e in encoded] == expected["input_ids"]
    is_alike &= [list(e.type_ids) for e in encoded] == types
    # A model may have no embedding for the type of a second text.
    return is_alike and runs(model, encoder, encoded[0])
