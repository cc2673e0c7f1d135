"""examples/sklearn for LitServe, its batching on."""

import sys

import litserve
from sklearn import datasets, neighbors


class Iris(litserve.LitAPI):
    def setup(self, device):
        self.data = datasets.load_iris()
        self.model = neighbors.KNeighborsClassifier().fit(self.data.data, self.data.target)

    def batch(self, inputs):
        return inputs

    def predict(self, x):
        return self.data.target_names[self.model.predict(x)].tolist()

    def unbatch(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Iris(max_batch_size=64, batch_timeout=0.005), workers_per_device=2)
    server.run(
        port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False
    )
