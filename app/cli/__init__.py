"""The commands of `rag-service`."""
