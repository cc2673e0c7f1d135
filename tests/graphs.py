"""Small ONNX graphs that tests make, of operators that exporters write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
IR_VERSION = 10
OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
Dims = Sequence[int | str | None] | None
WEIGHTS = np.array([[1, -1], [2, 0.5], [0, 1], [-3, 2]], dtype=np.float32)


def tensor(name: str, kind: int, dims: Dims) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def maps(name: str, *, key: int = STRING) -> Any:
    """A sequence of maps from labels to numbers, as ZipMap gives it."""
    value = helper.make_tensor_type_proto(FLOAT, [])
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    return helper.make_value_info(name, kind)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Mapping[str, Any] | None = None,
) -> Any:
    """Make a model; constants are arrays by name."""
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), stored)
    made = helper.make_model(graph, opset_imports=OPSETS)
    made.ir_version = IR_VERSION
    return made


def save(made: Any, path: Path) -> Path:
    onnx.save(made, path)
    return path


def save_external(made: Any, path: Path, *, location: str) -> Path:
    """Save a model with its weights in another file."""
    onnx.save(made, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def identity(kind: int, dims: Dims) -> Any:
    node = helper.make_node("Identity", ["x"], ["y"])
    return model([node], [tensor("x", kind, dims)], [tensor("y", kind, dims)])


def linear(*, dims: Dims = (None, 4), out: Dims = (None, 2)) -> Any:
    """y = x · weights: a row of four numbers to one of two."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [tensor("x", FLOAT, dims)], [tensor("y", FLOAT, out)], {"w": WEIGHTS})


def classifier(*, labels: Sequence[str] | Sequence[int] = ("no", "yes")) -> Any:
    """A logistic regression with ZipMap, as scikit-learn's converter writes it."""
    are_texts = isinstance(labels[0], str)
    key = {"classlabels_strings" if are_texts else "classlabels_ints": list(labels)}
    zipped = {"classlabels_strings" if are_texts else "classlabels_int64s": list(labels)}
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[-1.0, -2.0, 1.0, 2.0],
            intercepts=[0.5, -0.5],
            post_transform="SOFTMAX",
            multi_class=0,
            **key,
        ),
        helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", **zipped),
    ]
    kind = STRING if are_texts else INT64
    outputs = [tensor("label", kind, [None]), maps("probabilities", key=kind)]
    return model(nodes, [tensor("x", FLOAT, [None, 2])], outputs)


def columns() -> Any:
    """A column of texts and one of numbers, as scikit-learn's converter has tables."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["city"],
            ["code"],
            domain="ai.onnx.ml",
            keys_strings=["Rome", "Köln"],
            values_floats=[10.0, 20.0],
            default_float=-1.0,
        ),
        helper.make_node("Add", ["code", "age"], ["y"]),
    ]
    inputs = [tensor("city", STRING, [None, 1]), tensor("age", FLOAT, [None, 1])]
    return model(nodes, inputs, [tensor("y", FLOAT, [None, 1])])


def pooled() -> Any:
    """The mean of the vectors of tokens, with a mask of the same length: lengths are open."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["vectors"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["vectors", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["y"], keepdims=0),
    ]
    inputs = [tensor("ids", INT64, ["batch", "tokens"]), tensor("mask", FLOAT, ["batch", "tokens"])]
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    constants = {"table": table, "last": np.array([2]), "middle": np.array([1])}
    return model(nodes, inputs, [tensor("y", FLOAT, ["batch", 3])], constants)


def for_one_only() -> Any:
    """Takes batches by its shapes, but a batch of one was written into its middle."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return model(
        nodes,
        [tensor("x", FLOAT, ["batch", 2, 2])],
        [tensor("y", FLOAT, ["batch", 2])],
        {"shape": np.array([1, 4]), "w": WEIGHTS},
    )


def of_the_largest() -> Any:
    """Divides by the batch's largest number, as weights do that are quantised by the batch."""
    nodes = [
        helper.make_node("Abs", ["x"], ["positive"]),
        helper.make_node("ReduceMax", ["positive"], ["largest"], keepdims=0),
        helper.make_node("Div", ["x", "largest"], ["y"]),
    ]
    return model(nodes, [tensor("x", FLOAT, [None, 4])], [tensor("y", FLOAT, [None, 4])])


def running() -> Any:
    """Sums up its rows, as a network does that has a series along its first dimension."""
    node = helper.make_node("CumSum", ["x", "first"], ["y"])
    inputs, outputs = [tensor("x", FLOAT, [None, 4])], [tensor("y", FLOAT, [None, 4])]
    return model([node], inputs, outputs, {"first": np.array(0)})


def logarithm() -> Any:
    node = helper.make_node("Log", ["x"], ["y"])
    return model([node], [tensor("x", FLOAT, [None])], [tensor("y", FLOAT, [None])])


def averaged() -> Any:
    """One row for all rows."""
    node = helper.make_node("ReduceMean", ["x", "first"], ["y"])
    inputs, outputs = [tensor("x", FLOAT, ["rows", 2])], [tensor("y", FLOAT, [1, 2])]
    return model([node], inputs, outputs, {"first": np.array([0])})


def summed() -> Any:
    """One number for all rows, and a parameter without a dimension."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "factor"], ["y"]),
    ]
    inputs = [tensor("x", FLOAT, ["rows", 2]), tensor("factor", FLOAT, [])]
    return model(nodes, inputs, [tensor("y", FLOAT, [])])
