"""LlamaIndex's nodes as the engine keeps them, and back."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode

from app.domain.chunk import text_hash


def payload_of(node: BaseNode) -> dict[str, Any]:
    return {
        "id": node.node_id,
        "text": node.get_content(MetadataMode.NONE),
        "ref_doc_id": node.ref_doc_id,
        "start": getattr(node, "start_char_idx", None),
        "end": getattr(node, "end_char_idx", None),
        "metadata": node.metadata,
        "text_hash": text_hash(node.get_content(MetadataMode.EMBED)),
        "occurrence": 1,
    }


def node_of(payload: dict[str, Any]) -> TextNode:
    node = TextNode(
        id_=payload["id"],
        text=payload["text"],
        start_char_idx=payload["start"],
        end_char_idx=payload["end"],
        metadata=payload["metadata"],
    )
    if payload["ref_doc_id"] is not None:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=payload["ref_doc_id"])
    return node
