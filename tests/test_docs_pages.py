"""Every command and every piece of Python on the pages of docs/ is run, page by page, on real images."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import CliRunner

from tests.conftest import IMAGE_SIZE
from wscl_embed import encoder_sources
from wscl_embed.cli import COMMANDS, group
from wscl_embed.encoder import Encoder

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
SLOW = ("torchrun ", "wscl-embed demo ")
SLOW_PAGES = ("how-to/captions.md", "how-to/nothing.md", "how-to/vector-database.md")  # several runs, or ONNX
NOT_HERE = ("lancedb", "autofaiss")  # libraries of others, whose lines are shown and not run


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of the shell blocks of a page."""
    return [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def with_text(dataset: datasets.Dataset, row: int) -> dict[str, object]:
    """The signals the pages speak of, from what an emoji has."""
    record = dataset[row]
    kept = {key: record[key] for key in ("id", "tags", "captions", "split")}
    colour, size = ("red", "blue")[row % 2], ("small", "large")[row // 2 % 2]
    attributes = {"colour": colour, "size": size, "group": record["label"]}
    path = f"emoji/{record['label']}/{record['id']}"
    return {**kept, "category": record["label"], "colour": colour, "size": size, "attributes": attributes, "path": path}


@pytest.fixture(scope="module")
def workplace(few: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages assume: photos/, images-only/, emoji.parquet, query.png, and the run runs/photos."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("photos/images", "images-only"):
        (folder / name).mkdir(parents=True)
    with (folder / "photos/metadata.jsonl").open("w", encoding="utf-8") as lines:
        for row, image in enumerate(few["image"]):
            name = f"{few[row]['id']}.png"
            for place in ("photos/images", "images-only"):
                (folder / place / name).write_bytes(image["bytes"])
            line = {"file_name": f"images/{name}", **with_text(few, row)}
            print(json.dumps(line, ensure_ascii=False), file=lines)
    few.to_parquet(folder / "emoji.parquet")
    shutil.copy(folder / "photos/images" / f"{few[0]['id']}.png", folder / "query.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The pages do not speak of the size of images; at the encoder's own they would take minutes.
        patch.setattr(encoder_sources, "load_encoder", smaller(encoder_sources.load_encoder))
        run("wscl-embed fit --data photos/ --adapter hashtags --label-column category --output runs/photos")
        yield folder


def smaller(load_encoder: Callable[..., Encoder]) -> Callable[..., Encoder]:
    """The same with images of 48 pixels where no size is asked for."""

    def load(*args: Any, image_size: int | None = None, **options: Any) -> Encoder:
        return load_encoder(*args, image_size=image_size or IMAGE_SIZE, **options)

    return load


def run(line: str) -> None:
    """A command of ours in this process, another in one of its own."""
    program, *arguments = shlex.split(line)
    if program == "wscl-embed":
        result = CliRunner().invoke(group, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        return
    command = [sys.executable, "-m", "torch.distributed.run", *arguments] if program == "torchrun" else [program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW_PAGES else [])
        for page in PAGES
        if commands(page) or blocks(page, "python")
    ],
)
def test_what_a_page_shows_works(page: str, workplace: Path) -> None:
    for line in commands(page):
        if line.startswith("wscl-embed ") and not line.startswith(SLOW):
            run(line)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        if not any(name in block for name in NOT_HERE):
            exec(compile(block, page, "exec", dont_inherit=True), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page) if line.startswith(SLOW)])
def test_the_longer_commands_work(line: str, workplace: Path) -> None:
    run(line)


def test_no_command_is_left_out() -> None:
    extras = metadata.metadata("wscl-embed").get_all("Provides-Extra")
    for page in PAGES:
        for line in commands(page):
            if line.startswith("pip install "):
                (wanted,) = re.findall(r"^pip install '?wscl-embed(?:\[(.*?)\])?'?$", line)
                assert set(filter(None, wanted.split(","))) <= set(extras), line
            else:
                assert line.startswith(("wscl-embed ", "torchrun ")), f"{page}: nobody runs {line!r}"


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert "Cl-InfoNCE" in page
    assert "Raises" in page
    commands_page = (tmp_path / "site" / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    assert all(f"wscl-embed {name}" in commands_page for name in COMMANDS)
    assert "Sentinel" not in commands_page
