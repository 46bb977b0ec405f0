# Two stages: the first downloads, the second has only what runs. A digest pins more than a
# version: docker build --build-arg BASE=python@sha256:...
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE} AS build
WORKDIR /service
COPY requirements.lock .
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.lock

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home service \
    && mkdir -p /service/documents /service/index_storage \
    && chown service /service/index_storage
WORKDIR /service
COPY --from=build /service/.venv .venv
COPY pyproject.toml pyproject.toml
COPY README.md README.md
COPY LICENSE LICENSE
COPY app app
COPY scripts/reindex.py scripts/reindex.py
COPY scripts/migrate_index.py scripts/migrate_index.py
COPY scripts/doctor.py scripts/doctor.py
# The command rag-service, for what is in this folder: a small layer above that of the dependencies. Compiled here:
# nothing can be written where the root is read-only.
RUN .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-index --no-build-isolation --editable . \
    && .venv/bin/python -m compileall -q app scripts
ENV PATH=/service/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000
# By number: Kubernetes cannot tell that a name is not root's.
USER 10001
VOLUME ["/service/documents", "/service/index_storage"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=2)"]
# uvicorn, with the settings from the environment
CMD ["python", "-m", "app"]
