"""Documentation that is executed: docstrings' examples, the README's commands and code, the example scripts."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import datasets
import numpy as np
import pytest

import wscl_adapters
import wscl_embed
from wscl_embed.cli import COMMANDS, group
from wscl_embed.registry import make_adapter

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = "\n".join([README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))])


def documented_modules() -> list[str]:
    """Our modules with an example in a docstring."""
    names = []
    for package in (wscl_embed, wscl_adapters):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            if ">>>" in path.read_text(encoding="utf-8"):
                parts = path.relative_to(Path(str(package.__file__)).parent).with_suffix("").parts
                names.append(".".join([package.__name__, *(part for part in parts if part != "__init__")]))
    return names


@pytest.mark.parametrize("name", documented_modules())
def test_the_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("package", [wscl_embed, wscl_adapters])
def test_every_module_says_what_it_is(package: object) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):  # type: ignore[attr-defined]
        source = importlib.util.find_spec(module.name)
        assert source is not None
        assert source.origin is not None
        assert ast.get_docstring(ast.parse(Path(source.origin).read_text(encoding="utf-8"))), module.name


def documented_commands() -> list[str]:
    return re.findall(r"^ +(wscl-embed .*)$", GUIDES.replace("\\\n", " "), flags=re.MULTILINE)


def test_the_commands_of_the_readme_and_the_guides_parse() -> None:
    lines = documented_commands()
    assert lines
    for line in lines:
        _, name, *arguments = shlex.split(line.replace("...", ""), comments=True)
        command = group.get_command(click.Context(group), name)
        assert command is not None, line
        context = command.make_context(name, arguments)
        for spec in context.params.get("adapter") or ():
            make_adapter(spec)


def test_the_readme_or_a_guide_names_every_command_and_the_readme_every_adapter() -> None:
    for name in COMMANDS:
        assert re.search(rf"(wscl-embed|make) {name}\b", GUIDES), name
    for name in ("hashtags", "captions", "attributes", "image_features", "labels", "none"):
        assert f"`{name}" in README, name


def test_the_adapter_of_the_readme_works() -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "Adapter)" in block]
    namespace: dict[str, object] = {}
    exec(code, namespace)
    (cls,) = [value for name, value in namespace.items() if name.endswith("Adapter") and name != "Adapter"]
    prices = [1.0, 1.1, None, 900.0, 1000.0]
    dataset = datasets.Dataset.from_dict({"id": [str(row) for row in range(5)], "price": prices})
    labels = cls(n_clusters=2).assign(dataset).labels  # type: ignore[operator]
    assert labels[2] == -1
    assert len(np.unique(labels)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_the_example_scripts_run(script: str, tmp_path: Path) -> None:
    environment = {**os.environ, "WSCL_EMBED_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "examples" / script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "better" in done.stdout
