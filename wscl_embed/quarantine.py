"""`Quarantine`: the records that could not be used, each with its reason, on disk as ``quarantine.csv``."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wscl_embed.errors import InputError
from wscl_embed.files import atomic_path

COLUMNS = ["id", "path", "reason"]

# A spreadsheet runs a cell that begins like this as a formula. An apostrophe before it makes it text; cells that begin
# with apostrophes and then such a character get one more, so that reading can take exactly one away.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True)
class BadRow:
    """One record that could not be used."""

    id: str
    path: str
    reason: str


class Quarantine:
    """Collects bad records, one an id: an image that is met again in every epoch is counted once.

    >>> quarantine = Quarantine()
    >>> quarantine.add("7", "images/7.jpg", "truncated image file")
    >>> len(quarantine), "7" in quarantine
    (1, True)
    """

    def __init__(self) -> None:
        self._rows: dict[str, BadRow] = {}

    def add(self, id: str, path: str, reason: str) -> None:
        """Put one record in; an id that is here already keeps its first reason."""
        self._rows.setdefault(id, BadRow(id, path, reason))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[BadRow]:
        return iter(self._rows.values())

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def check_share(self, total: int, max_share: float = 0.05) -> None:
        """See that not too much is lost.

        Args:
            total: how many records there are, the bad ones included.
            max_share: the largest share of them that may be bad, 0 to 1.

        Raises:
            InputError: more than ``max_share`` of ``total`` is bad, or all of it. Reasons are counted without what
                stands in parentheses at their end.
        """
        bad = len(self)
        if bad == 0 or (bad < total and bad / total <= max_share):
            return
        reasons = Counter(row.reason.split(" (")[0] for row in self).most_common(3)
        example = next(iter(self))
        advice = "Mend or remove them"
        if bad < total:
            advice += ", or go on without them by --max-bad-share, which lists them in quarantine.csv"
        raise InputError(
            f"{bad} of {total} images cannot be used: {bad / max(total, 1):.1%}, where {max_share:.1%} is allowed. "
            f"Commonest reasons: {'; '.join(f'{reason} ({count})' for reason, count in reasons)}. "
            f"For example {example.id} at {example.path or 'no path'}: {example.reason}. {advice}."
        )

    def write(self, path: str | Path) -> None:
        """Write the records as CSV with the columns ``id``, ``path``, ``reason``; a header only when there are none.

        The file appears under its name only when it is whole. Cells are written so that spreadsheets do not take
        them for formulas.
        """
        # File names may hold bytes that are not UTF-8; they are written as escapes.
        with (
            atomic_path(Path(path)) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
        ):
            writer = csv.writer(handle)
            writer.writerow(COLUMNS)
            writer.writerows([as_text(cell) for cell in (row.id, row.path, row.reason)] for row in self)

    @classmethod
    def read(cls, path: str | Path) -> Quarantine:
        """Read what `write` wrote.

        Raises:
            InputError: a file that is not there, or is not such a CSV.
        """
        quarantine = cls()
        try:
            with Path(path).open(encoding="utf-8", newline="") as handle:
                reader = csv.reader(handle, strict=True)
                if next(reader, None) != COLUMNS:
                    raise InputError(f"{path}: not a quarantine file; its first line must be {','.join(COLUMNS)}.")
                for cells in reader:
                    if len(cells) != len(COLUMNS):
                        raise InputError(f"{path}:{reader.line_num}: {len(cells)} cells, expected {len(COLUMNS)}.")
                    quarantine.add(*map(from_text, cells))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a quarantine file ({error}).") from error
        return quarantine


def as_text(cell: str) -> str:
    """``cell`` such that a spreadsheet takes it for text, and without NUL, which CSV readers refuse.

    >>> as_text("=1+1"), as_text("it's fine")
    ("'=1+1", "it's fine")
    """
    cell = cell.replace("\0", "\\0")
    return f"'{cell}" if FORMULA.match(cell) else cell


def from_text(cell: str) -> str:
    """Undo `as_text`.

    >>> from_text("'=1+1")
    '=1+1'
    """
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
