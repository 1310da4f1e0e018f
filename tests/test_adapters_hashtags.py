"""Hashtags: how tags are written, which are dropped, and what becomes of them."""

from __future__ import annotations

import unicodedata
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wscl_adapters.tag_table
from wscl_adapters.hashtags import HashtagsAdapter
from wscl_adapters.tag_table import read_tags
from wscl_embed.errors import InputError
from wscl_embed.registry import make_adapter
from wscl_embed.terms import describing_terms, normalise_term, words

FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
SCOTLAND = "\N{WAVING BLACK FLAG}" + "".join(chr(0xE0000 + ord(letter)) for letter in "gbsct") + "\U000e007f"
# Mostly what tags are made of, so that hypothesis meets marks, joiners and punctuation at the edges often.
TAG_TEXT = st.text(st.one_of(st.characters(), st.sampled_from("#＃_-'’ .!\u200d\ufe0f\u20e3\u0301\u093e\u0345ﬁİß①❤🏽")))


def tagged(values: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(values))], "tags": values})


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("#Sun", "sun"),
        ("##Sun!!", "sun"),
        ("＃ＳＵＮ", "sun"),
        ("“sun”,", "sun"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("rock-n-roll", "rock-n-roll"),
        ("_snake_case_", "snake_case"),
        ("rock'n'roll", "rock'n'roll"),
        ("c++", "c++"),
        ("new   york\u00a0city", "new york city"),
        ("\u200bsun\ufeff", "sun"),
        ("#日の出", "日の出"),
        ("#हिन्दी", "हिन्दी"),
        ("#தமிழ்", "தமிழ்"),
        ("#ไทย", "ไทย"),
        ("#Ёлка", "ёлка"),
        ("#עברית", "עברית"),
        ("❤️", "❤"),
        ("❤", "❤"),
        ("❤️\u200d🔥", "❤\u200d🔥"),
        ("🏳️\u200d🌈", "🏳\u200d🌈"),
        ("ℹ️", "i️"),
        ("sun\u200dset", "sunset"),
        ("sun\u200cset\u00ad", "sunset"),
        ("❤\u200dsun", "❤sun"),
        ("\u202bשקיעה\u202c", "שקיעה"),
        ("\u200f#غروب\u200e", "غروب"),
        ("کتاب\u200cها", "کتابها"),
        ("#🌞", "🌞"),
        ("👍🏽", "👍🏽"),
        (FAMILY, FAMILY),
        (SCOTLAND, SCOTLAND),
        ("🇩🇪", "🇩🇪"),
        ("#️⃣", "#️⃣"),
        ("1️⃣", "1️⃣"),
        ("#", ""),
        ("...", ""),
        ("\ufe0f", ""),
        ("& \ufe0f", ""),
        ("  ", ""),
        ("", ""),
    ],
)
def test_normal_form(written: str, normal: str) -> None:
    assert normalise_term(written) == normal


@settings(deadline=None, max_examples=400)
@given(TAG_TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise_term(normalise_term(text)) == normalise_term(text)


@settings(deadline=None, max_examples=400)
@given(TAG_TEXT)
def test_composed_and_decomposed_are_one(text: str) -> None:
    assert normalise_term(unicodedata.normalize("NFC", text)) == normalise_term(unicodedata.normalize("NFD", text))


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        ("#Sun #Beach, summer", ["sun", "beach", "summer"]),
        ("#sun#beach#Sun", ["sun", "beach"]),
        ("＃日の出＃海、山", ["日の出", "海", "山"]),
        ("#️⃣ #one", ["#️⃣", "one"]),
        ("#\u200bשקיעה\u200f #شمس#ไทย", ["שקיעה", "شمس", "ไทย"]),
        (["Sun", "#sun", "SUN!"], ["sun"]),
        (["New York", None, "", "#"], ["new york"]),
        ([2011, 2012], ["2011", "2012"]),
        ("", []),
        ([], []),
        (None, []),
    ],
)
def test_tags_of_a_record(value: Any, tags: list[str]) -> None:
    table = read_tags(pa.chunked_array([pa.array([value])]))
    assert table.tags == sorted(tags)
    assert table.rows.toarray().tolist() == [[1.0] * len(tags)]


def test_a_column_is_read_in_chunks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [["a", "b"], None, ["b"], [], ["b", "a"], [None], ["c"]]
    whole = read_tags(pa.chunked_array([values]))
    monkeypatch.setattr(wscl_adapters.tag_table, "CHUNK", 2)
    parts = read_tags(pa.chunked_array([values[:3], values[3:]]))
    assert whole.tags == parts.tags == ["a", "b", "c"]
    assert (whole.of_records() != parts.of_records()).nnz == 0
    assert whole.of_records().toarray().tolist() == [
        [1, 1, 0],
        [0] * 3,
        [0, 1, 0],
        [0] * 3,
        [1, 1, 0],
        [0] * 3,
        [0, 0, 1],
    ]
    assert whole.counts.tolist() == [2, 3, 1, 1]
    assert whole.frequency.tolist() == [2, 3, 1]
    assert whole.n_tagged == 4


def test_what_is_no_tags_is_refused() -> None:
    with pytest.raises(InputError, match=r"'tags' holds struct<colour.*a list of tags or one string"):
        HashtagsAdapter().assign(tagged([{"colour": "red"}]))
    with pytest.raises(InputError, match=r"'tags' holds .*list.*; a list of tags or one string"):
        HashtagsAdapter().assign(tagged([[["red"]]]))


def test_rare_tags_and_those_that_say_nothing_are_dropped_and_their_records_noise() -> None:
    values = ["sun all", "sun all", "sea all", "sea all", "all", "rare", None, ""]
    adapter = HashtagsAdapter(n_clusters=2)
    assert adapter.kept_tags(tagged(values))[0].tags == ["sea", "sun"]
    clusters = adapter.assign(tagged(values))
    assert clusters.labels[4:].tolist() == [-1] * 4
    assert clusters.table["size"].tolist() == [2, 2]
    assert sorted(clusters.table["terms"].tolist()) == [["sea"], ["sun"]]


def test_when_the_limits_drop_every_tag_the_message_says_which() -> None:
    with pytest.raises(InputError) as caught:
        HashtagsAdapter().assign(tagged(["all a", "all b", "all c", None]))
    assert str(caught.value) == (
        "adapter hashtags: all 4 distinct tags in the column 'tags' are dropped: 3 are in fewer than min_df=2 records "
        "(lower min_df), 1 say less than min_informativeness=0.5 about the tags beside them (lower "
        "min_informativeness)."
    )


def test_no_tag_at_all_names_the_column() -> None:
    with pytest.raises(InputError, match=r"none of the 2 records carries a signal .*column=tags"):
        HashtagsAdapter().assign(tagged(["", "##"]))


def many(n: int = 400, seed: int = 0) -> datasets.Dataset:
    """Records of 8 topics with 30 tags each, 4 drawn a record: more tags than dimensions are kept."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, 8, n)
    return tagged([[f"t{topic}-{tag}" for tag in rng.choice(30, 4, replace=False)] for topic in topics])


def test_features_are_unit_rows_of_the_asked_width() -> None:
    features = HashtagsAdapter(n_components=16).features(many())
    assert features.shape == (400, 16)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)


def test_topics_that_share_few_tags_are_found() -> None:
    dataset = many()
    clusters = HashtagsAdapter(n_components=8, n_clusters=8).assign(dataset)
    topics = [tags[0].split("-")[0] for tags in dataset["tags"]]
    from sklearn.metrics import normalized_mutual_info_score

    assert normalized_mutual_info_score(topics, clusters.labels) > 0.95
    assert all(len({term.split("-")[0] for term in terms}) == 1 for terms in clusters.table["terms"])


def test_repeated_tag_sets_weigh_as_often_as_they_occur() -> None:
    # One dimension is kept. Ten distinct records of sea tags would win it, were the forty alike ones counted once.
    pairs = [["sea", "sand"], ["sand", "sun"], ["sun", "wave"], ["wave"]]
    sea = [[*pairs[i % 4], f"beach{i % 3}"] for i in range(10)]
    adapter = HashtagsAdapter(min_df=1, min_informativeness=0, n_components=1)
    features = np.asarray(adapter.features(tagged([["snow", "ski"]] * 40 + sea)))
    np.testing.assert_allclose(abs(features[:40]), 1)
    assert not features[40:].any()


def test_the_order_of_tags_and_how_they_are_written_are_no_matter() -> None:
    values = [list(tags) for tags in many()["tags"]]
    rng = np.random.default_rng(1)
    written = [" ".join(f"#{tag.upper()}" for tag in rng.permutation(tags)) for tags in values]
    for options in ({"n_components": 8, "n_clusters": 8}, {"mode": "overlap"}):
        first, second = (HashtagsAdapter(**options).assign(tagged(column)) for column in (values, written))
        assert (first.membership != second.membership).nnz == 0
        assert first.table.to_dict("records") == second.table.to_dict("records")


def test_overlap_weighs_pairs_by_the_information_they_share() -> None:
    records = [["sun", "sea"], ["sun", "snow"], ["sea", "sun"], ["snow"], ["ski"], ["ski", "sea"], None, ["rare"]]
    adapter = HashtagsAdapter(mode="overlap")
    clusters = adapter.assign(tagged(records))
    assert clusters.table["name"].tolist() == ["sea", "ski", "snow", "sun"]
    assert clusters.table["terms"].tolist() == [["sea"], ["ski"], ["snow"], ["sun"]]
    assert clusters.table["size"].tolist() == [3, 2, 2, 3]
    known = [set(record or []) - {"rare"} for record in records]
    table, told = adapter.kept_tags(tagged(records))
    n_with = {tag: sum(tag in record for record in known) for tag in table.tags}
    bits = {tag: share * np.log2(6 / n_with[tag]) for tag, share in zip(table.tags, told.tolist(), strict=True)}
    weights = (clusters.membership @ clusters.membership.T).toarray()
    for i, first in enumerate(known):
        for j, second in enumerate(known):
            shared, own, other = (sum(bits[tag] for tag in tags) for tags in (first & second, first, second))
            assert weights[i, j] == pytest.approx(shared / np.sqrt(own * other) if shared else 0, abs=1e-6)
    assert clusters.labels[6:].tolist() == [-1, -1]


def test_overlap_pays_little_attention_to_tags_that_say_little() -> None:
    rng = np.random.default_rng(0)
    topics = [["sea", "beach", "sand"], ["snow", "ski", "alps"]]
    records = [
        [*rng.choice(topics[row % 2], 2, replace=False), *["nice"] * bool(rng.random() < 0.5)] for row in range(200)
    ]
    kept = HashtagsAdapter(mode="overlap").assign(tagged(records)).table["name"].tolist()
    assert kept == sorted([*topics[0], *topics[1]])
    every = HashtagsAdapter(mode="overlap", min_informativeness=0).assign(tagged(records))
    weights = (every.membership @ every.membership.T).toarray()
    same = np.arange(200)[:, None] % 2 == np.arange(200) % 2
    assert weights[~same].max() < 0.1 < weights[same].mean()


@pytest.mark.parametrize("option", ["n_clusters=5", "clusterer=hdbscan", "min_cluster_size=3", "n_components=8"])
def test_what_overlap_has_no_use_for_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=rf"hashtags: {option.partition('=')[0]} applies only with mode=cluster"):
        make_adapter(f"hashtags:mode=overlap,{option}")


def test_another_mode_is_refused() -> None:
    with pytest.raises(InputError, match="mode must be cluster or overlap; got 'both'"):
        HashtagsAdapter(mode="both")  # type: ignore[arg-type]


def test_describing_terms_by_hand() -> None:
    tokens = [["a", "b", "both"], ["a", "both"], ["c", "both"], ["noise"]]
    labels = np.array([0, 0, 2, -1])
    # counts of cluster 0: a 2, both 2, b 1; f: a 2, both 3, b 1, c 1; A = 7 / 3
    weights = {"a": 2 * np.log1p(7 / 3 / 2), "both": 2 * np.log1p(7 / 3 / 3), "b": np.log1p(7 / 3)}
    assert describing_terms(tokens, labels) == [sorted(weights, key=lambda term: -weights[term]), [], ["c", "both"]]
    assert describing_terms(tokens, labels, top=1) == [["a"], [], ["c"]]
    assert describing_terms([[], []], np.array([0, -1])) == [[]]
    assert describing_terms([], np.array([], dtype=np.int64)) == []


def test_words_keep_the_marks_of_other_scripts() -> None:
    assert words("A red (cotton) T-Shirt — हिन्दी में!") == ["red", "cotton", "t-shirt", "हिन्दी", "में"]
