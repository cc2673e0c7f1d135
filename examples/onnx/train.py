from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# Made-up customers: who pays by the month and calls the hotline often, leaves.
random = np.random.default_rng(0)
plan = random.choice(["month", "year"], 500)
age, calls = random.integers(18, 90, 500), random.poisson(3, 500)
leaves = calls + 4 * (plan == "month") + random.normal(0, 1, 500) > 6

table = np.column_stack([plan.astype(object), age, calls])
columns = ColumnTransformer(
    [("plan", OneHotEncoder(handle_unknown="ignore"), [0]), ("numbers", StandardScaler(), [1, 2])]
)
model = make_pipeline(columns, LogisticRegression())
model.fit(table, np.where(leaves, "leaves", "stays"))

inputs = [
    ("plan", StringTensorType([None, 1])),
    ("age", FloatTensorType([None, 1])),
    ("calls", FloatTensorType([None, 1])),
]
graph = to_onnx(model, initial_types=inputs)
Path(__file__).with_name("churn.onnx").write_bytes(graph.SerializeToString())
