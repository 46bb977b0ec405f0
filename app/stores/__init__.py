"""Vector stores: LlamaIndex's contract over an engine that does dense and BM25 retrieval itself."""
