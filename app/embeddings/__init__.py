"""Embedding models, as LlamaIndex embeddings. Each is one module, so that only what is set gets imported."""
