"""The installation: versions, whether torch and torchvision belong together, extras."""

from __future__ import annotations

import importlib.metadata as metadata
import re
from collections.abc import Iterator

from wscl_embed.doctor.finding import Finding, in_new_python

NAME = re.compile(r"[A-Za-z0-9._-]+")
EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")
FOR_US = ("benchmarks", "fuzz", "release", "test")  # extras for those who work on the package

TORCH = "import torch, warnings; torch.ones(2) @ torch.ones(2); print(torch.__version__)"
TORCHVISION = """
import torch, torchvision
boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
torchvision.ops.nms(boxes, torch.ones(1), 0.5)
print(torchvision.__version__)
"""


def required_torch() -> str | None:
    """The torch that the installed torchvision was built for, by its metadata; None where it says nothing.

    >>> required_torch() is None or required_torch()[0].isdigit()
    True
    """
    try:
        needs = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    exact = [re.match(r"torch\s*\(?==\s*([0-9][^\s;)]*)", one) for one in needs]
    return next((found[1] for found in exact if found), None)


def version(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torch_and_torchvision() -> Iterator[Finding]:
    """Whether torch works, and torchvision with it."""
    torch, torchvision, wanted = version("torch"), version("torchvision"), required_torch()
    said, error = in_new_python(TORCH)
    if error:
        found = f"version {torch} does not work: {error}" if torch else "not installed"
        yield Finding("torch", "broken", found, "pip install torch torchvision")
        return
    yield Finding("torch", "fine", said)
    pair = f"pip install torch=={wanted} torchvision=={torchvision}" if wanted else "pip install -U torch torchvision"
    plain = said.partition("+")[0]
    if torchvision is None:
        yield Finding("torchvision", "broken", "not installed", "pip install torchvision")
        return
    _, error = in_new_python(TORCHVISION)
    if wanted is not None and plain != wanted.partition("+")[0]:
        fits = f"{torchvision} was built for torch {wanted}, and torch is {said}"
        yield Finding("torchvision", "broken", f"{fits}{f': {error}' if error else ''}", pair)
    elif error:
        yield Finding("torchvision", "broken", f"{torchvision} does not work with torch {said}: {error}", pair)
    else:
        yield Finding("torchvision", "fine", f"{torchvision}, a pair with torch")


def requirements() -> Iterator[Finding]:
    """Whether what the package needs is installed, in versions it takes, and can be imported."""
    own = version("wscl-embed")
    if own is None:
        yield Finding("wscl-embed", "broken", "not installed, only on the path", "pip install wscl-embed")
        return
    yield Finding("wscl-embed", "fine", own)
    from packaging.requirements import Requirement

    for line in metadata.requires("wscl-embed") or []:
        need = Requirement(line)
        if need.name in ("torch", "torchvision") or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        have = version(need.name)
        if have is None or not need.specifier.contains(have, prereleases=True):
            said = f"{have or 'not installed'}; {need.name}{need.specifier} is needed"
            yield Finding(need.name, "broken", said, f"pip install '{need.name}{need.specifier}'")
        else:
            yield Finding(need.name, "fine", have)


def imports() -> Iterator[Finding]:
    """Whether the libraries that are compiled can be imported together."""
    _, error = in_new_python("import numpy, scipy.sparse, sklearn, pandas, pyarrow, h5py, datasets, open_clip, timm")
    if error:
        yield Finding("imports", "broken", error, "pip install --force-reinstall wscl-embed")


def extras() -> Iterator[Finding]:
    """Which optional parts are installed, and the line that installs the others."""
    missing: dict[str, list[str]] = {}
    for line in metadata.requires("wscl-embed") or [] if version("wscl-embed") else []:
        extra, name = EXTRA.search(line), NAME.match(line)
        if extra is None or name is None or extra[1] in FOR_US or name[0] == "wscl-embed":
            continue
        missing.setdefault(extra[1], [])
        if version(name[0]) is None:
            missing[extra[1]].append(name[0])
    for extra_name, names in sorted(missing.items()):
        if names:
            line = f"pip install 'wscl-embed[{extra_name}]'"
            yield Finding(f"[{extra_name}]", "note", f"not installed: {', '.join(names)}", line)
        else:
            yield Finding(f"[{extra_name}]", "fine", "installed")
