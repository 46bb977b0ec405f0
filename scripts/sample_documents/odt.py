"""ODT builder: OpenDocument text written by hand, as for EPUB."""

from __future__ import annotations

from .markup import DECLARATION, bullet_runs, element
from .packaging import pack
from .source import COMPANY, Block, Source

_MIMETYPE = "application/vnd.oasis.opendocument.text"
_URN = "urn:oasis:names:tc:opendocument:xmlns"
_NAMESPACES = " ".join(
    f'xmlns:{prefix}="{_URN}:{name}"'
    for prefix, name in {
        "office": "office:1.0",
        "style": "style:1.0",
        "text": "text:1.0",
        "table": "table:1.0",
        "meta": "meta:1.0",
        "fo": "xsl-fo-compatible:1.0",
    }.items()
)


def build(source: Source) -> bytes:
    """Flow all source pages into one text; OpenDocument has no fixed pages to cite."""
    body = "".join(_run(is_list, run) for page in source.pages for is_list, run in bullet_runs(page))
    members = {
        "mimetype": _MIMETYPE,
        "content.xml": _root(
            "document-content", f"<office:body><office:text>{body}</office:text></office:body>"
        ),
        "styles.xml": _root("document-styles", f"<office:styles>{_styles()}</office:styles>"),
        "meta.xml": _root("document-meta", f"<office:meta>{_metadata(source)}</office:meta>"),
        "META-INF/manifest.xml": DECLARATION + _manifest(),
    }
    return pack({name: text.encode() for name, text in members.items()})


def _root(name: str, inner: str) -> str:
    dublin_core = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
    attributes = f'{_NAMESPACES} {dublin_core} office:version="1.3"'
    return f"{DECLARATION}<office:{name} {attributes}>{inner}</office:{name}>"


def _run(is_list: bool, run: list[Block]) -> str:
    if is_list:
        items = "".join(f"<text:list-item>{_paragraph(block.text)}</text:list-item>" for block in run)
        return f"<text:list>{items}</text:list>"
    return "".join(_block(block) for block in run)


def _block(block: Block) -> str:
    if block.kind == "heading":
        level = block.level
        return element("text:h", block.text, f'text:style-name="H{level}" text:outline-level="{level}"')
    if block.kind == "table":
        return _table(block)
    return _paragraph(block.text)


def _paragraph(text: str) -> str:
    return element("text:p", text, 'text:style-name="Standard"')


def _table(block: Block) -> str:
    rows = ""
    for row in block.rows:
        cells = "".join(f"<table:table-cell>{_paragraph(text)}</table:table-cell>" for text in row)
        rows += f"<table:table-row>{cells}</table:table-row>"
    columns = f'<table:table-column table:number-columns-repeated="{len(block.rows[0])}"/>'
    return f"<table:table>{columns}{rows}</table:table>"


def _styles() -> str:
    """Only what makes the file pleasant to open: a body style and bold headings."""
    styles = _style("Standard", 'fo:font-size="11pt"', 'fo:margin-bottom="0.2cm"')
    for level, size in ((1, 20), (2, 15), (3, 12)):
        text = f'fo:font-size="{size}pt" fo:font-weight="bold" fo:color="#185448"'
        styles += _style(f"H{level}", text, 'fo:margin-top="0.4cm" fo:margin-bottom="0.2cm"')
    return styles


def _style(name: str, text: str, paragraph: str) -> str:
    return (
        f'<style:style style:name="{name}" style:family="paragraph">'
        f"<style:paragraph-properties {paragraph}/><style:text-properties {text}/></style:style>"
    )


def _metadata(source: Source) -> str:
    return (
        element("dc:title", source.title)
        + element("dc:subject", source.subject)
        + element("dc:creator", COMPANY)
        + element("dc:date", f"{source.date:%Y-%m-%dT%H:%M:%S}")
    )


def _manifest() -> str:
    entry = "<manifest:file-entry manifest:full-path={0!r} manifest:media-type={1!r}/>"
    names = ("content.xml", "styles.xml", "meta.xml")
    entries = entry.format("/", _MIMETYPE) + "".join(entry.format(name, "text/xml") for name in names)
    attributes = f'xmlns:manifest="{_URN}:manifest:1.0" manifest:version="1.3"'
    return f"<manifest:manifest {attributes}>{entries}</manifest:manifest>"
