"""How a model is converted to OpenVINO, compared with torch and served, without torch, on a CPU."""
