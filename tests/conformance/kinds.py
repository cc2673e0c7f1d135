"""The kinds of the suite: each architecture with each head that it has, and embedders' modules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from architectures import ARCHITECTURES, COMMON, WINDOW
from tiny import NLI, edit, seeded
from tiny_embedders import KINDS as MODULES
from tiny_embedders import NORMALIZE, embedder, pooled
from tiny_tokens import NAMED

from app.engines.base import Task

Modules = Sequence[tuple[str, dict[str, Any]]]


# Asking for one would import its module, in each process that collects tests; `dir` takes long.
NAMES = frozenset(transformers.__all__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is put on a model, and the task under which the folder is served.

    Args:
        ending: of the class of transformers.
        task: that the catalogue names.
        fields: of config.json.
        modules: behind an encoder, as sentence-transformers writes them; None: a plain folder.
        files: more fields, by the name of the JSON file that they are written into.
        has_pairs: it is given pairs of texts.

    """

    ending: str
    task: Task = Task.CLASSIFICATION
    fields: Mapping[str, Any] = field(default_factory=dict)
    modules: Modules | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    has_pairs: bool = False


def embeds(modules: Modules | None, **files: Mapping[str, Any]) -> Head:
    """Return an embedder's; `files` are named without `.json`."""
    named = {f"{name}.json": content for name, content in files.items()}
    return Head(ending="Model", task=Task.EMBEDDING, modules=modules, files=named)


CLASSIFIES = "ForSequenceClassification"
LABELS_TOKENS = "ForTokenClassification"
MULTI = {"problem_type": "multi_label_classification"}
# Each architecture is tried with each of these that transformers has a class for.
HEADS: Mapping[str, Head] = {
    "single label": Head(ending=CLASSIFIES),
    "multi-label": Head(ending=CLASSIFIES, fields=MULTI),
    "one label": Head(ending=CLASSIFIES, fields={"num_labels": 1}),
    "regression": Head(ending=CLASSIFIES, fields={"problem_type": "regression"}),
    "pairs": Head(ending=CLASSIFIES, has_pairs=True),
    "reranker": Head(
        ending=CLASSIFIES, task=Task.RANKING, fields={"num_labels": 1}, has_pairs=True
    ),
    "zero-shot": Head(ending=CLASSIFIES, task=Task.ZERO_SHOT, fields=NLI, has_pairs=True),
    "token classification": Head(ending=LABELS_TOKENS, task=Task.NER, fields=NAMED),
    "question answering": Head(ending="ForQuestionAnswering", fields={"num_labels": 2}),
    "masked LM": Head(ending="ForMaskedLM"),
    "causal LM": Head(ending="ForCausalLM"),
    "bare encoder": Head(ending="Model"),
    "mean": embeds([pooled("mean_tokens"), NORMALIZE]),
}
# These are tried with the architectures of EMBEDDERS: they hang on the modules alone.
PROMPTS = {"prompts": {"query": "the film "}, "default_prompt_name": "query"}
EMBEDDERS = ("Bert", "Qwen2", "FNet")
POOLINGS: Mapping[str, Head] = {
    **{name: embeds(modules) for name, modules in MODULES.items()},
    "no modules.json": embeds(None),
    "of a classifier's folder": Head(
        ending=CLASSIFIES, task=Task.EMBEDDING, modules=[pooled("mean_tokens")]
    ),
    "a default prompt": embeds([pooled("mean_tokens")], config_sentence_transformers=PROMPTS),
    "a default prompt, not pooled": embeds(
        [("Pooling", pooled("mean_tokens")[1] | {"include_prompt": False})],
        config_sentence_transformers=PROMPTS,
    ),
    "truncate_dim": embeds(
        [pooled("mean_tokens")], config_sentence_transformers={"truncate_dim": 16}
    ),
    "similarity dot": embeds(
        [pooled("mean_tokens")], config_sentence_transformers={"similarity_fn_name": "dot"}
    ),
    "max_seq_length": embeds(
        [pooled("mean_tokens")],
        sentence_bert_config={"max_seq_length": 12, "do_lower_case": True},
    ),
    "a cross-encoder": Head(
        ending=CLASSIFIES,
        fields={"num_labels": 1},
        files={"config.json": {"sentence_transformers": {"version": "5"}}},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One architecture with one head."""

    architecture: str
    name: str  # of the head
    head: Head

    def __str__(self) -> str:
        return f"{self.architecture}, {self.name}"

    @property
    def model_class(self) -> str:
        """The class of transformers that is saved."""
        return f"{self.architecture}{self.head.ending}"

    @property
    def exists(self) -> bool:
        """Whether transformers has such a class."""
        return self.model_class in NAMES

    def write(self, folder: Path) -> None:
        """Write the folder, as transformers and sentence-transformers do."""
        architecture = ARCHITECTURES[self.architecture]
        fields = architecture.config() | dict(self.head.fields)
        is_modular = self.head.modules is not None
        model_folder = folder.with_name(f"{folder.name}-model") if is_modular else folder
        model = seeded(self.model_class, f"{self.architecture}Config", **fields)
        if self.head.ending == LABELS_TOKENS:
            _narrow(model)
        model.save_pretrained(model_folder)
        architecture.write_tokens(model_folder)
        if self.head.modules is not None:
            embedder(model_folder, folder, *self.head.modules)
        for name, content in self.head.files.items():
            edit(folder / name, **content)


def _narrow(model: Any) -> None:
    """Draw the head's weights as wide as others have them: T5's class draws them five times so.

    A third digit of an embedding's half precision would be a second digit of the score.
    """
    weight = getattr(getattr(model, "classifier", None), "weight", None)
    if weight is not None and weight.std() > 2 * COMMON["initializer_range"]:
        weight.data *= COMMON["initializer_range"] / weight.std()


def _kinds() -> Iterator[Kind]:
    for architecture in ARCHITECTURES:
        for name, head in HEADS.items():
            yield Kind(architecture=architecture, name=name, head=head)
    for architecture in EMBEDDERS:
        for name, head in POOLINGS.items():
            yield Kind(architecture=architecture, name=name, head=head)


KINDS: Mapping[str, Kind] = {str(kind): kind for kind in _kinds() if kind.exists}
__all__ = ["HEADS", "KINDS", "POOLINGS", "WINDOW", "Kind"]
