"""Finding documents and reading them as pages of text."""
