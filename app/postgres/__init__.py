"""Indexes in PostgreSQL with pgvector: what is stored there, and how it is searched."""
