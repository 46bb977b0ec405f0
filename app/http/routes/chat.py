"""The routes of the OpenAI API, which make the service a model."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response

from app.domain.errors import ModelNotFound
from app.http.openai_completions import ChunkEncoder, encode_completion
from app.http.openai_schemas import MODEL_ID, ChatCompletion, ChatRequest, ModelInfo, ModelList
from app.http.routes.dependencies import EngineDep, StreamTimesDep, openai_errors
from app.http.sse import EventStream

router = APIRouter(prefix="/v1", tags=["openai"], responses=openai_errors(401, 500))

# The time of the one model, which is as old as the process.
_CREATED = int(time.time())


@router.get("/models", summary="List the models: there is one")
async def models() -> ModelList:
    """The one model is the service."""
    return ModelList(data=[ModelInfo(created=_CREATED)])


@router.get("/models/{model}", summary="Describe a model", responses=openai_errors(404))
async def model(model: str) -> ModelInfo:
    """The one model is as old as the process."""
    _check_model(model)
    return ModelInfo(created=_CREATED)


@router.post(
    "/chat/completions",
    summary="Answer a chat's last question",
    response_model=ChatCompletion,
    responses={
        200: {"description": "The answer, or its chunks", "content": {EventStream.media_type: {}}},
        **openai_errors(400, 404, 413, 429, 502, 503, 504),
    },
)
async def chat_completions(request: ChatRequest, engine: EngineDep, times: StreamTimesDep) -> Response:
    """The last user message is the question; a model, where one is set, sees it with what came before."""
    _check_model(request.model)
    query = request.to_domain()
    if request.stream:
        return await EventStream.begin(
            engine.stream(query), ChunkEncoder(includes_usage=request.includes_usage), times
        )
    return Response(encode_completion(await engine.answer(query)), media_type="application/json")


def _check_model(name: str) -> None:
    if name != MODEL_ID:
        raise ModelNotFound(f"the model {name!r} does not exist; this service has one: {MODEL_ID!r}")
