"""What a torch model is called with: the padded batch, as transformers' pipelines give it."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from app.engines.tokenizer import IntArray, TextRules


def inputs_of(
    torch: Any, model: Any, rules: TextRules, arrays: Mapping[str, IntArray]
) -> dict[str, Any]:
    """Return the arguments of a model's `forward`, as tensors on the CPU.

    Args:
        torch: the library.
        model: says by its signature what it takes.
        rules: say whether it is given token types; those that `arrays` lack are 0.
        arrays: what `TextEncoder.pad` returned, each (batch, tokens) int64.

    """
    accepted = inspect.signature(model.forward).parameters
    arguments = dict(arrays)
    if rules.takes_types:
        arguments.setdefault("token_type_ids", np.zeros_like(arrays["input_ids"]))
    inputs = {name: torch.from_numpy(a) for name, a in arguments.items() if name in accepted}
    return inputs | ({"use_cache": False} if "use_cache" in accepted else {})
