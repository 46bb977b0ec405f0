"""Answer a question from an index: embed, retrieve, synthesize."""
