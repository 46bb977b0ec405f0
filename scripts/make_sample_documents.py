"""Build the office files of the sample corpus from readable sources.

Binary files cannot be reviewed in a diff, so their wording lives as plain text in
``sample_documents/content/``. The output is byte-identical on every run, so that a
changed file always means changed content, and ``--check`` can prove that both agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.sample_documents import epub, odt, pdf, presentation, spreadsheet, word
from scripts.sample_documents.source import Source, parse

CONTENT = Path(__file__).parent / "sample_documents" / "content"
DEFAULT_OUT = Path(__file__).parent.parent / "documents"

BUILDERS: dict[str, Callable[[Source], bytes]] = {
    ".docx": word.build,
    ".epub": epub.build,
    ".odt": odt.build,
    ".pdf": pdf.build,
    ".pptx": presentation.build,
    ".xlsx": spreadsheet.build,
}


def built_documents() -> Iterator[tuple[Path, bytes]]:
    """Yield each office file as (path below the output folder, bytes).

    A source is named after its product plus ``.md`` (``leave.pdf.md``), so there is
    no separate list of files that could fall out of step with the folder.
    """
    for path in sorted(CONTENT.rglob("*.md")):
        target = path.relative_to(CONTENT).with_suffix("")
        try:
            yield target, BUILDERS[target.suffix](parse(path.read_text(encoding="utf-8")))
        except (KeyError, ValueError) as error:
            raise SystemExit(f"{path}: cannot be built: {error}") from error


def differs(path: Path, expected: bytes) -> bool:
    """Return whether a file is missing or has other content; either needs a rebuild."""
    return not path.is_file() or path.read_bytes() != expected


def main(argv: list[str] | None = None) -> int:
    """Write only the files that changed, so that an indexer watching them sees no false updates."""
    parser = argparse.ArgumentParser(description="Make the office files of the sample corpus.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="output folder")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that differ")
    options = parser.parse_args(argv)
    stale = [(name, data) for name, data in built_documents() if differs(options.out / name, data)]
    for name, data in stale:
        if not options.check:
            (options.out / name).parent.mkdir(parents=True, exist_ok=True)
            (options.out / name).write_bytes(data)
        print(f"{'differs' if options.check else 'wrote'}: {name.as_posix()}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
