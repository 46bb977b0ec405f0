"""The model provider: OpenAI, or any server that speaks its API, over one client."""
