"""Makes a torch model run texts in rows, one behind the other, where it can."""

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.engines.base import Encoded, FloatArray
from app.engines.openvino.packed_inputs import PackedInputs, pack
from app.engines.packing import Layout
from app.engines.padding import MOST, PAIR_PROBES, PROBES
from app.engines.tokenizer import Padding
from app.engines.torch import Reference, TorchClassifier
from app.engines.torch_embedder import TorchEmbedder

log = logging.getLogger(__name__)

# Longer than the windows in which some models attend to neighbours only: those can't be packed.
LONG_PROBE_TOKENS = 512


def choose_packing(reference: Reference, plain: Any) -> PackedInputs | None:
    """Return how to tell a model of texts in rows; None where it answers them otherwise than alone.

    Args:
        reference: the loaded model.
        plain: a module that runs padded batches, as `conversion` traces it.

    """
    base = base_of(reference)
    parameters = inspect.signature(base.forward).parameters if base is not None else {}
    if reference.encoder.rules.padding is not Padding.RIGHT or "position_ids" not in parameters:
        return None
    items = _probes(reference)
    alone = _lines([_call(plain, reference.encoder.pad([item]))[0] for item in items], items)
    ways = (way for way in _ways(reference) if _is_alike(_together(reference, items, way), alone))
    return next(ways, None)


def _together(
    reference: Reference, items: Sequence[Encoded], inputs: PackedInputs
) -> FloatArray | None:
    """Run texts in one row; None where the model can't."""
    try:
        return run_packed(reference, items, inputs)
    except Exception as failure:  # noqa: BLE001  # a model's own code can raise anything
        log.debug("not_packed", extra={"reason": type(failure).__name__})
        return None


def _is_alike(together: FloatArray | None, alone: FloatArray) -> bool:
    if together is None or together.shape != alone.shape:
        return False
    return bool(np.abs(together - alone).max() <= MOST["float32"] * (np.abs(alone).max() or 1.0))


def base_of(reference: Reference) -> Any:
    """Return the part of a model that gives a vector for each token; None where it has no such."""
    if isinstance(reference, TorchEmbedder):
        return reference.module
    base = getattr(reference.module, "base_model", None)
    return None if base is reference.module else base


def _probes(reference: Reference) -> list[Encoded]:
    """Return texts of many lengths, the longest in the middle, and one with the pad token in it.

    Pairs among them, where the model takes any.
    """
    texts = [*PROBES[2:], PROBES[-1] * LONG_PROBE_TOKENS, *PROBES[:2]]
    encoded = list(reference.encode(texts))
    if isinstance(reference, TorchClassifier) and reference.takes_pairs:
        encoded += reference.encode(PAIR_PROBES)
    items = [_cut(item.first_window) for item in encoded if item.cost]
    pad = _pad_id(reference)
    if pad is not None:
        ids = list(items[0].token_ids)
        items[0] = replace(items[0], token_ids=[*ids[:2], pad, *ids[3:]])
    return items


def _cut(item: Encoded) -> Encoded:
    ids, types = item.token_ids[:LONG_PROBE_TOKENS], item.type_ids[:LONG_PROBE_TOKENS]
    return replace(item, token_ids=ids, type_ids=types)


def _ways(reference: Reference) -> Iterator[PackedInputs]:
    pad = _pad_id(reference)
    ways = [(0, None)] if pad is None else [(0, None), (pad + 1, pad)]
    enough = (True, False) if isinstance(reference, TorchClassifier) else (False,)
    for is_first_enough in enough:
        for first, uncounted in ways:
            yield PackedInputs(
                first_position=first, is_first_enough=is_first_enough, uncounted_id=uncounted
            )


def _pad_id(reference: Reference) -> int | None:
    pad: int | None = getattr(reference.module.config, "pad_token_id", None)
    return pad


def run_packed(reference: Reference, items: Sequence[Encoded], inputs: PackedInputs) -> FloatArray:
    """Run texts on torch, all in one row; return a row for each, (texts, columns)."""
    layout = Layout(rows=[list(range(len(items)))], width=sum(item.cost for item in items) + 1)
    arrays = pack(items, layout, rules=reference.encoder.rules, inputs=inputs)
    return _lines(list(_call(packed_module(reference), arrays)[: len(items)]), items)


def _lines(rows: Sequence[FloatArray], items: Sequence[Encoded]) -> FloatArray:
    """Return a row for each text; what is said of its tokens stands in one, 0 behind the last."""
    if rows[0].ndim == 1:
        return np.stack(rows)
    lines = np.zeros((len(rows), max(item.cost for item in items), rows[0].shape[1]), np.float32)
    for line, row, item in zip(lines, rows, items, strict=True):
        line[: item.cost] = row[: item.cost]
    return lines.reshape(len(rows), -1)


def _call(module: Any, arrays: Any) -> FloatArray:
    import torch

    with torch.inference_mode():
        rows = module(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        return np.asarray(rows.float().numpy(), dtype=np.float32)


def packed_module(reference: Reference) -> Any:
    """Wrap a model so that it takes what `pack` returns, and gives logits or vectors."""
    import torch

    base = base_of(reference)
    takes_types = reference.encoder.rules.takes_types
    accepted = inspect.signature(base.forward).parameters
    if isinstance(reference, TorchEmbedder):
        head = reference.head
    else:
        head = _classifier_head(torch, reference.module)

    class Packed(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.head = head

        def forward(  # noqa: PLR0913, PLR0917  # as many tensors as `pack` returns
            self,
            input_ids: Any,
            position_ids: Any,
            segments: Any,
            places: Any,
            attention_mask: Any,
            token_type_ids: Any = None,
            pooling_mask: Any = None,
        ) -> Any:
            # Each token sees the tokens of its own text; what fills up a row sees its like.
            is_same = segments.unsqueeze(1).unsqueeze(3) == segments.unsqueeze(1).unsqueeze(2)
            mask = torch.where(is_same, 0.0, torch.finfo(torch.float32).min)
            arguments = {"use_cache": False} if "use_cache" in accepted else {}
            if takes_types and token_type_ids is None:
                token_type_ids = torch.zeros_like(input_ids)
            if takes_types:
                arguments["token_type_ids"] = token_type_ids
            output = self.base(
                input_ids=input_ids, attention_mask=mask, position_ids=position_ids, **arguments
            )
            hidden = output.last_hidden_state
            own = hidden.reshape(-1, hidden.shape[-1])[places]
            pooled = attention_mask if pooling_mask is None else pooling_mask
            return self.head(own, attention_mask, pooled)

    return Packed().eval()


def _classifier_head(torch: Any, model: Any) -> Any:
    """Return a module: `(hidden, mask, pooled) -> logits`, by all that a classifier does.

    A copy of it, whose base only passes on what it is given, with the base's own pooler.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Base(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.pooler = getattr(model.base_model, "pooler", None)

        def forward(self, *_: Any, inputs_embeds: Any = None, **__: Any) -> Any:
            pooled = None if self.pooler is None else self.pooler(inputs_embeds)
            return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)

    class Head(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.copy(model)
            # The modules of the model itself stay as they are.
            own = dict(model._modules) | {model.base_model_prefix: Base()}  # noqa: SLF001
            self.model._modules = own  # noqa: SLF001

        def forward(self, hidden: Any, mask: Any, _pooled: Any) -> Any:
            return self.model(inputs_embeds=hidden, attention_mask=mask).logits

    return Head()
