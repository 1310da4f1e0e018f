"""The run directory: one writer at a time, and a link to it stays one."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from wscl_embed import fit
from wscl_embed.config import make_config
from wscl_embed.errors import InputError
from wscl_embed.run import Run
from wscl_embed.store.partial import Partial


@pytest.mark.parametrize("name", ["run", "link"])
def test_two_jobs_do_not_write_one_run(few: datasets.Dataset, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with Partial(tmp_path / "run").lock(), pytest.raises(InputError, match="run: is being written by process"):
        fit(few, "none", tmp_path / name, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_overwriting_through_a_link_leaves_it_where_it_leads(tmp_path: Path) -> None:
    """The larger disk that somebody put the run on."""
    place, link = tmp_path / "disk" / "run", tmp_path / "run"
    place.mkdir(parents=True)
    link.symlink_to(place)
    config = make_config({"data": "photos", "adapter": ["none"], "output": str(link)})
    for overwrite in (False, True):
        Run(link).begin(config, overwrite=overwrite)
        assert (place / "config.yaml").is_file()
        assert not (place / "old").exists()
        (place / "old").touch()
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.yaml", "disk", "old", "run", "run"]
