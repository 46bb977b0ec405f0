"""Measurements of the service, and of a naive LlamaIndex service for comparison."""
