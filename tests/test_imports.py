"""What importing costs, and which room may look into which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wscl_adapters
import wscl_embed

CORE = Path(wscl_embed.__file__).parent
ADAPTERS = Path(wscl_adapters.__file__).parent
HEAVY = {
    "datasets",
    "faiss",
    "h5py",
    "hdbscan",
    "open_clip",
    "pandas",
    "sentence_transformers",
    "sklearn",
    "starlette",
    "timm",
    "torch",
    "torchvision",
    "transformers",
    "uvicorn",
}
COMMANDS = [
    "--help",
    "--version",
    "adapters --help",
    "fit --help",
    "demo --help",
    "search --help",
    "serve --help",
    "index --help",
    "adapters",
]
ADAPTER_SIDE = {
    "wscl_embed",
    *(
        f"wscl_embed.{name}"
        for name in (
            "adapter",
            "cache",
            "clusterers",
            "clusters",
            "errors",
            "limits",
            "raw_labels",
            "registry",
            "terms",
        )
    ),
    "wscl_embed.readers.metadata",
}
ENTRANCES = ("wscl_embed.stages", "wscl_embed.pipeline", "wscl_embed.demo", "wscl_embed.cli", "wscl_embed.__main__")


def loaded_by(code: str) -> set[str]:
    """The top-level modules a new interpreter has loaded after ``code``."""
    code = f"import sys\n{code}\nprint('', *sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_computes_nothing_loads_nothing_heavy(command: str) -> None:
    loaded = loaded_by(f"sys.argv = {['wscl-embed', *command.split()]}\nfrom wscl_embed.cli import main\nmain()")
    assert "wscl_embed" in loaded
    assert not loaded & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import wscl_embed, wscl_adapters") & (HEAVY | {"numpy", "scipy", "pydantic", "click"})


def test_every_public_name_is_there() -> None:
    assert {name: getattr(wscl_embed, name).__name__ for name in wscl_embed.__all__} == {
        name: name for name in wscl_embed.__all__
    }
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = wscl_embed.fitt


def modules(root: Path) -> Iterator[tuple[str, set[str]]]:
    """Each module below ``root``: its dotted name, and the modules of ours it imports anywhere, functions included."""
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        name = ".".join(part for part in parts if part != "__init__")
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                found.add(node.module or "")
        yield name, {module for module in found if module.partition(".")[0] in ("wscl_embed", "wscl_adapters")}


IMPORTS = dict(modules(CORE))


def test_the_core_never_imports_an_adapter() -> None:
    assert len(IMPORTS) > 30
    assert [name for name, ours in IMPORTS.items() if any(module.startswith("wscl_adapters") for module in ours)] == []


@pytest.mark.parametrize("room", ["wscl_embed.loss", "wscl_embed.sampling"])
def test_loss_and_sampling_stand_alone(room: str) -> None:
    inside = {name: ours for name, ours in IMPORTS.items() if name == room or name.startswith(f"{room}.")}
    assert inside
    assert not {module for ours in inside.values() for module in ours if not module.startswith(room)}


def test_adapters_import_the_adapter_side_only() -> None:
    beside = dict(modules(ADAPTERS))
    found = {name: ours - ADAPTER_SIDE - beside.keys() for name, ours in beside.items()}
    assert len(found) > 5
    assert found == {key: set() for key in found}


def test_nothing_below_imports_what_strings_it_together() -> None:
    """cli -> demo -> pipeline -> stages -> the rest, and never back."""
    for name, ours in IMPORTS.items():
        upwards = {module for module in ours if floor(module) > floor(name)}
        assert name == "wscl_embed" or not upwards, name


def floor(module: str) -> int:
    """0 for the rest, then the number of the room that strings the lower ones together."""
    rooms = [number for number, room in enumerate(ENTRANCES, 1) if f"{module}.".startswith(f"{room}.")]
    return max(rooms, default=0)
