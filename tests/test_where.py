"""Conditions from a stranger: what they give, against Python; and that nothing but a condition is ever evaluated."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wscl_embed.errors import InputError
from wscl_embed.searching import where as where_module
from wscl_embed.searching.where import passing_rows

pytest.importorskip("duckdb", reason="--where needs the extra wscl-embed[search]")

SHOP = datasets.Dataset.from_dict(
    {
        "label": ["Shirts", "Shoes", None, "it's; -- '"],
        "price": [9.5, 40.0, 20.0, None],
        "my tags": [["red", "new"], [], None, ["old"]],
        "attributes": [{"colour": "red"}, {"colour": "blue"}, {"colour": None}, {"colour": "red"}],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("label == 'Shirts'", [0]),
        ("label = 'Shirts' OR price > 15", [0, 1, 2]),
        ("LABEL LIKE 'Sh%' AND NOT label = 'Shoes'", [0]),
        ("label = 'it''s; -- '''", [3]),
        ("label IS NULL", [2]),
        ("label <> 'Shoes'", [0, 3]),
        ("price BETWEEN 9 AND 20", [0, 2]),
        ("label IN ('Shoes', 'Shirts')", [0, 1]),
        ("list_contains(\"my tags\", 'red')", [0]),
        ('len("my tags") = 0', [1]),
        ("attributes.colour = 'red' -- of the article", [0, 3]),
        ("CASE WHEN price > 15 THEN label = 'Shoes' ELSE false END", [1]),
        ("CAST(price AS VARCHAR) = '40.0'", [1]),
        ("TIMESTAMP '2020-01-01' > CAST('2019-12-31' AS DATE)", [0, 1, 2, 3]),
        ("true", [0, 1, 2, 3]),
        ("price / 0 > 1", [0, 1, 2]),
        ("price + 10.5 = 20 AND label ~ 'S.*' AND lower(label) ILIKE 'SH%'", [0]),
        ("list_has_any(\"my tags\", ['new', 'old'])", [0, 3]),
        ("'red' IN \"my tags\" OR starts_with(label, 'Sho')", [0, 1]),
    ],
)
def test_conditions(where: str, rows: list[int]) -> None:
    assert np.flatnonzero(passing_rows(SHOP, where)).tolist() == rows


def test_a_selection_is_read_as_selected() -> None:
    assert passing_rows(SHOP.select([3, 1]), "price = 40").tolist() == [False, True]


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5), min_size=1))
def test_any_text_is_found_by_its_quoted_self(texts: list[str]) -> None:
    quoted = texts[0].replace("'", "''")
    found = passing_rows(datasets.Dataset.from_dict({"text": texts}), f"text = '{quoted}'")
    assert found.tolist() == [text == texts[0] for text in texts]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("label = (SELECT 'Shoes')", "subquery expressions are not allowed"),
        ("label IN (SELECT label FROM images)", "subquery expressions are not allowed"),
        ("EXISTS (FROM read_text('{file}'))", "subquery expressions are not allowed"),
        ("row_number() OVER () > 1", "window expressions are not allowed"),
        ("COLUMNS(*) = 'Shoes'", "star expressions are not allowed"),
        ("price > ?", "not one condition"),
        ("list_filter(\"my tags\", lambda x: x = 'red') = []", "the function 'list_filter' is not allowed"),
        ("price::INTEGER[100000] IS NULL", "nothing can be cast to ARRAY here"),
        ("true) LIMIT (1", "not one condition"),
        ("true) UNION SELECT 0 FROM images WHERE (true", "not one condition"),
        ("true) GROUP BY (1", "not one condition"),
        ("true); SELECT 1 FROM images WHERE (true", "not one condition"),
        ("true); COPY images TO '{file}'; SELECT 1 FROM images WHERE (true", "Only SELECT statements"),
        ("len(range(1000000000000)) > 1", "the function 'range' is not allowed"),
        ("repeat(label, 1000000000) = 'x'", "the function 'repeat' is not allowed"),
        ("start_with(label, 'S')", "the function 'start_with' is not allowed. Did you mean starts_with?"),
        ("true; SELECT 1", "syntax error"),
        ("label = 'Shoes", "unterminated"),
        ("label = 'Shoes' /*", "unterminated"),
        ("__row__ = 1", "no column '__row__'"),
        ("images.label = 'Shoes'", "no column 'images'"),
        ("attributes.color = 'red'", 'Could not find key "color" in struct'),
        ("count(*) > 1", "the function 'count_star' is not allowed"),
        ("label", "Could not convert string 'Shirts' to BOOL"),
    ],
)
def test_whatever_is_more_than_a_condition_is_refused(where: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "secret.txt"
    with pytest.raises(InputError) as refused:
        passing_rows(SHOP, where.replace("{file}", str(file)))
    assert said in str(refused.value)
    assert not file.exists()


def test_the_database_reaches_no_file_even_past_the_parser(tmp_path: Path) -> None:
    import duckdb

    file = tmp_path / "secret.txt"
    file.write_text("secret")
    for statement in (
        f"SELECT * FROM read_text('{file}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'new.csv'}'",
        f"ATTACH '{tmp_path / 'new.db'}'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ):
        with where_module._database(duckdb) as database, pytest.raises(duckdb.Error, match=r"disabled|locked"):
            database.execute(statement).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]
