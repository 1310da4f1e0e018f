"""The whole job without what the extras bring, as `pip install 'wscl-embed[demo]'` leaves it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OPTIONAL = (
    "duckdb",
    "faiss",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "sentence_transformers",
    "starlette",
    "tensorboard",
    "transformers",
    "uvicorn",
)

WITHOUT = f"""
from importlib.machinery import PathFinder
found = PathFinder.find_spec
@staticmethod
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {OPTIONAL} else found(name, path, target)
PathFinder.find_spec = find_spec
from wscl_embed.cli import main
main()
"""


def test_a_run_needs_no_extra_but_the_weights(emoji_folder: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--data", emoji_folder, "--adapter", "hashtags:min_df=1", "--label-column", "label"]
    arguments += ["--image-size", 32, "--epochs", 1, "--workers", 0, "--output", tmp_path / "run"]
    arguments += ["--cache-dir", tmp_path / "cache"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout
    assert "Search it: wscl-embed search" in done.stdout
    assert (tmp_path / "run" / "embeddings.h5").is_file()
