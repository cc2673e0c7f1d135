from dataclasses import dataclass
from typing import Literal

import torch

DISTRICTS = ("centre", "north", "south")


@dataclass
class Flat:
    square_metres: float
    rooms: int
    district: Literal["centre", "north", "south"]
    has_lift: bool = False


@dataclass
class Price:
    euros: int


class Prices:
    def load(self, device):
        torch.manual_seed(0)
        self.device = device
        self.network = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        ).to(device)
        self.train()  # yours: load_file(Path(__file__).with_name("prices.safetensors"))

    def features(self, flats):
        rows = [
            [f.square_metres / 100, f.rooms / 5, f.has_lift, *(f.district == d for d in DISTRICTS)]
            for f in flats
        ]
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def train(self):
        made_up = [Flat(10.0 + n, 1 + n // 40, DISTRICTS[n % 3], n % 2 == 0) for n in range(150)]
        prices = [(4 + 2 * (f.district == "centre")) * f.square_metres / 100 for f in made_up]
        features, target = self.features(made_up), torch.tensor(prices, device=self.device)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.network(features)[:, 0], target).backward()
            optimizer.step()

    def predict(self, items: list[Flat]) -> list[Price]:
        with torch.inference_mode():
            prices = self.network(self.features(items))[:, 0]
        return [Price(euros=round(price * 100_000)) for price in prices.tolist()]
