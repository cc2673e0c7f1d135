"""LitServe, batching on, on this service's own OpenVINO file: the server apart from the engine.

BENCH_WORKERS worker processes with BENCH_THREADS OpenVINO threads each. Pinning is off, since two
compiled models of one thread each would both be pinned to the same core.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from tokenizers import Tokenizer

# OpenVINO reports its use to Google Analytics when it is imported, unless it can't.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402

MODEL = Path(os.environ["BENCH_MODEL"])
IR = os.environ["BENCH_IR"]


class SentimentAPI(litserve.LitAPI):
    """Classifies batches of texts."""

    def setup(self, device: str) -> None:
        """Load the model in the worker process."""
        del device
        core = openvino.Core()
        config: dict[str, Any] = {
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": int(os.environ["BENCH_THREADS"]),
            "ENABLE_CPU_PINNING": False,
        }
        if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            config["INFERENCE_PRECISION_HINT"] = "bf16"
        self.compiled = core.compile_model(IR, "CPU", config)
        # A port in the file may have several names; it has one of these.
        self.names = [
            next(
                name
                for name in ("input_ids", "attention_mask", "token_type_ids")
                if name in port.names
            )
            for port in self.compiled.inputs
        ]
        self.request = self.compiled.create_infer_request()
        self.tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        described = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.tokenizer.enable_truncation(described["model_max_length"])
        self.tokenizer.enable_padding()
        found = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))["id2label"]
        self.labels = [found[str(index)] for index in range(len(found))]

    def decode_request(self, request: dict[str, Any]) -> str:
        """Take the text."""
        return str(request["text"])

    def batch(self, inputs: list[str]) -> list[str]:
        """Leave texts as they are; the tokeniser makes the arrays."""
        return inputs

    def predict(self, x: list[str]) -> list[tuple[str, float]]:
        """Return a label and its probability for each text."""
        encoded = self.tokenizer.encode_batch(x)
        arrays = {
            "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
            "token_type_ids": np.array([e.type_ids for e in encoded], dtype=np.int64),
        }
        given = {place: arrays[name] for place, name in enumerate(self.names)}
        logits = self.request.infer(given)[self.compiled.outputs[0]]
        exp = np.exp(logits - logits.max(-1, keepdims=True))
        scores = exp / exp.sum(-1, keepdims=True)
        return [(self.labels[row.argmax()], float(row.max())) for row in scores]

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """Give each text its own."""
        return output

    def encode_response(self, output: tuple[str, float]) -> dict[str, Any]:
        """Answer as the others do."""
        return {"label": output[0], "score": output[1]}


if __name__ == "__main__":
    api = SentimentAPI(max_batch_size=int(os.environ["BENCH_BATCH"]), batch_timeout=0.005)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"])
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
