"""The examples for scikit-learn and torch, as this service and its peers serve them."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.venvs import HERE

EXAMPLES: Final = HERE.parent / "examples"
PEERS: Final = HERE / "contestants" / "any_model"
IRISES: Final = ([5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5], [5.7, 2.8, 4.1, 1.3])
FLATS: Final = tuple(
    {"square_metres": metres, "rooms": rooms, "district": district, "has_lift": has_lift}
    for metres, rooms, district, has_lift in (
        (80.0, 3, "centre", False),
        (45.5, 2, "north", True),
        (120.0, 5, "south", True),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One way to serve an example; `{...}` in its command is filled in when it starts.

    Args:
        name: in the table.
        files: of the user's, whose lines are counted.
        command: that starts it, in the folder of the first file.
        path: of the route.
        venv: its environment; None: this service's own.
        package: whose version is shown.
        env: besides what every contestant gets.
        dialect: how a request wraps an item, and an answer the answer to it.

    """

    name: str
    files: Sequence[Path]
    command: Sequence[str]
    path: str
    venv: str | None = None
    package: str = "ml-api"
    env: Mapping[str, str] = field(default_factory=dict)
    dialect: str = "plain"

    def body(self, item: str) -> bytes:
        """Return the body of a request for an item, given as JSON."""
        value = json.loads(item)
        if self.dialect == "items":
            value = {"items": [value]}
        elif self.dialect == "inference":
            value = {"inputs": _inputs(value)}
        return json.dumps(value).encode()

    def answer(self, content: Any) -> Any:  # noqa: ANN401  # parsed JSON
        """Return the answer to the item."""
        if self.dialect == "items":
            return content[0]
        if self.dialect == "inference":
            (output,) = content["outputs"]
            return output["data"][0] if output["name"] == "answer" else {"euros": output["data"][0]}
        return content


def servers_of(example: str) -> tuple[Server, ...]:
    """Return all ways to serve an example, this service's first."""
    folder, name = PEERS / example, {"sklearn": "iris", "torch": "prices"}[example]
    own = (EXAMPLES / example / "model.py", EXAMPLES / example / "models.toml")
    return (
        *(
            Server(
                name=f"this service, {isolation}",
                files=own,
                command=("{bin}/app", "serve", "--host", "127.0.0.1", "--port", "{port}"),
                path=f"/predict/{name}",
                env={
                    "MODELS_FILE": f"{{work}}/{example}-{isolation}/models.toml",
                    "DATA_DIR": f"{{work}}/{example}-{isolation}/data",
                    "DEVICE": "cpu",
                    "LOG_LEVEL": "warning",
                    "LIMITS": "off",
                    "JOBS": "off",  # no Valkey and no worker beside it: the peers have none
                },
            )
            for isolation in ("thread", "process")
        ),
        Server(
            name="LitServe",
            files=(folder / "litserve_app.py",),
            command=("{bin}/python", "litserve_app.py", "{port}"),
            path="/predict",
            venv="litserve",
            package="litserve",
        ),
        Server(
            name="BentoML",
            files=(folder / "bentoml_service.py",),
            command=(
                *("{bin}/bentoml", "serve", "bentoml_service:Model"),
                *("--host", "127.0.0.1", "--port", "{port}"),
            ),
            path="/predict",
            venv="bentoml",
            package="bentoml",
            env={"BENTOML_HOME": "{work}/bentoml", "BENTOML_DO_NOT_TRACK": "True"},
            dialect="items",
        ),
        Server(
            name="MLServer",
            files=(folder / "mlserver_runtime.py", folder / "model-settings.json"),
            command=("{bin}/mlserver", "start", "."),
            path="/v2/models/model/infer",
            venv="mlserver",
            package="mlserver",
            env={
                "MLSERVER_HTTP_PORT": "{port}",
                "MLSERVER_GRPC_PORT": "{port2}",
                "MLSERVER_METRICS_PORT": "{port3}",
            },
            dialect="inference",
        ),
    )


def items_of(example: str) -> list[str]:
    """Return what is asked for, as JSON."""
    return [json.dumps(item) for item in (IRISES if example == "sklearn" else FLATS)]


def write_entry(work: Path, example: str, isolation: str) -> None:
    """Write the example's folder with the isolation that is said."""
    folder = work / f"{example}-{isolation}"
    folder.mkdir(parents=True, exist_ok=True)
    entry = (EXAMPLES / example / "models.toml").read_text(encoding="utf-8")
    models = f'{entry}isolation = "{isolation}"\n'
    (folder / "models.toml").write_text(models, encoding="utf-8")
    code = (EXAMPLES / example / "model.py").read_text(encoding="utf-8")
    (folder / "model.py").write_text(code, encoding="utf-8")


def lines_of(file: Path) -> int:
    """Return how many lines a user wrote: without empty ones, comments and the docstring."""
    text = file.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines()]
    if file.suffix == ".py":
        first = ast.parse(text).body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            assert first.end_lineno is not None  # noqa: S101  # of parsed code
            lines[: first.end_lineno] = []
    return sum(bool(line) and not line.startswith("#") for line in lines)


def _inputs(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # parsed JSON
    """Return an item as tensors of the Open Inference Protocol."""
    if isinstance(value, list):
        return [_tensor("items", "FP64", value, [1, len(value)])]
    kinds = {float: "FP64", int: "INT64", bool: "BOOL", str: "BYTES"}
    return [_tensor(name, kinds[type(one)], [one], [1, 1]) for name, one in value.items()]


def _tensor(name: str, kind: str, data: Sequence[Any], shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": data}
