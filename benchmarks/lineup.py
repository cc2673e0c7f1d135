"""Who takes part: how each contestant is started and asked, and the settings that it gets.

The numbers of workers, threads and texts a batch are what a careful user would begin with on two
cores; `run.py --tune` found them to be the best of `trials` at 64 connections.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FLOAT32 = "torch float32"
OPENVINO = "OpenVINO"
# A bf16 score may differ by this much; a float32 one only by rounding.
TOLERANCE = {FLOAT32: 1e-3, OPENVINO: 0.02}
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a careful user would tune."""

    workers: int
    threads: int
    batch: int = 8


def _plain_body(text: str) -> bytes:
    return json.dumps({"text": text}).encode()


def _plain_answer(answer: Any) -> tuple[str, float]:  # noqa: ANN401
    return answer["label"], answer["score"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How something is started; `{...}` in commands and settings is filled in when it starts."""

    name: str
    title: str
    command: Sequence[str]
    sizes: Sizes
    venv: str | None = None  # None: the service's own
    package: str = "fastapi"  # whose version is shown
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = "/predict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant(Peer):
    """One row of the table."""

    engine: str
    trials: Sequence[Sizes] = ()
    body: Callable[[str], bytes] = _plain_body
    answer: Callable[[Any], tuple[str, float]] = _plain_answer


def environment(contestant: Peer, sizes: Sizes, **filled: str) -> dict[str, str]:
    """Return a contestant's environment: nothing of the person's who runs this, and no network."""
    return {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(sizes.threads),
        "PYTHONUNBUFFERED": "1",
        "BENCH_WORKERS": str(sizes.workers),
        "BENCH_THREADS": str(sizes.threads),
        "BENCH_BATCH": str(sizes.batch),
        "BENCH_PORT": filled["port"],
        "BENCH_MODEL": filled["model"],
        "BENCH_IR": filled["ir"],
        **{name: value.format(**filled) for name, value in contestant.env.items()},
    }


def _ours(name: str, title: str, engine: str, models: str) -> Contestant:
    """Return this service, with as many inference threads as it chooses itself."""
    return Contestant(
        name=name,
        title=title,
        engine=engine,
        command=("{bin}/app", "serve", "--host", "127.0.0.1", "--port", "{port}"),
        sizes=Sizes(workers=1, threads=1),
        package="ml-api",
        env={
            "MODELS_FILE": f"{{work}}/{models}.toml",
            "DATA_DIR": f"{{work}}/data-{models}",
            "LOG_LEVEL": "warning",
            "LIMITS": "off",
            "JOBS": "off",  # no Valkey and no worker beside it: the peers have none
        },
    )


def _mlserver_body(text: str) -> bytes:
    given = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [given]}).encode()


def _mlserver_answer(answer: Any) -> tuple[str, float]:  # noqa: ANN401
    outputs = {output["name"]: output["data"][0] for output in answer["outputs"]}
    return outputs["label"], outputs["score"]


# Takes no part: it converts the graph that peers can use.
PADDED_SERVICE = _ours("padded", "this service, padded", OPENVINO, "padded")
SPLITS = (Sizes(workers=1, threads=2), Sizes(workers=2, threads=1), Sizes(workers=2, threads=2))
LINEUP = (
    _ours("auto", "this service, `auto`", OPENVINO, "auto"),
    _ours("torch", "this service, torch", FLOAT32, "torch"),
    Contestant(
        name="article",
        title="FastAPI, run_in_executor (the article)",
        engine=FLOAT32,
        command=(
            *("{bin}/uvicorn", "article:app", "--host", "127.0.0.1", "--port", "{port}"),
            *("--no-access-log", "--log-level", "warning"),
        ),
        sizes=Sizes(workers=1, threads=2),
        trials=(Sizes(workers=1, threads=1), Sizes(workers=1, threads=2)),
    ),
    Contestant(
        name="flask",
        title="Flask, gunicorn",
        engine=FLOAT32,
        venv="flask",
        package="flask",
        command=(
            *("{bin}/gunicorn", "flask_app:app", "--bind", "127.0.0.1:{port}"),
            *("--worker-class", "gthread", "--workers", "{workers}", "--threads", "4"),
            *("--timeout", "120", "--log-level", "warning"),
        ),
        sizes=Sizes(workers=2, threads=1),
        trials=SPLITS,
    ),
    Contestant(
        name="litserve",
        title="LitServe",
        engine=FLOAT32,
        venv="litserve",
        package="litserve",
        command=("{bin}/python", "litserve_app.py"),
        sizes=Sizes(workers=2, threads=1),
        trials=(*SPLITS, Sizes(workers=2, threads=1, batch=32)),
    ),
    Contestant(
        name="bentoml",
        title="BentoML",
        engine=FLOAT32,
        venv="bentoml",
        package="bentoml",
        command=(
            *("{bin}/bentoml", "serve", "bentoml_service:Sentiment"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        env={
            "BENTOML_HOME": "{work}/bentoml",
            "BENTOML_DO_NOT_TRACK": "True",
        },
        sizes=Sizes(workers=2, threads=1),
        trials=(*SPLITS, Sizes(workers=2, threads=1, batch=32)),
        body=lambda text: json.dumps({"texts": [text]}).encode(),
        answer=lambda answer: _plain_answer(answer[0]),
    ),
    Contestant(
        name="ray",
        title="Ray Serve",
        engine=FLOAT32,
        venv="ray",
        package="ray",
        command=("{bin}/python", "ray_app.py"),
        env={"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
        sizes=Sizes(workers=2, threads=1),
        trials=(*SPLITS, Sizes(workers=2, threads=1, batch=32)),
    ),
    Contestant(
        name="mlserver",
        title="MLServer",
        engine=FLOAT32,
        venv="mlserver",
        package="mlserver",
        command=("{bin}/mlserver", "start", "mlserver_model"),
        env={
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{port2}",
            "MLSERVER_METRICS_PORT": "{port3}",
            "MLSERVER_MODEL_MAX_BATCH_SIZE": "{batch}",
        },
        sizes=Sizes(workers=0, threads=1),
        trials=(
            Sizes(workers=0, threads=1),
            Sizes(workers=0, threads=2),
            Sizes(workers=0, threads=2, batch=32),
        ),
        path="/v2/models/sentiment/infer",
        body=_mlserver_body,
        answer=_mlserver_answer,
    ),
    Contestant(
        name="litserve-openvino",
        title="LitServe on our OpenVINO file",
        engine=OPENVINO,
        venv="litserve",
        package="litserve",
        command=("{bin}/python", "litserve_openvino.py"),
        sizes=Sizes(workers=2, threads=2),
        trials=(*SPLITS, Sizes(workers=2, threads=1, batch=32)),
    ),
)
