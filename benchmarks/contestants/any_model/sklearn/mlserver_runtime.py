"""examples/sklearn for MLServer, with a runtime of its own; its batching is in its settings."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse
from sklearn import datasets, neighbors


class Model(MLModel):
    async def load(self):
        self.data = datasets.load_iris()
        self.model = neighbors.KNeighborsClassifier().fit(self.data.data, self.data.target)
        return True

    async def predict(self, payload):
        found = self.data.target_names[
            self.model.predict(NumpyCodec.decode_input(payload.inputs[0]))
        ]
        output = StringCodec.encode_output("answer", found.tolist())
        return InferenceResponse(model_name=self.name, outputs=[output])
