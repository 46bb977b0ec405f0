"""Answers over HTTP, literally: renaming a field of the program or of an index changes none of them."""

from __future__ import annotations

from itertools import repeat

import orjson

from app.domain.document import Document, DocumentStatus
from app.domain.index import Health, HealthStatus, IndexInfo
from app.http.schemas import DocumentsResponse, HealthResponse, encode_documents

LEAVE = Document("policies/leave.pdf", "0a", 1, 2, 3, DocumentStatus.INDEXED, None)
SCAN = Document('congés \a"日本', None, 0, None, 0, DocumentStatus.NEEDS_OCR, "no text")


def test_the_list_of_documents_has_these_fields() -> None:
    assert encode_documents("20261120T101500Z-5f3a9c", iter([LEAVE, SCAN])) == (
        b'{"index":"20261120T101500Z-5f3a9c","documents":[{"name":"policies/leave.pdf","sha256":"0a","size":1,'
        b'"pages":2,"chunks":3,"status":"indexed","problem":null},{"name":"cong\xc3\xa9s \\u0007\\"'
        b'\xe6\x97\xa5\xe6\x9c\xac","sha256":null,"size":0,"pages":null,"chunks":0,"status":"needs_ocr",'
        b'"problem":"no text"}]}'
    )


def test_the_list_of_documents_follows_its_schema() -> None:
    """It is encoded without the schema's models, so this holds for any number and any status."""
    for count in (0, 1, 499, 500, 501, 1200):
        body = encode_documents("a", repeat(LEAVE, count))
        parsed = DocumentsResponse.model_validate_json(body, strict=True)
        assert len(parsed.documents) == count
        assert orjson.loads(body) == parsed.model_dump(mode="json")
    for status in DocumentStatus:
        body = encode_documents("a", [LEAVE._replace(status=status)])
        assert DocumentsResponse.model_validate_json(body).documents[0].status is status


def test_readiness_has_these_fields() -> None:
    ready = Health(HealthStatus.OK, IndexInfo("a", 1, 2, "2026-11-20T10:15:00+00:00", "model"))
    assert HealthResponse.of(ready).model_dump_json(exclude_none=True) == (
        '{"status":"ok","index_ready":true,"index":{"id":"a","documents":1,"chunks":2,'
        '"built_at":"2026-11-20T10:15:00+00:00","embedding_model":"model"}}'
    )
    building = HealthResponse.of(Health(HealthStatus.BUILDING, detail="the first index is being built"))
    assert building.model_dump_json(exclude_none=True) == (
        '{"status":"building","index_ready":false,"detail":"the first index is being built"}'
    )
