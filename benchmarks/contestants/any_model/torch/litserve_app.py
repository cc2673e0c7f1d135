"""examples/torch for LitServe, its batching on."""

import sys
from dataclasses import dataclass
from typing import Literal

import litserve
import torch

DISTRICTS = ("centre", "north", "south")


@dataclass
class Flat:
    square_metres: float
    rooms: int
    district: Literal["centre", "north", "south"]
    has_lift: bool = False


class Prices(litserve.LitAPI):
    def setup(self, device):
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
        made_up = [Flat(10.0 + n, 1 + n // 40, DISTRICTS[n % 3], n % 2 == 0) for n in range(150)]
        prices = [(4 + 2 * (f.district == "centre")) * f.square_metres / 100 for f in made_up]
        features, target = self.features(made_up), torch.tensor(prices)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(self.network(features)[:, 0], target).backward()
            optimizer.step()

    def decode_request(self, request):
        return Flat(**request)

    def batch(self, inputs):
        return inputs

    def predict(self, x):
        with torch.inference_mode():
            prices = self.network(self.features(x))[:, 0]
        return [{"euros": round(price * 100_000)} for price in prices.tolist()]

    def unbatch(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Prices(max_batch_size=64, batch_timeout=0.005), accelerator="cpu", workers_per_device=2
    )
    server.run(
        port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False
    )
