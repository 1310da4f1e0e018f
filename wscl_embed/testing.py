"""For authors of adapters: `check_adapter` runs the contract every built-in adapter keeps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from wscl_embed.adapter import Adapter
from wscl_embed.clusterers import as_rows
from wscl_embed.clusterers.noise import POLICIES
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import quiet
from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import datasets


def check_adapter(adapter: Adapter, dataset: datasets.Dataset, *, column: str | None = None) -> None:
    """See that an adapter keeps the contract, on a small dataset of yours, as scikit-learn's ``check_estimator`` does.

    Put it into a test of your plugin. Needs neither images nor a GPU.

    Args:
        adapter: as you would pass it to `wscl_embed.fit`.
        dataset: ten records or more with an ``id`` and the signal, none of them null, enough for two clusters.
        column: the signal column, for the checks of null and missing signals. Default: the adapter's option
            ``column``, if it has one. Without any, these checks are left out.

    Raises:
        InputError: a class in place of an adapter, or a ``column`` the dataset lacks.
        AssertionError: the first promise that is broken, with what to do.

    >>> import datasets
    >>> from wscl_embed.registry import make_adapter
    >>> shop = datasets.Dataset.from_dict({"id": list("abcdefghij"), "kind": ["shoe", "hat"] * 5})
    >>> check_adapter(make_adapter("labels:column=kind"), shop)
    """
    if not isinstance(adapter, Adapter):
        raise InputError(f"check_adapter takes an adapter, such as MyAdapter(), not {adapter!r}.")
    if column is not None:
        adapter.check_column(dataset, column)
    checks: list[Callable[[Adapter, datasets.Dataset], None]] = [
        check_options,
        check_clusters_of_every_record,
        check_table,
        check_repeatable,
        check_features_and_terms,
        check_selection,
        check_saved,
    ]
    for check in checks:
        check(adapter, dataset)
    column = column or getattr(adapter, "column", None)
    if column is not None and column in dataset.column_names:
        check_null_record(adapter, dataset, column)
        check_all_null(adapter, dataset, column)
        check_missing_column(adapter, dataset, column)
        if "noise" in adapter.option_fields():
            check_noise_policies(adapter, dataset, column)


def check_options(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """Options have a help line, and rebuild the adapter."""
    for name, field in adapter.option_fields().items():
        _require(field.metadata.get("help"), adapter, f"option {name!r} has no help line; use option(default, help)")
    again = type(adapter)(**adapter.options())
    _require(again.options() == adapter.options(), adapter, "its options do not rebuild it; keep them as given")


def check_clusters_of_every_record(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """`Clusters` over the records, in their order, two clusters or more; the dataset is left alone."""
    columns = list(dataset.column_names)
    clusters = adapter.assign(dataset)
    _require(isinstance(clusters, Clusters), adapter, f"assign() gave {type(clusters).__name__}, not Clusters")
    _require(clusters.ids == list(dataset["id"]), adapter, "the ids are not those of the dataset, in its order")
    _require(dataset.column_names == columns, adapter, "assign() changed the dataset")
    enough = clusters.n_clusters >= 2 or not adapter.expects_clusters
    _require(enough, adapter, f"{clusters.n_clusters} clusters of {len(dataset)} records; 2 are needed to learn from")


def check_table(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """One row a cluster: unique names, the adapter as source, sizes that are counted, terms that are words."""
    clusters = adapter.assign(dataset)
    table = clusters.table
    counted = np.bincount(clusters.membership.indices, minlength=clusters.n_clusters).tolist()
    _require(table["name"].is_unique, adapter, "two clusters have one name")
    _require((table["source"] == adapter.name).all(), adapter, "source is not the adapter's name in every row")
    _require(table["size"].tolist() == counted, adapter, "size is not how many records a cluster has")
    words = all(isinstance(term, str) for terms in table["terms"] for term in terms)
    _require(words, adapter, "terms must be lists of strings")


def check_features_and_terms(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """`features_and_terms` says what `features` and `terms` say."""
    if type(adapter).features is Adapter.features:
        return
    features, terms_of = adapter.features_and_terms(dataset)
    difference = sparse.csr_array(as_rows(features)) - sparse.csr_array(as_rows(adapter.features(dataset)))
    labels = np.zeros(len(dataset), dtype=np.int64)
    same = not np.nan_to_num(difference.data).any() and terms_of(labels) == adapter.terms(dataset, labels)
    _require(same, adapter, "features_and_terms() differs from features() and terms(); override all that changes")


def check_repeatable(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """The same records give the same clusters."""
    problem = "two calls gave different clusters; use the option seed for what is drawn at random"
    _require_same(adapter, adapter.assign(dataset), adapter.assign(dataset), problem)


def check_selection(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """A selection of rows is read as such, not the table behind it."""
    selected = dataset.select(np.random.default_rng(0).permutation(len(dataset))[1:])
    with quiet():
        copied = selected.flatten_indices()
    clusters = adapter.assign(selected)
    _require(clusters.ids == list(selected["id"]), adapter, "a dataset.select(...) is not read in its own order")
    _require_same(adapter, clusters, adapter.assign(copied), "a dataset.select(...) is not read as such")


def check_saved(adapter: Adapter, dataset: datasets.Dataset) -> None:
    """The clusters survive Parquet."""
    clusters = adapter.assign(dataset)
    with tempfile.TemporaryDirectory() as folder:
        clusters.save(Path(folder) / "clusters.parquet")
        loaded = Clusters.load(Path(folder) / "clusters.parquet")
    _require_same(adapter, clusters, loaded, "the clusters do not survive Parquet")


def check_null_record(adapter: Adapter, dataset: datasets.Dataset, column: str) -> None:
    """A record without the signal is noise: an empty row, in no cluster."""
    clusters = adapter.assign(_with_nulls(dataset, column, [0]))
    remedy = "give it a row of zeros or NaN in features()"
    _require(clusters.labels[0] == -1, adapter, f"a record with a null {column!r} is in a cluster; {remedy}")


def check_all_null(adapter: Adapter, dataset: datasets.Dataset, column: str) -> None:
    """Nothing but nulls is an error that names the column."""
    _refuses(adapter, _with_nulls(dataset, column, range(len(dataset))), column, "null in every record")


def check_noise_policies(adapter: Adapter, dataset: datasets.Dataset, column: str) -> None:
    """Whatever becomes of the noise, the raw labels stay, and a record without the signal joins no cluster."""
    dataset = _with_nulls(dataset, column, [0])
    made = [replace(adapter, noise=policy).assign(dataset) for policy in POLICIES]
    for policy, clusters in zip(POLICIES, made, strict=True):
        problem = f"noise={policy} is lost or changes the raw labels; build on super().assign() or pass raw to Clusters"
        kept = clusters.raw_labels.tolist() == made[0].raw_labels.tolist()
        _require(kept and [raw.policy for raw in clusters.raw] == [policy], adapter, problem)
        alone = clusters.labels[0] == -1 and clusters.dropped[0] == (policy == "drop")
        _require(alone, adapter, f"noise={policy} does not leave a record with a null {column!r} alone")


def check_missing_column(adapter: Adapter, dataset: datasets.Dataset, column: str) -> None:
    """A missing column is an error that names it."""
    _refuses(adapter, dataset.remove_columns(column), column, "missing")


def _refuses(adapter: Adapter, dataset: datasets.Dataset, column: str, what: str) -> None:
    try:
        adapter.assign(dataset)
    except InputError as error:
        _require(
            column in str(error), adapter, f"the error for a column that is {what} does not name {column!r}: {error}"
        )
        return
    except Exception as error:
        raise AssertionError(_broken(adapter, f"a column that is {what} raised {error!r}, not InputError")) from error
    raise AssertionError(_broken(adapter, f"a column that is {what} is accepted; read it with Adapter.read()"))


def _with_nulls(dataset: datasets.Dataset, column: str, rows: Any) -> datasets.Dataset:
    values = list(dataset[column])
    for row in rows:
        values[row] = None
    with quiet():
        return dataset.remove_columns(column).add_column(column, values, feature=dataset.features[column])


def _require_same(adapter: Adapter, first: Clusters, second: Clusters, problem: str) -> None:
    same_shape = first.ids == second.ids and first.n_clusters == second.n_clusters
    same_shape = same_shape and first.raw_labels.tolist() == second.raw_labels.tolist()
    _require(same_shape and abs(first.membership - second.membership).sum() == 0, adapter, problem)


def _require(kept: object, adapter: Adapter, problem: str) -> None:
    if not kept:
        raise AssertionError(_broken(adapter, problem))


def _broken(adapter: Adapter, problem: str) -> str:
    return f"adapter {getattr(adapter, 'name', type(adapter).__name__)}: {problem}."
