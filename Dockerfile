# Two stages: the first has pip and what it downloads, the second only what runs.
FROM python:3.11-slim-bookworm AS build
WORKDIR /service
COPY requirements.lock .
RUN python -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r requirements.lock

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home service \
    && mkdir -p /service/documents /service/index_storage \
    && chown service /service/index_storage
WORKDIR /service
COPY --from=build /service/.venv .venv
COPY app app
COPY scripts/reindex.py scripts/reindex.py
COPY scripts/migrate_index.py scripts/migrate_index.py
ENV PATH=/service/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000
USER service
VOLUME ["/service/documents", "/service/index_storage"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/live', timeout=2)"]
# uvicorn, with the settings from the environment
CMD ["python", "-m", "app"]
