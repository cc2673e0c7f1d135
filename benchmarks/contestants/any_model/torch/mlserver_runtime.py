"""examples/torch for MLServer, with a runtime of its own; its batching is in its settings."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse

DISTRICTS = ("centre", "north", "south")


@dataclass
class Flat:
    square_metres: float
    rooms: int
    district: Literal["centre", "north", "south"]
    has_lift: bool = False


class Model(MLModel):
    async def load(self):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        )
        self.train()
        return True

    def features(self, flats):
        rows = [
            [f.square_metres / 100, f.rooms / 5, f.has_lift, *(f.district == d for d in DISTRICTS)]
            for f in flats
        ]
        return torch.tensor(rows, dtype=torch.float32)

    def train(self):
        made_up = [Flat(10.0 + n, 1 + n // 40, DISTRICTS[n % 3], n % 2 == 0) for n in range(150)]
        prices = [(4 + 2 * (f.district == "centre")) * f.square_metres / 100 for f in made_up]
        features, target = self.features(made_up), torch.tensor(prices)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.network(features)[:, 0], target).backward()
            optimizer.step()

    def flats(self, inputs):
        columns = {one.name: one for one in inputs}
        metres = NumpyCodec.decode_input(columns["square_metres"]).reshape(-1)
        rooms = NumpyCodec.decode_input(columns["rooms"]).reshape(-1)
        lifts = NumpyCodec.decode_input(columns["has_lift"]).reshape(-1)
        districts = StringCodec.decode_input(columns["district"])
        return [Flat(*row) for row in zip(metres, rooms, districts, lifts, strict=True)]

    async def predict(self, payload):
        with torch.inference_mode():
            prices = self.network(self.features(self.flats(payload.inputs)))[:, 0]
        euros = np.array([[round(price * 100_000)] for price in prices.tolist()])
        output = NumpyCodec.encode_output("euros", euros)
        return InferenceResponse(model_name=self.name, outputs=[output])
