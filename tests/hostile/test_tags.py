"""Tags from the wild: every script and normal form, one without end, a million of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.doors import adapter
from tests.hostile.sandbox import read, refusal
from wscl_embed.terms import MAX_TERM, normalise_term, words

ONE_EACH = {
    "a family, joined": ["👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧", "#👩\u200d👩\u200d👧"],
    "normal forms": ["Caf\u00e9", "cafe\u0301", "ＣＡＦＥ\u0301"],
    "right to left": ["שמש", "\u200fשמש\u200f", "\u202bשמש\u202c"],
    "marks of direction": ["sun", "\u202esun\u202c", "s\u200bun"],
    "flags of regions": ["🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"] * 3,
    "spaces of all kinds": ["sun", "\u00a0sun\u3000", "\tsun\r\n"],
    "sharp s": ["STRASSE", "straße", "Straße"],
}


@pytest.mark.parametrize("name", ONE_EACH)
def test_written_in_several_ways_it_is_one_tag(name: str) -> None:
    assert len({normalise_term(text) for text in ONE_EACH[name]} - {""}) == 1


@given(st.text(st.characters(categories=["Mn", "Cf", "Cc", "L", "S", "P"]), max_size=40))
def test_any_text_is_a_tag_or_none(text: str) -> None:
    tag = normalise_term(text)
    assert normalise_term(tag) == tag
    assert "\x1b" not in tag[:1] + tag[-1:]
    assert all(len(word) <= MAX_TERM * 20 for word in words(text))


def test_marks_without_end_take_no_time() -> None:
    """Python brings combining marks into order in quadratic time: these would take an hour."""
    endless = "a" + "\u0300\u0316" * 500_000
    tags = [["sun", "sea", endless], ["sun", "sea"], ["snow", "ski"], ["snow", "ski"]] * 3
    labels = read(adapter, "hashtags:column=tags,min_df=1,n_clusters=2", {"id": ids(12), "tags": tags})
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_a_million_tags_on_one_record() -> None:
    tags = [["sun", "sea", *(f"t{number}" for number in range(1_000_000))], ["sun", "sea"], ["snow"], ["snow"]] * 2
    labels = read(adapter, "hashtags:column=tags,n_clusters=2", {"id": ids(8), "tags": tags}, megabytes=1000)
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_tags_that_hold_nothing() -> None:
    tags = [["#", "", "\u200b", "!!!"], None, [], ["\u0000"]]
    assert "none of the 4 records carries a signal" in refusal(
        adapter, "hashtags:column=tags,min_df=1", {"id": ids(4), "tags": tags}
    )


def test_one_tag_for_all() -> None:
    labels = read(adapter, "hashtags:column=tags,n_clusters=2,min_df=1", {"id": ids(4), "tags": [["same"]] * 4})
    assert labels == [0, 0, 0, 0]


def ids(n: int) -> list[str]:
    return [str(number) for number in range(n)]
