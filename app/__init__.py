"""A RAG service: documents in, answers out that cite their passages."""
