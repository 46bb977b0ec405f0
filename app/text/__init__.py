"""Chunking, tokens and BM25 weights."""
