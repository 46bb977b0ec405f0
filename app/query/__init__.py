"""Answering a question from an index: embedding it, retrieving passages, synthesizing an answer."""
