"""A third party's adapter, installed with pip; and AdapterHub's distribution ``adapters`` beside ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wscl_embed

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "examples" / "custom_adapter"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder pip installed the example into, without a network and without leaving a trace in the example."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *offline, "--target", folder / "site", folder / "source"], check=True)
    return folder / "site"


def run(path: Path, *arguments: object, cwd: Path | None = None) -> str:
    """stdout of a new interpreter with ``path`` before what is installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=cwd or path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_two_short_files() -> None:
    files = {path.name: path.read_text(encoding="utf-8").splitlines() for path in PLUGIN.iterdir() if path.is_file()}
    assert files.keys() == {"pyproject.toml", "title_words.py"}
    assert all(len(lines) < 50 for lines in files.values())


def test_it_is_listed_with_its_origin_and_options(installed: Path) -> None:
    listed = run(installed, "-m", "wscl_embed", "adapters")
    assert "title_words  (wscl-embed-title-words 0.1.0, title_words:TitleWordsAdapter)" in listed
    assert "hashtags  (wscl-embed " in listed
    own = run(installed, "-m", "wscl_embed", "adapters", "title_words")
    assert "column=title  " in own
    assert "clusterer=kmeans  " in own


def test_it_runs_in_fit(installed: Path, emoji_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(emoji_folder, photos)
    lines = (photos / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (photos / "metadata.jsonl").write_text("".join(lines[::4]), encoding="utf-8")
    adapter = "title_words:column=captions,n_clusters=8"
    options = ["--image-size", 32, "--cached-views", 1, "--epochs", 1, "--workers", 0, "--device", "cpu"]
    scored = ["--label-column", "label", "--eval-split", "val+test", "--output", tmp_path / "run"]
    out = run(installed, "-m", "wscl_embed", "fit", "--data", photos, "--adapter", adapter, *options, *scored)
    assert "Verdict" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["clusters"]["n_clusters"] == 8
    assert adapter in (tmp_path / "run" / "config.yaml").read_text()


def test_its_mistakes_are_explained_like_ours(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    from datasets import Dataset

    from wscl_embed.errors import InputError
    from wscl_embed.registry import make_adapter

    titles = ["red shoes", "a red shoe", "blue shirts", None]
    dataset = Dataset.from_dict({"id": list("abcd"), "title": titles})
    adapter = make_adapter("title_words:n_clusters=2")
    assert adapter.assign(dataset).labels.tolist()[::3] == [0, -1]
    with pytest.raises(InputError, match=r"no column 'titel'\. Its columns are: title"):
        make_adapter("title_words:column=titel").assign(dataset)
    with pytest.raises(InputError, match="no option 'ngram'"):
        make_adapter("title_words:ngram=3")


def test_adapterhubs_distribution_stays_importable(tmp_path: Path) -> None:
    """PyPI's ``adapters`` has a package of that name; our source root of that name must neither be one nor hide it."""
    package = tmp_path / "site" / "adapters"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'of AdapterHub'\n")
    (package / "composition.py").write_text("class Stack: pass\n")
    code = (
        "import adapters, adapters.composition, wscl_adapters.hashtags, wscl_embed\n"
        "from wscl_embed.registry import make_adapter\n"
        "print(adapters.__version__, adapters.composition.Stack.__name__, make_adapter('hashtags').name)"
    )
    for cwd in (tmp_path, ROOT):  # in a clone the source root is on the path as well
        assert run(package.parent, "-c", code, cwd=cwd) == "of AdapterHub Stack hashtags\n"


def test_the_source_root_of_the_adapters_is_no_package() -> None:
    source_root = Path(wscl_embed.__file__).parent.parent / "adapters"
    if not source_root.is_dir():
        pytest.skip("installed as a wheel: there is no source root")
    assert not (source_root / "__init__.py").exists()
    assert [path.name for path in source_root.iterdir() if not path.name.startswith((".", "__"))] == ["wscl_adapters"]
