"""The figures of a measurement, printed as a table and saved as JSON in results/."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """A measured value; `at_least` or `at_most` is its bar, if there is one."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """True if the figure reaches its bar, None if it has none."""
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def row(self) -> str:
        """The figure as a row of a Markdown table."""
        bar = "" if self.at_least is None else f">= {self.at_least:g}"
        bar = bar if self.at_most is None else f"<= {self.at_most:g}"
        verdict = {None: "", True: "yes", False: "NO"}[self.reached]
        return f"| {self.name} | {self.value:g} {self.unit}".rstrip() + f" | {bar} | {verdict} |"


@dataclass
class Report:
    """The figures of one measurement."""

    name: str
    figures: list[Figure] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        return all(figure.reached is not False for figure in self.figures)

    def add(
        self,
        name: str,
        value: float,
        unit: str = "",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Add a figure, and print it."""
        digits = 4 if abs(value) < 10 else 1
        figure = Figure(name, round(value, digits), unit, at_least, at_most)
        self.figures.append(figure)
        print(f"  {figure.row}", flush=True)

    def save(self) -> Report:
        """Write the figures to results/, and print them as a table."""
        RESULTS.mkdir(exist_ok=True)
        figures = [{**asdict(figure), "reached": figure.reached} for figure in self.figures]
        content = {"benchmark": self.name, "measured": f"{datetime.now(UTC):%Y-%m-%d}", "figures": figures}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (RESULTS / f"{self.name}.json").write_text(f"{text}\n", encoding="utf-8")
        print("\n".join([f"\n{self.name}", *_table(self.figures)]), flush=True)
        return self


def _table(figures: list[Figure]) -> list[str]:
    return [
        "| figure | value | bar | reached |",
        "| --- | --- | --- | --- |",
        *(each.row for each in figures),
    ]
