"""`python -m benchmarks.naive_build FOLDER` builds the naive index of a folder, and prints its time.

The clock starts after the imports and the loading of the model, and stops when the index is on the disk.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from llama_index.core.node_parser import TokenTextSplitter

from app.embeddings.local import LocalEmbedding
from benchmarks.naive import NaiveIndex


def main() -> None:
    """Build the index, and print its number of chunks and its time as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunk-tokens", type=int, help="by default LlamaIndex's own default, 1,024")
    arguments = parser.parse_args()
    embedding = LocalEmbedding()
    embedding.embed(["A first text, for what is loaded with it."])
    size = arguments.chunk_tokens
    splitter = TokenTextSplitter(chunk_size=size, chunk_overlap=size // 10) if size else None
    with TemporaryDirectory(prefix="rag-benchmark-") as storage:
        started = time.perf_counter()
        index = NaiveIndex.of_documents(arguments.folder, embedding, splitter)
        index.save(Path(storage))
        seconds = time.perf_counter() - started
    print(json.dumps({"chunks": index.chunks, "seconds": seconds}))


if __name__ == "__main__":
    main()
