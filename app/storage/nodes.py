"""LlamaIndex's nodes as the engine keeps them, and back."""

from __future__ import annotations

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode

from app.domain.chunk import text_hash
from app.storage.chunks import StoredChunk


def chunk_of(node: BaseNode) -> StoredChunk:
    """Return the stored form of a node."""
    return StoredChunk(
        id=node.node_id,
        ref_doc_id=node.ref_doc_id,
        text=node.get_content(MetadataMode.NONE),
        start=getattr(node, "start_char_idx", None),
        end=getattr(node, "end_char_idx", None),
        metadata=node.metadata,
        text_hash=text_hash(node.get_content(MetadataMode.EMBED)),
        occurrence=1,
    )


def node_of(chunk: StoredChunk) -> TextNode:
    """Return a stored chunk as a node."""
    node = TextNode(
        id_=chunk.id,
        text=chunk.text,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        metadata=chunk.metadata,
    )
    if chunk.ref_doc_id is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=chunk.ref_doc_id)
    return node
