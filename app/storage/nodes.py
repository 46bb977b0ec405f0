"""Chunks as LlamaIndex's nodes, and back; cutting as a LlamaIndex transformation."""

from __future__ import annotations

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
from app.domain.chunk import embed_text, text_hash
from app.storage.chunks import StoredChunk
from app.text.chunking import cut


class ChunkNode(TextNode):
    """A chunk of the service's own: what LlamaIndex embeds of it is what the service embeds.

    Templates would not do: `TextNode` strips what they give.

    Attributes:
        occurrence: see `Chunk`.
    """

    occurrence: int = 1

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serializes it by."""
        return "ChunkNode"

    def get_content(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> str:
        """Return the text, with the heading path above it where it is to be embedded."""
        if metadata_mode is MetadataMode.EMBED:
            return embed_text(self.metadata.get("heading"), self.text)
        return super().get_content(metadata_mode)


class Chunker(TransformComponent):
    """Does to any nodes what `cut` does to documents, taking each node's text as Markdown."""

    chunking: Any

    def __call__(self, nodes: list[BaseNode], **_: Any) -> list[BaseNode]:  # type: ignore[override]
        """Return the chunks of each node, whose id is taken for the document's name."""
        chunks: list[BaseNode] = []
        for node in nodes:
            text = node.get_content(MetadataMode.NONE)
            page = Page(None, text, tuple(markdown_headings(text)))
            cut_ones = cut(node.node_id, (page,), self.chunking)
            chunks.extend(node_of(StoredChunk.of(chunk)) for chunk in cut_ones)
        return chunks


def chunk_of(node: BaseNode) -> StoredChunk:
    """Return the stored form of a node; that of `node_of(chunk)` is the chunk itself."""
    return StoredChunk(
        id=node.node_id,
        ref_doc_id=node.ref_doc_id,
        text=node.get_content(MetadataMode.NONE),
        start=getattr(node, "start_char_idx", None),
        end=getattr(node, "end_char_idx", None),
        metadata=node.metadata,
        text_hash=text_hash(node.get_content(MetadataMode.EMBED)),
        occurrence=node.occurrence if isinstance(node, ChunkNode) else 1,
    )


def node_of(chunk: StoredChunk) -> TextNode:
    """Return a stored chunk as a node.

    It is a `ChunkNode` if the chunk was embedded as the service embeds, and else a `TextNode` with
    LlamaIndex's own templates: those that a node from elsewhere had are not stored, nor, in PostgreSQL, the
    order of its metadata.
    """
    fields: dict[str, Any] = {
        "id_": chunk.id,
        "text": chunk.text,
        "start_char_idx": chunk.start,
        "end_char_idx": chunk.end,
        "metadata": chunk.metadata,
    }
    if chunk.ref_doc_id is not None:
        fields["relationships"] = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk.ref_doc_id)}
    if text_hash(embed_text(chunk.metadata.get("heading"), chunk.text)) == chunk.text_hash:
        return ChunkNode(**fields, occurrence=chunk.occurrence)
    return TextNode(**fields)
