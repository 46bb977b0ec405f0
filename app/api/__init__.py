"""The HTTP routes. Nothing here knows LlamaIndex."""
