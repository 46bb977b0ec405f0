"""Chunks as LlamaIndex nodes, and cutting as a LlamaIndex transformation."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
    TransformComponent,
)

from app.documents.pages import Page, markdown_headings
from app.domain.chunk import Chunk
from app.text.chunking import cut


class Chunker(TransformComponent):
    """Does to any nodes what `cut` does to documents, taking each node's text as Markdown."""

    chunking: Any

    def __call__(self, nodes: list[BaseNode], **_: Any) -> list[BaseNode]:  # type: ignore[override]
        chunks: list[BaseNode] = []
        for node in nodes:
            text = node.get_content(MetadataMode.NONE)
            page = Page(None, text, tuple(markdown_headings(text)))
            chunks.extend(node_of(chunk) for chunk in cut(node.node_id, (page,), self.chunking))
        return chunks


def node_of(chunk: Chunk) -> TextNode:
    node = TextNode(
        id_=chunk.id,
        text=chunk.text,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        metadata=metadata_of(chunk),
        excluded_embed_metadata_keys=["document", "format", "page"] + ([] if chunk.heading else ["heading"]),
        # So that what LlamaIndex embeds is `Chunk.embed_text`.
        metadata_template="{value}",
        text_template="{metadata_str}\n{content}",
    )
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=chunk.document)
    return node


def metadata_of(chunk: Chunk) -> dict[str, Any]:
    return {
        "document": chunk.document,
        "format": PurePosixPath(chunk.document).suffix.lower().lstrip("."),
        "page": chunk.page,
        "heading": chunk.heading,
    }
