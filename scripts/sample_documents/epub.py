"""EPUB 3 builder: a handful of small XML files, not worth a library."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import NAMESPACE_URL, uuid5
from xml.sax.saxutils import escape

from .markup import DECLARATION, bullet_runs, element
from .packaging import pack
from .source import COMPANY, Block, Source

_CONTAINER = (
    '<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/>'
    "</rootfiles></container>"
)


def build(source: Source) -> bytes:
    """Make one chapter per source page. The id comes from the title: a random one would change the bytes."""
    chapters = {f"chapter{number}.xhtml": page for number, page in enumerate(source.pages, start=1)}
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": DECLARATION + _CONTAINER,
        "EPUB/package.opf": DECLARATION + _package(source, list(chapters)),
        "EPUB/nav.xhtml": _page(source.title, _navigation(chapters)),
    }
    for name, blocks in chapters.items():
        members[f"EPUB/{name}"] = _page(blocks[0].text, _body(blocks))
    return pack({name: text.encode() for name, text in members.items()})


def _package(source: Source, names: list[str]) -> str:
    media = 'media-type="application/xhtml+xml"'
    items = "".join(f'<item id="c{n}" href="{name}" {media}/>' for n, name in enumerate(names))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(names)))
    return (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'<dc:identifier id="id">urn:uuid:{uuid5(NAMESPACE_URL, source.title)}</dc:identifier>'
        f"{element('dc:title', source.title)}{element('dc:creator', COMPANY)}"
        f"{element('dc:description', source.subject)}<dc:language>en</dc:language>"
        f'<meta property="dcterms:modified">{source.date:%Y-%m-%dT%H:%M:%SZ}</meta></metadata>'
        f'<manifest><item id="nav" href="nav.xhtml" {media} properties="nav"/>{items}</manifest>'
        f"<spine>{spine}</spine></package>"
    )


def _navigation(chapters: dict[str, tuple[Block, ...]]) -> str:
    anchors = (element("a", blocks[0].text, f'href="{name}"') for name, blocks in chapters.items())
    links = "".join(f"<li>{anchor}</li>" for anchor in anchors)
    return f'<nav epub:type="toc"><h1>Contents</h1><ol>{links}</ol></nav>'


def _page(title: str, body: str) -> str:
    return (
        f"{DECLARATION}<!DOCTYPE html>\n"
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en">'
        f"<head>{element('title', title)}</head>\n<body>\n{body}\n</body></html>\n"
    )


def _body(blocks: Iterable[Block]) -> str:
    parts: list[str] = []
    for is_list, run in bullet_runs(blocks):
        if is_list:
            parts.append("<ul>" + "".join(element("li", block.text) for block in run) + "</ul>")
        else:
            parts += [_block(block) for block in run]
    return "\n".join(parts)


def _block(block: Block) -> str:
    if block.kind == "heading":
        return element(f"h{block.level}", block.text)
    if block.kind == "table":
        head, *rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in block.rows)
        return "<table><tr>" + "</tr><tr>".join([head.replace("td>", "th>"), *rows]) + "</tr></table>"
    return element("p", block.text)
