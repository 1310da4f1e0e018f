"""What is found from the tags themselves: company, tags that say nothing, spellings, words in compounds."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wscl_adapters.tag_company import PRIOR, REFERENCE, count_company
from wscl_adapters.tag_table import TagTable, read_tags
from wscl_adapters.tag_vocabulary import add_words, merge_variants

TOPICS = {
    "sea": ["sea", "beach", "sand", "wave", "sunset", "surf"],
    "snow": ["snow", "ski", "alps", "ice", "slope", "winter"],
    "city": ["city", "street", "taxi", "tower", "night", "tram"],
}
SPAM = ["instagood", "like4like", "followme"]


def table_of(records: list[list[str]]) -> TagTable:
    return read_tags(pa.chunked_array([pa.array(records, pa.list_(pa.string()))]))


def posts(n: int = 600, *, spam: float = 0.5, seed: int = 0) -> list[list[str]]:
    """Records of three topics in turn, 3 of their tags each, a share of them with tags that stand with any topic."""
    rng = np.random.default_rng(seed)
    topics = list(TOPICS.values())
    records = [list(rng.choice(topics[row % 3], 3, replace=False)) for row in range(n)]
    return [record + list(rng.choice(SPAM, 2, replace=False)) * bool(rng.random() < spam) for record in records]


def tags_of(table: TagTable, record: int) -> list[str]:
    return [table.tags[column] for column in np.sort(table.rows[[table.inverse[record]]].indices)]


def test_company_counts_records_with_both() -> None:
    records = [["a", "b"], ["b", "a", "c"], ["c"], ["a", "b"], []]
    table = table_of(records)
    company = count_company(table)
    for row, tag in enumerate(table.tags):
        for column, reference in enumerate(company.reference.tolist()):
            other = table.tags[reference]
            together = sum(tag in record and other in record for record in records) if tag != other else 0
            assert company.counts[row, column] == together


def test_agreement_is_the_log_likelihood_ratio() -> None:
    records = [["a", "x"], ["a", "y"], ["b", "x"], ["b", "x"], ["b", "a"], ["z", "y"]]
    table = table_of(records)
    company = count_company(table)
    a, b = table.tags.index("a"), table.tags.index("b")
    met = {"a": {"x": 1, "y": 1}, "b": {"x": 2}}  # without the two themselves
    everyone = {tag: sum(tag in record for record in records) for tag in "xyz"}  # each record has two tags
    expected = sum(
        times * math.log2((met["b"].get(tag, 0) + PRIOR * everyone[tag] / 12) / ((2 + PRIOR) * everyone[tag] / 12))
        for tag, times in met["a"].items()
    )
    pairs = np.array([a, a]), np.array([b, a])
    assert company.agreement(*pairs)[0] == pytest.approx(expected)
    assert company.agreement(np.array([], dtype=int), np.array([], dtype=int)).shape == (0,)


def test_tags_that_stand_with_anything_say_nothing() -> None:
    table = table_of(posts())
    told = dict(zip(table.tags, count_company(table).informativeness().tolist(), strict=True))
    assert max(told[tag] for tag in SPAM) < 0.5
    assert min(told[tag] for tags in TOPICS.values() for tag in tags) == 1


def test_of_independent_attributes_the_typical_one_says_something() -> None:
    rng = np.random.default_rng(0)
    kinds = [["red", "blue", "green"], ["men", "women"], ["summer", "winter"]]
    table = table_of([[str(rng.choice(values)) for values in kinds] for _ in range(500)])
    assert count_company(table).informativeness().min() > 0.5


def test_a_tag_in_every_record_says_nothing_and_one_alone_is_kept() -> None:
    table = table_of([["all", "sun"], ["all", "sea"], ["alone"], ["all", "sun"]])
    told = dict(zip(table.tags, count_company(table).informativeness().tolist(), strict=True))
    assert told["all"] == 0
    assert told["alone"] == 1
    assert count_company(table_of([["a", "b"]] * 5)).informativeness().tolist() == [1, 1]


def test_spellings_of_one_tag_are_merged_where_their_company_agrees() -> None:
    records = [["sunset", "sea"]] * 9 + [["sunsets", "sea"]] * 3 + [["new", "car"]] * 9 + [["news", "paper"]] * 3
    records += (
        [["colour", "paint"]] * 3 + [["color", "paint"]] * 9 + [["county", "sheriff"]] * 3 + [["country", "flag"]] * 9
    )
    table = merge_variants(table_of(records))
    assert set(table.tags) == {"sunset", "sea", "new", "news", "car", "paper", "color", "paint", "county", "country",
                               "sheriff", "flag"}  # fmt: skip
    assert table.frequency[table.tags.index("sunset")] == 12


def test_separators_are_no_difference() -> None:
    assert merge_variants(table_of([["new york"], ["new-york"], ["NewYork"], ["new_york", "rock'n'roll"]])).tags == [
        "newyork",
        "rock'n'roll",
    ]


def test_a_record_with_two_spellings_has_one_tag() -> None:
    table = merge_variants(table_of([["new-york", "newyork"], ["newyork"]]))
    assert table.inverse.tolist() == [0, 0]
    assert table.counts.tolist() == [2]


def test_words_are_found_in_rare_compounds() -> None:
    records = posts()
    records += [["sunsetbeach", "wave"], ["sunsetbeach"], ["snowtaxi", "ski"], ["carpet", "rug"], ["sunsetxyz", "sea"]]
    records += [["car", "road"], ["pet", "dog"]] * 20
    table = add_words(table_of(records))
    assert tags_of(table, 600) == ["beach", "sunset", "sunsetbeach", "wave"]
    assert tags_of(table, 601) == ["beach", "sunset", "sunsetbeach"]
    assert tags_of(table, 602) == ["ski", "snow", "snowtaxi"]  # the company speaks against the taxi
    assert tags_of(table, 604) == ["sea", "sunsetxyz"]


def test_a_real_word_is_not_split_where_its_company_speaks_against_it() -> None:
    records = [["car", "road"], ["pet", "dog"]] * 20 + [["rug", "home"]] * 10 + [["carpet", "rug", "home"]]
    assert tags_of(add_words(table_of(records)), 50) == ["carpet", "home", "rug"]
    frequent = [["sun", "sea"], ["flower", "sea"]] * 5 + [["sunflower", "sea"]] * 5
    assert tags_of(add_words(table_of(frequent)), 10) == ["sea", "sunflower"]  # not rare


SOME_TAGS = st.lists(st.text(st.sampled_from("abs-_é日ش\u200d❤️"), max_size=8), max_size=6)


@settings(max_examples=150)
@given(st.lists(SOME_TAGS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_whatever_is_written_is_read_and_the_order_of_tags_is_no_matter(
    records: list[list[str]], random: object
) -> None:
    shuffled = [sorted(record, key=lambda _: random.random()) for record in records]  # type: ignore[attr-defined]
    first, second = (add_words(merge_variants(table_of(written))) for written in (records, shuffled))
    assert first.tags == second.tags
    assert (first.of_records() != second.of_records()).nnz == 0
    told = count_company(first).informativeness()
    assert ((told >= 0) & (told <= 1)).all()
    again = merge_variants(merge_variants(first))
    assert again.tags == merge_variants(first).tags
    assert set(again.tags) <= set(first.tags)


def test_a_record_with_ten_thousand_tags_is_compared_with_the_most_frequent_only() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))
    long = ["".join(rng.choice(letters, 12)) for _ in range(10_000)]
    table = add_words(merge_variants(table_of([*posts(300), long, ["x" * 100_000]])))
    assert len(tags_of(table, 300)) == 10_000
    company = count_company(table)
    assert company.counts.nnz <= REFERENCE * len(table.tags)  # and not the square of them
    assert company.informativeness()[table.tags.index("sea")] == 1
