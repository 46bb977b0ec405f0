"""Synthesizers, which make an answer from passages, each in a module of its own."""
