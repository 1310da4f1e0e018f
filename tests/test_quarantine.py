"""`Quarantine`: counting, the limit, and a CSV that survives spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wscl_embed.errors import InputError
from wscl_embed.quarantine import BadRow, Quarantine, as_text, from_text


def of(count: int, reason: str = "empty file", start: int = 0) -> Quarantine:
    quarantine = Quarantine()
    for number in range(start, start + count):
        quarantine.add(str(number), f"images/{number}.jpg", reason)
    return quarantine


def test_an_id_is_counted_once_and_keeps_its_first_reason() -> None:
    quarantine = Quarantine()
    quarantine.add("a", "a.jpg", "empty file")
    quarantine.add("a", "a.jpg", "truncated image file")
    assert list(quarantine) == [BadRow("a", "a.jpg", "empty file")]
    assert "a" in quarantine
    assert "b" not in quarantine


def test_a_share_up_to_the_limit_passes() -> None:
    Quarantine().check_share(0)
    Quarantine().check_share(10)
    of(5).check_share(100)
    of(50).check_share(100, max_share=0.5)


def test_a_larger_share_says_what_is_wrong_and_what_to_do() -> None:
    quarantine = of(9)
    for number, reason in enumerate(["too many pixels (1 x 2)", "too many pixels (3 x 4)", "odd", "odd", "rare"]):
        quarantine.add(f"x{number}", "", reason)
    with pytest.raises(InputError) as caught:
        quarantine.check_share(100)
    message = str(caught.value)
    for part in (
        "14 of 100 images cannot be used: 14.0%, where 5.0% is allowed",
        "empty file (9); too many pixels (2); odd (2).",
        "For example 0 at images/0.jpg: empty file.",
        "quarantine.csv",
        "--max-bad-share",
    ):
        assert part in message
    assert "rare" not in message
    assert "\n" not in message


def test_nothing_left_is_an_error_whatever_is_allowed() -> None:
    with pytest.raises(InputError, match="3 of 3 images cannot be used") as caught:
        of(3).check_share(3, max_share=1.0)
    assert "--max-bad-share" not in str(caught.value)


def test_without_bad_rows_a_header_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run" / "quarantine.csv"
    Quarantine().write(path)
    assert path.read_text() == "id,path,reason\n"
    assert len(Quarantine.read(path)) == 0
    assert [child.name for child in path.parent.iterdir()] == ["quarantine.csv"]


def test_cells_are_not_formulas(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.csv"
    quarantine = Quarantine()
    for start in "=+-@\t\r":
        quarantine.add(f"{start}1", f'{start}HYPERLINK("x","y")', "a, reason\nof two lines")
    quarantine.write(path)
    with path.open(newline="") as handle:
        rows = list(csv.reader(handle))
    assert all(cell.startswith("'") for row in rows[1:] for cell in row[:2])
    assert rows[1][2] == "a, reason\nof two lines"
    assert list(Quarantine.read(path)) == list(quarantine)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))] * 3)))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path_factory.mktemp("quarantine") / "quarantine.csv"
    quarantine = Quarantine()
    for row in rows:
        quarantine.add(*row)
    quarantine.write(path)
    assert list(Quarantine.read(path)) == list(quarantine)


@given(st.text(alphabet="'=+-@\t\ra"))
def test_a_cell_comes_back_and_is_safe(cell: str) -> None:
    assert from_text(as_text(cell)) == cell
    assert as_text(cell)[:1] not in tuple("=+-@\t\r")


def test_odd_characters_are_written_as_escapes(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.csv"
    quarantine = Quarantine()
    quarantine.add("a\0b", "caf\udce9.jpg", "file does not exist")
    quarantine.write(path)
    assert list(Quarantine.read(path)) == [BadRow("a\\0b", "caf\\udce9.jpg", "file does not exist")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a quarantine file; its first line"),
        (b"file,why\n", "not a quarantine file; its first line"),
        (b"id,path,reason\r\na,b\r\n", ":2: 2 cells, expected 3"),
        (b'id,path,reason\r\n"a,b,c', "not a quarantine file"),
        (b"id,path,reason\r\n\xff,b,c\r\n", "not a quarantine file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "quarantine.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Quarantine.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read"):
        Quarantine.read(tmp_path / "gone.csv")
