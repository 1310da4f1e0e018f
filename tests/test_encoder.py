"""`Encoder`: real weights, folding, locking, and that plain open_clip loads what it saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import open_clip
import pytest
import timm
import torch

from wscl_embed.dataset import image_source
from wscl_embed.encoder import CONFIG_NAME, WEIGHTS_NAME, Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import InputError, MissingExtraError
from wscl_embed.images import decode_image

if TYPE_CHECKING:
    import datasets

TOWERS = [("ViT-S-32-alt", 64), ("RN50", 64), ("timm/resnet10t", 64), ("timm/vit_tiny_patch16_224", None)]
# Running shoe, T-shirt, umbrella, violin, shopping cart, traffic light.
SEEN = {"1f45f": 770, "1f455": 610, "2602-fe0f": 879, "1f3bb": 889, "1f6d2": 791, "1f6a6": 920}


def pixels(encoder: Encoder, n: int = 2) -> torch.Tensor:
    size = encoder.preprocess_cfg["size"]
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def encode(encoder: Encoder) -> torch.Tensor:
    return encoder.encode(pixels(encoder))


def test_lite0_sees_what_the_emoji_show() -> None:
    """Weights in the right places: with ImageNet's own classifier a shoe is a shoe."""
    from wscl_embed.dataset import load_dataset
    from wscl_embed.demo import EMOJI
    from wscl_embed.encoder_sources import _lite0_checkpoint

    checkpoint = list(torch.load(_lite0_checkpoint(), weights_only=True).values())
    classifier, bias = checkpoint[-2:]
    encoder = load_encoder("efficientnet-lite0", image_size=128, device="cpu")
    rows = {row["id"]: row for row in load_dataset(EMOJI)}
    for emoji_id, imagenet_class in SEEN.items():
        image = decode_image(image_source(rows[emoji_id]["image"]))
        with torch.inference_mode():
            logits = encoder.encode(encoder.preprocess(image)[None]) @ classifier.T + bias
        assert logits.argmax() == imagenet_class, emoji_id


def test_saved_folder_loads_in_plain_open_clip(lite0: Encoder, emoji: datasets.Dataset, tmp_path: Path) -> None:
    weight = torch.eye(1280) + 0.01 * torch.randn(1280, 1280, generator=torch.Generator().manual_seed(0))
    lite0.fold(weight)
    lite0.save(tmp_path)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    model.eval()
    images = [decode_image(image_source(emoji[row]["image"])) for row in range(4)]
    with torch.inference_mode():
        theirs = model.encode_image(torch.stack([preprocess(image) for image in images]))
        ours = lite0.encode(torch.stack([lite0.preprocess(image) for image in images]))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CONFIG_NAME, WEIGHTS_NAME])


def test_saved_folder_loads_again_here(lite0: Encoder, tmp_path: Path) -> None:
    lite0.save(tmp_path / "model")
    for source in (tmp_path / "model", tmp_path, f"local-dir:{tmp_path / 'model'}"):
        assert load_encoder(str(source), device="cpu").weights_hash() == lite0.weights_hash()


@pytest.mark.parametrize(("name", "size"), TOWERS)
def test_fold_composes_a_linear_map(name: str, size: int | None) -> None:
    encoder = load_encoder(name, "none", image_size=size, device="cpu")
    weight = torch.randn(encoder.embed_dim, encoder.embed_dim, generator=torch.Generator().manual_seed(0))
    expected = encode(encoder) @ weight.T
    encoder.fold(weight)
    torch.testing.assert_close(encode(encoder), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "size"), TOWERS)
def test_lock_leaves_the_last_groups_and_the_projection(name: str, size: int | None, tmp_path: Path) -> None:
    encoder = load_encoder(name, "none", image_size=size, device="cpu")
    total = sum(p.numel() for p in encoder.model.visual.parameters())
    trainable = {}
    for groups in (0, 2):
        for parameter in encoder.model.parameters():
            parameter.requires_grad_(True)
        if name == "RN50" and groups:
            continue  # open_clip cannot unlock groups of its ResNets
        encoder.lock(groups)
        trainable[groups] = sum(p.numel() for p in encoder.model.visual.parameters() if p.requires_grad)
    assert 0 < trainable[0] < total
    assert trainable.get(2, total) > trainable[0]
    encoder.train()
    encoder.encode(pixels(encoder)).sum().backward()
    encoder.save(tmp_path)  # locking must not change the names of tensors, or open_clip refuses them
    open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")


def test_locked_batch_norms_keep_their_statistics(lite0: Encoder) -> None:
    lite0.lock(1)
    lite0.train()
    before = {key: value.clone() for key, value in lite0.model.visual.state_dict().items() if "running_mean" in key}
    lite0.encode(pixels(lite0, 4))
    after = lite0.model.visual.state_dict()
    changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert changed
    assert all(key.startswith(("trunk.blocks.6.", "trunk.bn2.")) for key in changed)


def test_an_image_only_encoder_refuses_text(lite0: Encoder) -> None:
    assert not lite0.has_text_tower
    with pytest.raises((RuntimeError, IndexError)):
        lite0.model.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a cat"]))


def test_own_config_and_checkpoint(tmp_path: Path) -> None:
    config = open_clip.get_model_config("ViT-S-32-alt") | {"embed_dim": 32}
    (tmp_path / "mine.json").write_text(json.dumps(config))
    encoder = load_encoder(str(tmp_path / "mine.json"), "none", image_size=64, device="cpu")
    torch.save(encoder.model.state_dict(), tmp_path / "mine.pt")
    again = load_encoder(str(tmp_path / "mine.json"), str(tmp_path / "mine.pt"), image_size=64, device="cpu")
    assert again.embed_dim == 32
    assert again.weights_hash() == encoder.weights_hash()


def test_timm_tower_gives_timms_features() -> None:
    trunk = timm.create_model("resnet10t", pretrained=False, num_classes=0).eval()
    encoder = load_encoder("timm/resnet10t", "none", device="cpu")
    encoder.model.visual.trunk.load_state_dict(trunk.state_dict())
    images = pixels(encoder)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.encode(images), trunk(images), rtol=1e-4, atol=1e-4)


def test_weights_hash_sees_weights_and_preprocessing(lite0: Encoder) -> None:
    other = load_encoder("efficientnet-lite0", image_size=64, device="cpu")
    assert other.weights_hash() != lite0.weights_hash()
    before = lite0.weights_hash()
    lite0.fold(torch.eye(1280) * 2)
    assert lite0.weights_hash() != before


def test_a_timm_tower_of_fixed_size_is_refused_at_another() -> None:
    """open_clip would save it, and could not load it."""
    with pytest.raises(InputError, match="224 pixels only"):
        load_encoder("timm/vit_tiny_patch16_224", "none", image_size=64, device="cpu")


@pytest.mark.parametrize(
    ("model", "pretrained", "said"),
    [
        ("ViT-B-33", None, "Did you mean ViT-B-32"),
        ("ViT-B-32", None, "needs --pretrained"),
        ("ViT-B-32", "laion2b_e17", "Did you mean laion2b_e16"),
        ("timm/no_such_model", None, "unknown timm model"),
        ("no/such/config.json", "none", "no such model config"),
        ("hf-hub:somebody/model", "none", "--pretrained none: hf-hub:somebody/model brings its own weights"),
        ("efficientnet-lite0", "no-such-file.pt", "no such checkpoint"),
    ],
)
def test_unknown_names_say_what_there_is(model: str, pretrained: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_encoder(model, pretrained, device="cpu")


def test_a_folder_brings_its_own_weights(lite0: Encoder, tmp_path: Path) -> None:
    lite0.save(tmp_path / "model")
    for model in (tmp_path, tmp_path / "model", f"local-dir:{tmp_path / 'model'}"):
        with pytest.raises(InputError, match=r"--pretrained none: .* brings its own weights; leave that option out"):
            load_encoder(str(model), "none", device="cpu")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.json: the model config cannot be read \(Is a directory\)"):
        load_encoder(str(tmp_path / "folder.json"), "none", device="cpu")


def test_a_tokenizer_without_its_library_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    encoder = Encoder(torch.nn.Identity(), {"text_cfg": {}}, "siglip", torch.device("cpu"), "ViT-B-16-SigLIP")
    with pytest.raises(MissingExtraError, match=r"the tokenizer of siglip needs .* 'wscl-embed\[captions\]'"):
        _ = encoder.tokenizer


def test_a_checkpoint_of_another_architecture(lite0: Encoder, tmp_path: Path) -> None:
    lite0.save(tmp_path)
    weights = str(tmp_path / WEIGHTS_NAME)
    for model in ("ViT-S-32-alt", "timm/resnet10t", "RN50"):
        with pytest.raises(InputError, match=f"checkpoint .*{WEIGHTS_NAME} does not fit model {model}"):
            load_encoder(model, weights, device="cpu")


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(marker).write_text, ("x",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="read safely"):
        load_encoder("efficientnet-lite0", str(tmp_path / "evil.pt"), device="cpu")
    assert not marker.exists()


def test_preprocessing_is_open_clips(lite0: Encoder, emoji: datasets.Dataset) -> None:
    tensor = lite0.preprocess(decode_image(image_source(emoji[0]["image"])))
    assert tensor.shape == (3, 48, 48)
    assert tensor.dtype == torch.float32
    assert np.isclose(float(tensor.max()), 1.0, atol=1e-3)  # white, with mean and std 0.5
