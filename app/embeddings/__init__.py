"""Embedding models as LlamaIndex embeddings, one per module, so that only the configured one is imported."""
