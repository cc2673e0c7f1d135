"""The engine `onnx`: answers as ONNX Runtime's own, alone and together, or one clear line."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there
from onnx import TensorProto, helper

from app.batching.isolation import run_isolated
from app.engines.base import EngineRequest, OpenVinoOptions
from app.engines.items import ItemEngine
from app.engines.loader import EngineTable
from app.engines.onnx.engine import BATCH, ONE_BY_ONE, GraphItem, OnnxEngine, guarded
from app.engines.onnx.graph import Stacking
from app.engines.onnx.loading import CPU, CUDA, choose_providers, load
from app.engines.onnx.tensors import DTYPES
from app.engines.python.runner import Answer
from app.engines.rows import RowsRefusedError
from app.errors import EngineError, InvalidRequestError, SourceError
from app.models.onnx_files import external_files


def request(folder: Path | None, **fields: Any) -> EngineRequest:
    return EngineRequest(name="test", task="python", engine="onnx", folder=folder, **fields)


def opened(tmp_path: Path, made: Any, **fields: Any) -> OnnxEngine:
    return load(request(graphs.save(made, tmp_path / "model.onnx"), **fields))


def prepared(engine: OnnxEngine, *items: Any) -> list[GraphItem]:
    encoded = engine.encode(items)
    for item in encoded:
        if isinstance(item, Exception):
            raise item
    return [item for item in encoded if isinstance(item, GraphItem)]


def answers(engine: OnnxEngine, *items: Any) -> list[Any]:
    """Answer items in one batch, as a scheduler would."""
    rows = run_isolated(engine.run, prepared(engine, *items))
    return [json.loads(row.content) if isinstance(row, Answer) else row for row in rows]


def refused(engine: OnnxEngine, item: Any) -> list[dict[str, Any]]:
    (error,) = engine.encode([item])
    assert isinstance(error, InvalidRequestError)
    errors: list[dict[str, Any]] = error.extensions["errors"]
    return errors


def reference(tmp_path: Path, feeds: Mapping[str, Any]) -> Sequence[Any]:
    """What the library itself answers."""
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    outputs: Sequence[Any] = session.run(None, dict(feeds))
    return outputs


def test_it_is_an_engine_of_items_that_the_catalogue_can_name(tmp_path: Path) -> None:
    source = graphs.save(graphs.linear(), tmp_path / "model.onnx")
    engine = EngineTable().load(request(source))
    assert isinstance(engine, ItemEngine)
    assert (engine.kind, engine.device, engine.problems()) == ("onnx", "cpu", [])


def test_many_items_together_are_answered_as_the_library_answers_each(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.linear())
    assert engine.graph.stacking is Stacking.STACKED
    assert engine.max_batch == BATCH
    rows = np.random.default_rng(5).standard_normal((200, 4)).astype(np.float32)
    together = answers(engine, *({"x": row.tolist()} for row in rows))
    (expected,) = reference(tmp_path, {"x": rows})
    np.testing.assert_allclose([a["y"] for a in together], expected, rtol=1e-5, atol=1e-6)
    for row, answer in zip(rows[:20], together, strict=False):
        (alone,) = reference(tmp_path, {"x": row[None]})
        np.testing.assert_allclose(answer["y"], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("element", sorted(set(DTYPES) - {"string", "bool"}))
def test_numbers_of_each_type_come_back_as_they_are(tmp_path: Path, element: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(DTYPES[element])
    engine = opened(tmp_path, graphs.identity(kind, [None, 3]))
    values: list[Any] = [0, 1, 2]
    if DTYPES[element].kind == "f":
        values = [0.5, -1.25, 3]
    else:
        limits = np.iinfo(DTYPES[element])
        values = [int(limits.min), 7, int(limits.max)]
    assert answers(engine, {"x": values}) == [{"y": values}]


def test_texts_and_booleans_come_back_as_they_are(tmp_path: Path) -> None:
    texts = ["", "Köln", "😀", "a\0b"]
    engine = opened(tmp_path, graphs.identity(TensorProto.STRING, [None]))
    assert answers(engine, *({"x": text} for text in texts)) == [{"y": text} for text in texts]
    engine = opened(tmp_path, graphs.identity(TensorProto.BOOL, [None, 2]))
    assert answers(engine, {"x": [True, False]}) == [{"y": [True, False]}]


@pytest.mark.parametrize("labels", [("no", "yes"), (3, 7)])
def test_a_classifier_with_zipmap_has_a_number_for_each_label(
    tmp_path: Path, labels: Sequence[Any]
) -> None:
    engine = opened(tmp_path, graphs.classifier(labels=labels))
    rows = np.random.default_rng(6).standard_normal((50, 2)).astype(np.float32)
    expected, maps = reference(tmp_path, {"x": rows})
    items = prepared(engine, *({"x": row.tolist()} for row in rows))
    for row, label, numbers in zip(engine.run(items), expected.tolist(), maps, strict=True):
        assert isinstance(row, Answer)
        answer = json.loads(row.content)
        assert answer["label"] == label
        assert answer["probabilities"] == pytest.approx({str(k): n for k, n in numbers.items()})
        assert row.label == str(label)
        assert row.score == pytest.approx(numbers[label])


def test_columns_of_a_table_are_single_values_or_lists_of_one(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.columns())
    items = [
        {"city": "Rome", "age": 1},
        {"city": ["Köln"], "age": [2.5]},
        {"city": "", "age": 0},
    ]
    assert answers(engine, *items) == [{"y": [11]}, {"y": [22.5]}, {"y": [-1]}]


def test_items_of_several_lengths_are_answered_in_order(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.pooled())
    random = np.random.default_rng(7)
    items = []
    for length in (3, 1, 3, 5, 1):
        ids, mask = random.integers(0, 10, length), random.standard_normal(length)
        items.append({"ids": ids.tolist(), "mask": mask.astype(np.float32).tolist()})
    together = answers(engine, *items)
    for item, answer in zip(items, together, strict=True):
        feeds = {"ids": np.array([item["ids"]]), "mask": np.array([item["mask"]], np.float32)}
        (expected,) = reference(tmp_path, feeds)
        np.testing.assert_allclose(answer["y"], expected[0], rtol=1e-5)
    assert [item.cost for item in prepared(engine, *items)] == [3, 1, 3, 5, 1]
    assert engine.estimate(items) > 5


def test_lengths_of_one_name_must_be_equal(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.pooled())
    (error,) = refused(engine, {"ids": [1, 2], "mask": [1.0]})
    assert error["loc"] == ["body", "mask"]
    assert error["msg"] == "tokens is 1 here, and 2 in ids"


def test_a_bad_item_fails_alone(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.pooled())
    items = [{"ids": [token], "mask": [1]} for token in (1, 99, 2)]
    first, bad, last = answers(engine, *items)
    assert (first, last) == ({"y": [3, 4, 5]}, {"y": [6, 7, 8]})
    assert isinstance(bad, Exception)


def test_a_fixed_batch_of_one_is_run_one_by_one_and_requests_do_without_it(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.linear(dims=(1, 4), out=(1, 2)))
    assert engine.graph.stacking is Stacking.ONE
    assert engine.max_batch == ONE_BY_ONE
    assert answers(engine, {"x": [1, 0, 0, 0]}, {"x": [0, 0, 1, 0]}) == [
        {"y": [1, -1]},
        {"y": [0, 1]},
    ]


def test_a_fixed_batch_of_more_is_an_item_as_it_is(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.linear(dims=(2, 4), out=(2, 2)))
    assert engine.graph.stacking is Stacking.WHOLE
    assert answers(engine, {"x": [[1, 0, 0, 0], [0, 0, 1, 0]]}) == [{"y": [[1, -1], [0, 1]]}]


def test_a_graph_that_sums_over_its_first_dimension_is_called_as_it_is(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.summed())
    assert engine.graph.stacking is Stacking.WHOLE
    assert answers(engine, {"x": [[1, 2], [3, 4]], "factor": 2}) == [{"y": 20}]


def test_a_graph_that_averages_all_rows_into_one_is_called_as_it_is(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.averaged())
    assert engine.graph.stacking is Stacking.WHOLE
    assert answers(engine, {"x": [[1, 2], [3, 6]]}) == [{"y": [[2, 4]]}]


def test_maps_of_a_graph_that_is_called_as_it_is_are_a_list(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    engine = opened(tmp_path, made)
    (answer,) = answers(engine, {"x": [[1, 2], [-1, -2]]})
    assert answer["label"] == ["yes", "no"]
    assert [set(one) for one in answer["probabilities"]] == [{"no", "yes"}] * 2
    assert Draft202012Validator(engine.facts.answer_schema).is_valid(answer)


@pytest.mark.parametrize("made", [graphs.for_one_only(), graphs.of_the_largest(), graphs.running()])
def test_items_that_would_change_each_others_answers_are_run_one_by_one(
    tmp_path: Path, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(tmp_path, made)
    assert engine.graph.stacking is Stacking.ONE
    assert caplog.messages == ["onnx_not_stacked"]
    shape = [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim][1:]
    rows = [np.full(shape, value, np.float32) for value in (1, 100)]
    for row, answer in zip(
        rows, answers(engine, *({"x": row.tolist()} for row in rows)), strict=True
    ):
        (alone,) = reference(tmp_path, {"x": row[None]})
        np.testing.assert_allclose(answer["y"], alone[0])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x": [1, 2, 3]}, "lists of the shape (4,) are needed"),
        ({"x": [[1, 2, 3, 4]]}, "these have the shape (1, 4)"),
        ({"x": [1, [2], 3, 4]}, "of one length at each level"),
        ({"x": [1, 2, 3, "4"]}, "the values must be numbers"),
        ({"x": [1, 2, 3, True]}, "the values must be numbers"),
        ({"x": [1, 2, 3, None]}, "the values must be numbers"),
        ({"x": [1, 2, 3, {}]}, "the values must be numbers"),
        ({"x": [1, 2, 3, 1e39]}, "too large for float"),
        ({"x": [1, 2, 3, 10**400]}, "too large for float"),
        ({"x": 1}, "shape"),
        ({"x": {}}, "shape"),
        ({"x": []}, "shape"),
    ],
)
def test_values_of_another_shape_or_type_are_refused_without_being_repeated(
    tmp_path: Path, value: Any, said: str
) -> None:
    (error,) = refused(opened(tmp_path, graphs.linear()), value)
    assert error["loc"] == ["body", "x"]
    assert said in error["msg"]


def test_integers_are_whole_and_in_the_range_of_their_type(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.identity(TensorProto.UINT8, [None]))
    for value in (-1, 256, 10**30):
        assert "too large or too small for uint8" in refused(engine, {"x": value})[0]["msg"]
    assert "must be integers" in refused(engine, {"x": 1.0})[0]["msg"]
    assert "one value is needed" in refused(engine, {"x": [1]})[0]["msg"]


def test_inputs_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.columns())
    errors = refused(engine, {"city": "Rome", "Age": 3})
    assert [(error["loc"], error["type"]) for error in errors] == [
        (["body", "age"], "missing"),
        (["body", "Age"], "extra_forbidden"),
    ]
    assert refused(engine, [1])[0]["type"] == "model_type"


@pytest.mark.parametrize(
    ("made", "good", "bad"),
    [
        (graphs.linear(), {"x": [1, 2, 3, 4]}, {"x": [1, 2, 3]}),
        (graphs.columns(), {"city": "Rome", "age": [3]}, {"city": 1, "age": 3}),
        (graphs.classifier(), {"x": [1, 2]}, {"x": ["1", "2"]}),
        (graphs.pooled(), {"ids": [1], "mask": [1.5]}, {"ids": [], "mask": []}),
        (graphs.summed(), {"x": [[1, 2]], "factor": 2}, {"x": [[1]], "factor": 2}),
        (graphs.identity(TensorProto.INT8, [None]), {"x": 127}, {"x": 128}),
    ],
)
def test_the_schema_accepts_what_the_engine_accepts(
    tmp_path: Path, made: Any, good: Any, bad: Any
) -> None:
    engine = opened(tmp_path, made)
    item, answer = (
        Draft202012Validator(schema)
        for schema in (engine.facts.item_schema, engine.facts.answer_schema)
    )
    assert item.is_valid(good)
    assert all(answer.is_valid(one) for one in answers(engine, good))
    assert not item.is_valid(bad)
    assert refused(engine, bad)


def test_nan_and_infinity_are_an_error_of_their_item_alone(tmp_path: Path) -> None:
    engine = opened(tmp_path, graphs.logarithm())
    one, nan, infinite = answers(engine, {"x": 1}, {"x": -1}, {"x": 0})
    assert one == {"y": 0}
    for error in (nan, infinite):
        assert isinstance(error, RowsRefusedError)
        assert str(error) == "the output y holds NaN or infinity, which JSON doesn't have"


def test_a_lack_of_memory_has_smaller_batches_tried() -> None:
    def call(_: Mapping[str, Any]) -> Sequence[Any]:
        raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 9")

    with pytest.raises(MemoryError):
        guarded(call, {})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (TensorProto.BFLOAT16, r"model\.onnx: the input x is tensor\(bfloat16\)"),
        (TensorProto.COMPLEX64, r"can't open model\.onnx: .*complex64"),  # the library's own words
    ],
)
def test_types_without_a_form_in_json_are_refused_by_name(
    tmp_path: Path, kind: int, said: str
) -> None:
    with pytest.raises(EngineError, match=said):
        opened(tmp_path, graphs.identity(kind, [None, 2]))


def test_a_sequence_of_tensors_is_refused_by_name(tmp_path: Path) -> None:
    node = helper.make_node("SplitToSequence", ["x"], ["parts"])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(graphs.FLOAT, None))
    made = graphs.model(
        [node],
        [graphs.tensor("x", graphs.FLOAT, [None, 2])],
        [helper.make_value_info("parts", kind)],
    )
    with pytest.raises(EngineError, match=r"the output parts is seq\(tensor\(float\)\)"):
        opened(tmp_path, made)


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08 no graph")
    with pytest.raises(EngineError, match=r"ONNX Runtime can't open model\.onnx: "):
        load(request(path))


def test_an_operator_that_the_library_lacks_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], domain="com.example")
    made = graphs.model(
        [node],
        [graphs.tensor("x", graphs.FLOAT, [None])],
        [graphs.tensor("y", graphs.FLOAT, [None])],
    )
    made.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(EngineError, match=r"can't open model\.onnx: .*com\.example:Mystery"):
        opened(tmp_path, made)


def test_a_folder_is_served_by_its_one_graph(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    graphs.save(graphs.linear(), tmp_path / "onnx" / "model.onnx")
    assert answers(load(request(tmp_path)), {"x": [1, 0, 0, 0]}) == [{"y": [1, -1]}]
    graphs.save(graphs.linear(), tmp_path / "other.onnx")
    with pytest.raises(SourceError, match=r"several graphs \(onnx/model\.onnx, other\.onnx\)"):
        load(request(tmp_path))


@pytest.mark.parametrize("name", [None, "empty", "model.txt"])
def test_a_source_without_a_graph_is_refused(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.txt").touch()
    with pytest.raises(SourceError, match=r"no source|has no \.onnx file|is no \.onnx file"):
        load(request(tmp_path / name if name else None))


def test_weights_in_another_file_are_read_from_beside_the_graph(tmp_path: Path) -> None:
    graphs.save_external(graphs.linear(), tmp_path / "model.onnx", location="model.onnx.data")
    assert (tmp_path / "model.onnx.data").stat().st_size
    assert answers(load(request(tmp_path)), {"x": [1, 0, 0, 0]}) == [{"y": [1, -1]}]


def test_without_the_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = graphs.save(graphs.linear(), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"pip install 'ml-api\[onnx\]'"):
        load(request(source))


def test_a_gpu_that_this_library_cannot_use_is_no_gpu(tmp_path: Path) -> None:
    wanted = replace(request(tmp_path), device="cuda:1", is_own_device=True)
    with pytest.raises(EngineError, match="install onnxruntime-gpu"):
        choose_providers(wanted, [CPU], gpus=2)
    assert choose_providers(wanted, [CUDA, CPU], gpus=2) == [(CUDA, {"device_id": 1}), CPU]
    for available in ([CPU], [CUDA, CPU]):
        with pytest.raises(EngineError, match=r'^device = "cuda:1": there are auto, cpu, cuda:0$'):
            choose_providers(wanted, available, gpus=1)
    with pytest.raises(EngineError, match=r'^device = "cuda:7": there are auto, cpu'):
        opened(tmp_path, graphs.linear(), device="cuda:7", is_own_device=True)


def test_calls_and_threads_are_those_of_the_settings(tmp_path: Path) -> None:
    options = OpenVinoOptions(cache=tmp_path, cores=4, calls=2)
    engine = opened(tmp_path, graphs.linear(), threads=2, openvino=options, labels=("a", "b"))
    assert (engine.workers, engine.labels) == (2, ("a", "b"))


def test_the_library_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = opened(tmp_path, graphs.pooled())
    answers(engine, {"ids": [99], "mask": [1]})
    assert capfd.readouterr() == ("", "")


def test_a_graph_without_inputs_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["w"], ["y"])
    made = graphs.model(
        [node], [], [graphs.tensor("y", graphs.FLOAT, [4, 2])], {"w": graphs.WEIGHTS}
    )
    with pytest.raises(EngineError, match="has no input"):
        opened(tmp_path, made)


def test_the_graphs_of_these_tests_are_valid() -> None:
    for made in (graphs.linear(), graphs.classifier(), graphs.columns(), graphs.pooled()):
        onnx.checker.check_model(made)


def test_weights_of_a_file_that_can_t_be_read_are_a_failure_of_its_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(str(tmp_path))):
        external_files(tmp_path)
