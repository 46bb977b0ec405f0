"""A fake of the model provider's API over HTTP, which also fails in every way that a test wants.

    with serving(FakeProvider()) as (provider, url):
        provider.reply = "It lasts 16 weeks [1]."                # what the chat model says
        provider.chat.latency_s = 0.2                            # how long it takes
        provider.embeddings.fault = faults.at_first(faults.reset)  # what goes wrong

`python -m tests.fake_provider --port 9000` serves it as a process of its own, for the benchmarks.

One module for each part:

- `answers` makes the answers where nothing is wrong, `vectors` the embeddings;
- `provider` has the endpoints, what a test sets and what it reads;
- `exchange` is one request with the means to answer it, `faults` are functions of it that compose;
- `server` speaks HTTP over a bare socket, because no web framework lets a handler reset a connection.

To add an endpoint, write the function that makes its answer in `answers`, and give `FakeProvider` a field
with an `Endpoint` of it. To add a fault, write a coroutine function that answers an exchange.
"""

from tests.fake_provider.answers import Answer, event
from tests.fake_provider.exchange import Exchange, Fault
from tests.fake_provider.provider import Endpoint, FakeProvider
from tests.fake_provider.server import serving
from tests.fake_provider.vectors import DIMENSIONS, embed

__all__ = [
    "DIMENSIONS",
    "Answer",
    "Endpoint",
    "Exchange",
    "FakeProvider",
    "Fault",
    "embed",
    "event",
    "serving",
]
