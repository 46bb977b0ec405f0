"""What the model provider's client raises, in our terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import openai

from app.errors import ModelTimeout, ModelUnavailable, RagError


@contextmanager
def provider_errors() -> Iterator[None]:
    """Turn the client's errors into ours. The provider's own text stays in `__cause__`, for the log only."""
    try:
        yield
    except openai.APITimeoutError as error:
        raise ModelTimeout("the model provider did not answer in time") from error
    except openai.APIStatusError as error:
        raise ModelUnavailable(f"the model provider answered with status {error.status_code}") from error
    except openai.APIConnectionError as error:
        raise ModelUnavailable("the model provider cannot be reached") from error
    except (openai.OpenAIError, JSONDecodeError) as error:
        raise ModelUnavailable("the model provider sent an answer that cannot be understood") from error
    except RagError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        # The client does not check what it parses: a JSON answer of another shape shows up as one of these.
        raise ModelUnavailable("the model provider sent an answer that cannot be understood") from error
