"""``--where``: one condition over the columns of a table, by DuckDB.

DuckDB parses and evaluates it, in a database in memory of its own that may read no file, load no extension and not be
configured anew. What it parsed is looked at first: one expression, without subqueries, of functions whose result is no
larger than what they are given. DuckDB cannot be interrupted within a function, and ``range`` alone fills any memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError, import_extra, nearest

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

ROW = "__row__"
ALLOWED = {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR"}
ALLOWED |= {"TYPE"}  # of a CAST
TYPES = {"VARCHAR", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMP"}
"""To cast to. A list type could be of any length."""
FUNCTIONS = {
    *("+", "-", "*", "/", "//", "%", "abs", "round", "floor", "ceil", "least", "greatest"),
    *("~~", "!~~", "~~*", "!~~*", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"),
    *("regexp_matches", "regexp_full_match", "starts_with", "^@", "prefix", "ends_with", "suffix", "contains"),
    *("lower", "upper", "trim", "ltrim", "rtrim", "length", "len", "strlen", "array_length", "cardinality"),
    *("list_value", "list_contains", "list_has", "array_contains", "list_has_any", "list_has_all", "list_position"),
    *("struct_extract", "map_extract", "map_keys", "map_values", "coalesce", "ifnull", "isnan", "isfinite"),
    *("date_part", "datepart", "year", "month", "day", "hour", "date_trunc"),
}
EXAMPLE = "Conditions read like label == 'Shirts' AND price > 10, text in single quotes."


def passing_rows(dataset: datasets.Dataset, where: str) -> NDArray[np.bool_]:
    """(n,) whether each row of ``dataset`` meets ``where``; one whose column is empty does not.

    Args:
        where: an SQL condition, as DuckDB has them (``==`` may be written for ``=``).

    Raises:
        InputError: it does not parse, is more than a condition, names a column that is not there (says the nearest), or
            cannot be evaluated.

    >>> import datasets
    >>> shop = datasets.Dataset.from_dict({"label": ["Shirts", "Shoes", None], "price": [9.5, 40.0, 20.0]})
    >>> passing_rows(shop, "label == 'Shirts' OR price BETWEEN 30 AND 50").tolist()
    [True, True, False]
    """
    duckdb = import_extra("duckdb", package="duckdb", extra="search", needed_for="--where")
    with _database(duckdb) as database:
        condition = _parse(database, where)
        used = _columns_of(condition, dataset.column_names, where)
        database.register("images", _table(dataset, used))
        try:
            found = database.execute(_statement(ROW, where)).fetchnumpy()[ROW]
        except duckdb.Error as error:
            raise InputError(f"--where {where!r}: {_first_line(error)}.") from error
    passes = np.zeros(len(dataset), dtype=np.bool_)
    passes[np.asarray(found, dtype=np.int64)] = True
    return passes


def _table(dataset: datasets.Dataset, columns: list[str]) -> pa.Table:
    """The columns a condition reads, and the number of each row."""
    import pyarrow as pa

    row = pa.array(np.arange(len(dataset)))
    if not columns:
        return pa.table({ROW: row})
    return dataset.select_columns(columns).with_format("arrow")[:].append_column(ROW, row)


def _statement(chosen: str, where: str) -> str:
    return f"SELECT {chosen} FROM images WHERE (\n{where}\n)"


def _database(duckdb: Any) -> Any:
    """A connection to an empty database in memory that reaches nothing outside itself."""
    config = {
        "enable_external_access": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    database = duckdb.connect(":memory:", config=config)
    database.execute("SET python_enable_replacements = false")  # else names of Python variables are tables
    database.execute("SET lock_configuration = true")
    return database


def _parse(database: Any, where: str) -> dict[str, Any]:
    """The syntax tree of a condition.

    It is parsed in the place where it will be evaluated, and all around it must come out as it does around ``true``:
    so nothing in it can end the expression and begin something else.
    """
    if not where.strip():
        raise InputError(f"--where is empty. {EXAMPLE}")
    statement, around = _tree(database, where), _tree(database, "true")
    if statement.get("error"):
        raise InputError(f"--where {where!r}: {statement['error_message'].splitlines()[0]}. {EXAMPLE}")
    condition = _taken_out(statement)
    _taken_out(around)
    if condition is None or _without_places(statement) != _without_places(around):
        raise InputError(f"--where {where!r}: not one condition. {EXAMPLE}")
    for node in _nodes(condition):
        problem = _problem(node)
        if problem:
            raise InputError(f"--where {where!r}: {problem}")
    return condition


def _problem(node: dict[str, Any]) -> str | None:
    """Why a node of a syntax tree is not allowed."""
    kind = node.get("class")
    if kind is not None and kind not in ALLOWED:
        return f"{kind.lower()} expressions are not allowed. {EXAMPLE}"
    if kind == "FUNCTION" and node["function_name"] not in FUNCTIONS:
        words = [name for name in FUNCTIONS if name[0].isalpha()]
        return f"the function {node['function_name']!r} is not allowed. {nearest(node['function_name'], words)}"
    if kind == "CAST":
        name = (node["type_expr"]["type_name"] if "type_expr" in node else node["cast_type"]["id"]).upper()  # 2.0, 1.4
        if name not in TYPES:
            return f"nothing can be cast to {name} here. {nearest(name, TYPES)}"
    return None


def _tree(database: Any, where: str) -> dict[str, Any]:
    rows = database.execute("SELECT json_serialize_sql(?)", [_statement(ROW, where)]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    return tree


def _taken_out(tree: dict[str, Any]) -> dict[str, Any] | None:
    """The condition of the first statement, which leaves the tree."""
    condition: dict[str, Any] | None = tree["statements"][0]["node"].pop("where_clause", None)
    return condition


def _without_places(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_places(value) for key, value in tree.items() if not key.startswith("query_location")}
    return [_without_places(value) for value in tree] if isinstance(tree, list) else tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a tree."""
    waiting = [tree]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, dict):
            yield thing
            waiting.extend(thing.values())
        elif isinstance(thing, list):
            waiting.extend(thing)


def _columns_of(condition: dict[str, Any], known: Sequence[str], where: str) -> list[str]:
    """The columns a condition reads; SQL does not mind capitals."""
    spelt = {name.lower(): name for name in known}
    used = []
    for node in _nodes(condition):
        if node.get("class") == "COLUMN_REF":
            name = node["column_names"][0]
            if name.lower() not in spelt:
                raise InputError(
                    f"--where {where!r}: no column {name!r}. {nearest(name, known)} Text stands in single quotes."
                )
            used.append(spelt[name.lower()])
    return sorted(set(used))


def _first_line(error: Exception) -> str:
    """What DuckDB says, without its kind of error and without the line of SQL."""
    return str(error).splitlines()[0].partition("Error: ")[2].rstrip(".!") or type(error).__name__
