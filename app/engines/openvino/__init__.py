"""How a model is converted to OpenVINO, held against torch and served, without torch, on a CPU."""
