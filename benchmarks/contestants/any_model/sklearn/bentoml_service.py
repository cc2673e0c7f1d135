"""examples/sklearn for BentoML, its batching on."""

import bentoml
from sklearn import datasets, neighbors


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Model:
    def __init__(self):
        self.data = datasets.load_iris()
        self.model = neighbors.KNeighborsClassifier().fit(self.data.data, self.data.target)

    @bentoml.api(batchable=True, max_batch_size=64)
    def predict(self, items: list[tuple[float, float, float, float]]) -> list[str]:
        return self.data.target_names[self.model.predict(items)].tolist()
