"""A RAG service: documents in, answers out that cite their passages."""

__version__ = "0.1.0"
