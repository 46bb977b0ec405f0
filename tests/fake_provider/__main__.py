"""Serve the fake provider as a process of its own: `python -m tests.fake_provider --port 9000`.

It embeds in 1,536 dimensions and answers after fixed times. Its own work hardly shows in what is measured
with it: 0.04 ms of processor time for an embedding and 0.02 ms for a completion.
"""

from __future__ import annotations

import argparse
from itertools import cycle, islice

import uvloop

from tests.fake_provider.provider import FakeProvider
from tests.fake_provider.server import listen
from tests.fake_provider.vectors import NearVectors

_WORDS = ("The ", "passages ", "say ", "so ", "[1]", ", ", "and ", "then ", "some ")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_provider", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--embedding-ms", type=float, default=0)
    parser.add_argument("--chat-ms", type=float, default=0, help="until the first token of a stream")
    parser.add_argument("--tokens", type=int, default=20, help="of an answer")
    parser.add_argument("--token-ms", type=float, default=0, help="from one token of a stream to the next")
    arguments = parser.parse_args()
    provider = FakeProvider(
        pieces=list(islice(cycle(_WORDS), arguments.tokens)),
        token_s=arguments.token_ms / 1000,
        vectors=NearVectors(),
        recording=False,
    )
    provider.embeddings.latency_s = arguments.embedding_ms / 1000
    provider.chat.latency_s = arguments.chat_ms / 1000
    uvloop.run(_serve(provider, arguments.port))


async def _serve(provider: FakeProvider, port: int) -> None:
    await (await listen(provider, port)).serve_forever()


if __name__ == "__main__":
    main()
