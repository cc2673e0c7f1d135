"""The Open Inference Protocol, version 2, over HTTP: `/v2/models/{name}/infer` and its kin."""
