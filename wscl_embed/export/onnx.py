"""``onnx``: the image tower for ONNX Runtime and whatever else runs ONNX.

Input ``pixel_values`` (N, 3, H, W) float32, as the model's preprocessing gives it (``preprocess`` in the metadata);
output ``embedding`` (N, D) float32, of unit length. N is free.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wscl_embed.encoder import Encoder
from wscl_embed.errors import InputError, WsclEmbedError, import_extra
from wscl_embed.readers.source import beginning, innermost

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 2_000_000_000  # bytes of weights
TOLERANCE = 1e-4  # between two libraries' float32, on coordinates of unit vectors


class UnitTower(nn.Module):
    """(N, 3, H, W) -> (N, D), of unit length."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D)"""
        return nn.functional.normalize(self.visual(pixel_values), dim=-1)


def write(encoder: Encoder, output: Path) -> None:
    """Write the tower, and see that ONNX Runtime gets what PyTorch gets.

    Raises:
        MissingExtraError: the packages of the extra ``onnx`` are not there.
        InputError: a tower too large for one ONNX file.
        WsclEmbedError: PyTorch cannot write this tower, or the results differ.
    """
    for module, package in (("onnx", "onnx"), ("onnxscript", "onnxscript"), ("onnxruntime", "onnxruntime")):
        import_extra(module, package=package, extra="onnx", needed_for="--layout onnx")
    import onnx

    visual: Any = encoder.model.visual
    if sum(parameter.numel() for parameter in visual.parameters()) * 4 >= LARGEST:
        raise InputError(f"the image tower of {encoder.name} is larger than the 2 GB an ONNX file holds.")
    tower = UnitTower(visual.to("cpu", memory_format=torch.contiguous_format)).eval()
    size = encoder.preprocess_cfg["size"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    program = convert(tower, pixels)
    assert program is not None
    model = program.model_proto
    for key, value in (("encoder", encoder.name), ("weights_hash", encoder.weights_hash())):
        model.metadata_props.add(key=key, value=value)
    model.metadata_props.add(key="preprocess", value=json.dumps(encoder.preprocess_cfg))
    onnx.save(model, output)
    check(tower, output, torch.cat([pixels, pixels[:1] + 1]))


def convert(tower: UnitTower, pixels: Tensor) -> Any:
    """The tower as torch's exporter has it.

    Raises:
        WsclEmbedError: it cannot, with the error that began it; where that is one of Python code that expects another
            library than there is, the versions that fit each other are named.
    """
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        try:
            return torch.onnx.export(
                tower,
                (pixels,),
                input_names=["pixel_values"],
                output_names=["embedding"],
                dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
        except MemoryError:
            raise
        except Exception as error:  # whatever PyTorch, onnxscript and onnx-ir raise
            said = f"PyTorch cannot write this image tower as ONNX ({innermost(error)})."
            raise WsclEmbedError(said + versions_hint(error)) from error


def versions_hint(error: BaseException) -> str:
    """What to install, where the error that began ``error`` looks like libraries of times that do not fit."""
    if not isinstance(beginning(error), (AttributeError, ImportError, TypeError)):
        return ""
    return (
        f" torch {torch.__version__} and onnxscript {version('onnxscript')} may not fit each other: torch 2.6 takes "
        "onnxscript 0.2.7, onnx 1.17 and protobuf 6; else install the newest of each."
    )


def check(tower: UnitTower, path: Path, pixels: Tensor) -> None:
    """See that both give the same for ``pixels``, one at a time and all at once."""
    with torch.inference_mode():
        expected = tower(pixels).numpy()
    for start, stop in ((0, 1), (0, len(pixels))):
        found = run(path, pixels[start:stop].numpy())
        difference = float(abs(found - expected[start:stop]).max())
        if not difference <= TOLERANCE:
            raise WsclEmbedError(f"ONNX Runtime differs from PyTorch by {difference:.1e}; nothing was written.")


def run(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, H, W) -> (N, D) by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (embedding,) = session.run(["embedding"], {"pixel_values": pixels})
    return embedding  # type: ignore[no-any-return]
