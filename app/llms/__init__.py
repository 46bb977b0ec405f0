"""Language models, as LlamaIndex LLMs."""
