"""examples/torch for BentoML, its batching on."""

from typing import Literal

import bentoml
import torch
from pydantic import BaseModel

DISTRICTS = ("centre", "north", "south")


class Flat(BaseModel):
    square_metres: float
    rooms: int
    district: Literal["centre", "north", "south"]
    has_lift: bool = False


class Price(BaseModel):
    euros: int


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Model:
    def __init__(self):
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        )
        self.train()

    def features(self, flats):
        rows = [
            [f.square_metres / 100, f.rooms / 5, f.has_lift, *(f.district == d for d in DISTRICTS)]
            for f in flats
        ]
        return torch.tensor(rows, dtype=torch.float32)

    def train(self):
        made_up = [
            Flat(
                square_metres=10.0 + n,
                rooms=1 + n // 40,
                district=DISTRICTS[n % 3],
                has_lift=n % 2 == 0,
            )
            for n in range(150)
        ]
        prices = [(4 + 2 * (f.district == "centre")) * f.square_metres / 100 for f in made_up]
        features, target = self.features(made_up), torch.tensor(prices)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.network(features)[:, 0], target).backward()
            optimizer.step()

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, items: list[Flat]) -> list[Price]:
        with torch.inference_mode():
            prices = self.network(self.features(items))[:, 0]
        return [Price(euros=round(price * 100_000)) for price in prices.tolist()]
