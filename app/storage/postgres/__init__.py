"""Indexes in PostgreSQL with pgvector: a generation is a table of its own."""
