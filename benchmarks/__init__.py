"""Measurements, with the naive LlamaIndex service they compare with: `python -m benchmarks [name ...]`."""
