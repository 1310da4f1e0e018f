"""`RowCache`: rows are made once, whoever asks, and a damaged file is no damaged result."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wscl_embed.cache
from wscl_embed.cache import RowCache

Made = list[list[str]]


def vector(text: str) -> list[float]:
    return [float(len(text)), float(sum(text.encode("utf-8", "surrogatepass")))]


def recording(made: Made) -> Callable[[list[str]], dict[str, Any]]:
    def make(texts: list[str]) -> dict[str, Any]:
        made.append(texts)
        rows = np.array([vector(text) for text in texts], dtype=np.float32)
        return {"vectors": rows, "long": np.array([len(text) > 3 for text in texts])}

    return make


def ask(folder: Path, texts: list[str]) -> list[str]:
    """Ask for ``texts``, see that the rows are theirs, and say which were made."""
    made: Made = []
    rows = RowCache(folder).rows(texts, recording(made))
    assert rows["vectors"].tolist() == [vector(text) for text in texts]
    assert rows["vectors"].dtype == np.float32
    assert rows["long"].tolist() == [len(text) > 3 for text in texts]
    return [text for texts in made for text in texts]


def test_only_what_is_new_is_made(tmp_path: Path) -> None:
    assert ask(tmp_path, ["a", "日の出", ""]) == ["a", "日の出", ""]
    assert ask(tmp_path, ["new", "日の出", "a"]) == ["new"]
    assert ask(tmp_path, ["", "new"]) == []


@settings(max_examples=30)
@given(asked=st.lists(st.lists(st.text(max_size=4), min_size=1, max_size=8), min_size=1, max_size=4))
def test_whatever_is_asked_each_text_is_made_once(
    tmp_path_factory: pytest.TempPathFactory, asked: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    made = [text for texts in asked for text in ask(folder, texts)]
    assert sorted(made) == sorted({text for texts in asked for text in texts})


def test_a_text_asked_twice_is_made_once(tmp_path: Path) -> None:
    assert ask(tmp_path, ["a", "b", "a"]) == ["a", "b"]


def test_an_interrupted_run_keeps_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wscl_embed.cache, "MADE_AT_ONCE", 2)
    made: Made = []

    def stops(texts: list[str]) -> dict[str, Any]:
        if made:
            raise KeyboardInterrupt
        return recording(made)(texts)

    with pytest.raises(KeyboardInterrupt):
        RowCache(tmp_path).rows(["a", "b", "c", "d"], stops)
    assert ask(tmp_path, ["a", "b", "c", "d"]) == ["c", "d"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_shard_is_noticed_and_made_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path, ["a", "b"])
    ask(tmp_path, ["c"])
    victim = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-5]), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, logger="wscl_embed"):
        assert ask(tmp_path, ["a", "b", "c"]) == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{victim} is damaged: removed; what it held is made anew."
    ]
    assert ask(tmp_path, ["a", "b", "c"]) == []


def test_many_shards_are_joined_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wscl_embed.cache, "MANY_SHARDS", 3)
    texts = [f"text {number}" for number in range(8)]
    for number in range(8):
        assert ask(tmp_path, texts[number // 2 : number + 1])[-1:] == [texts[number]]
    assert len(list(tmp_path.iterdir())) <= 4
    assert ask(tmp_path, texts) == []


def test_shards_are_joined_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wscl_embed.cache, "MANY_SHARDS", 3)
    monkeypatch.setattr(wscl_embed.cache, "SHARD_ROWS", 2)
    for number in range(8):
        ask(tmp_path, [f"text {number}"])
    assert len(list(tmp_path.iterdir())) == 4
    assert ask(tmp_path, [f"text {number}" for number in range(8)]) == []


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="wscl_embed"):
        assert ask(blocked / "rows", ["a"]) == ["a"]
    assert "nothing is cached there" in caplog.text


def _ask_many(folder: Path, start: int) -> None:
    wscl_embed.cache.MANY_SHARDS = 4
    for number in range(start, start + 12):
        ask(folder, [f"text {number}", f"text {number // 2}", f"text {number // 3}"])


def test_several_processes_at_once(tmp_path: Path) -> None:
    """They read, write and join the same shards; every row each gets is right, and all are there in the end."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_ask_many, args=(tmp_path, start)) for start in (0, 4, 8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert ask(tmp_path, [f"text {number}" for number in range(20)]) == []
