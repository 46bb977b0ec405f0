"""Text files in UTF-8 or in an older encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

_ENCODING_SAMPLE_BYTES = 1 << 18
# The encodings of Windows and the web before UTF-8. Without this list, texts are mistaken for those of DOS.
_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)


def read_text(path: Path) -> str:
    """Read a text file, guessing its encoding if it is not Unicode.

    Raises:
        UnicodeError: no encoding fits.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode(_guess_encoding(content), "replace")


def _guess_encoding(content: bytes) -> str:
    # It takes 0.04 s to import, in each reader process, and few documents are not UTF-8.
    from charset_normalizer import from_bytes  # noqa: PLC0415

    matches = from_bytes(content[:_ENCODING_SAMPLE_BYTES], cp_isolation=[*_ENCODINGS])
    # If several fit equally well, as with a short text, cp1252 wins, the most frequent one.
    ranked = [
        (match.chaos, -match.coherence, encoding != "cp1252", encoding)
        for match in matches
        for encoding in match.could_be_from_charset
    ]
    if not ranked:
        raise UnicodeError("no known encoding fits")
    return min(ranked)[-1]
