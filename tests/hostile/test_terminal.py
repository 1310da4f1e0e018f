"""Strangers' text on the terminal: it is shown, and not obeyed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.hostile import crafted
from wscl_embed.cli import main
from wscl_embed.progress import OBEYED, console, printable, say

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m"


def test_escapes_are_shown_and_what_people_write_is_left() -> None:
    assert printable(ESCAPES) == "\\x1b]0;title\\x07\\x1b[2J\\x9b31m"
    for text in ("tab\tand line\n", "👩\u200d👩\u200d👧", "שמש\u200f", "[bold]"):
        assert printable(text) == text


def test_a_line_of_strangers_text_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console.cache_clear()  # it holds the stderr it was made with
    say(f"  cluster of [/red] {ESCAPES}", "yellow")
    console.cache_clear()
    assert capsys.readouterr().err == f"  cluster of [/red] {printable(ESCAPES)}\n"


def test_an_error_about_a_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / f"photos{ESCAPES.replace('/', '')}"
    folder.mkdir()
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png"}) + "\n{")
    (folder / "a.png").write_bytes(crafted.image("PNG"))
    output = tmp_path / "run"
    arguments = ["fit", "--data", str(folder), "--adapter", "none", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["wscl-embed", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert "metadata.jsonl:2: not valid JSON" in message
    assert not OBEYED.search(message)
    assert not output.exists()
