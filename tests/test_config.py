"""What a run is made of: options that do not go together, and errors that go from process to process."""

from __future__ import annotations

import pickle
from typing import Any

import datasets
import pytest

from wscl_embed import cluster
from wscl_embed.config import make_config
from wscl_embed.errors import InputError, MissingExtraError, StorageError, WsclEmbedError
from wscl_embed.images import BadImageError
from wscl_embed.pipeline.clustering import MAX_REPEATS
from wscl_embed.stages.inputs import open_dataset


def config(**options: Any) -> Any:
    return make_config({"data": "-", "adapter": ["none"], "output": "-", **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compile": True, "unlocked_groups": 1}, "--unlocked-groups, --compile: for --tune full only"),
        ({"recluster_warmup": 2}, "--recluster-warmup: give --recluster-every as well"),
        ({"lam": 0.5}, "--lam: weighs the denominator of RINCE; give --q above 0 as well"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config(**options)
    assert config(lam=0.5, q=0.1).lam == 0.5


def test_a_share_to_hold_out_is_not_used_in_silence(few: datasets.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    for holdout, said in ((0.2, False), (0.5, True)):
        open_dataset(few, config(label_column="label", eval_split="val+test", holdout=holdout))
        assert ("which says what is held out: --holdout is not used" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 3}, "unknown option 'seed'. There are: cache_dir, device"),
        ({"epochs": 3}, "unknown option 'epochs'"),
        ({"stability": MAX_REPEATS + 1, "diagnostics": "found.json"}, "0, or 2 to 100; got 101"),
    ],
)
def test_clustering_takes_no_options_of_training(options: dict[str, Any], said: str) -> None:
    posts = datasets.Dataset.from_dict({"tags": [["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"]]})
    with pytest.raises(InputError, match=said):
        cluster(posts, "hashtags", **options)


@pytest.mark.parametrize(
    "error",
    [
        MissingExtraError("duckdb", "search", "--where"),
        BadImageError("empty file"),
        StorageError("disk full"),
        InputError("no such column"),
    ],
)
def test_errors_reach_the_other_processes_whole(error: WsclEmbedError) -> None:
    """`distributed.on_first` sends what the first process raised to all."""
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), there.exit_code) == (type(error), str(error), error.exit_code)
