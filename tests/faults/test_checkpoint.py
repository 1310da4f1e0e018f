"""Checkpoints that are damaged, of something else, or hostile."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.errors import DivergedError, InputError
from wscl_embed.save_every import SaveEvery
from wscl_embed.train import TrainOptions
from wscl_embed.train.saving import Saving


def module(value: float = 0.0) -> nn.Linear:
    layer = nn.Linear(40, 20)
    nn.init.constant_(layer.weight, value)
    return layer


def restored(checkpoints: Checkpoints) -> float:
    """What the weights are after restoring; 0 where there was nothing."""
    layer = module()
    checkpoints.restore({"module": layer})
    return float(layer.weight[0, 0].detach())


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    """Weights 1.0 after one epoch, and 2.0 after two steps of the next."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"dataset": "d"})
    for value, place in ((1.0, (1, 0)), (2.0, (1, 2))):
        checkpoints.save(*place, {"module": module(value)})
    return checkpoints


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path: Path) -> None:
    assert not Checkpoints(tmp_path / "none").restore({"module": module()})


def test_the_last_two_are_kept_and_the_last_is_taken(two: Checkpoints) -> None:
    assert restored(two) == 2.0
    two.save(2, 0, {"module": module(3.0)})
    assert [path.name for path in sorted(two.folder.iterdir())] == [
        "epoch-00001-step-0000002",
        "epoch-00002-step-0000000",
    ]
    assert restored(two) == 3.0
    two.save(2, 0, {"module": module(4.0)})  # the same place once more
    assert restored(two) == 4.0
    assert len(two.paths()) == 2


def test_after_many_epochs_the_last_is_still_the_last(tmp_path: Path) -> None:
    many = Checkpoints(tmp_path / "many")
    for epoch, value in ((99_999, 1.0), (100_000, 2.0), (100_001, 3.0)):
        many.save(epoch, 0, {"module": module(value)})
    assert [path.name[6:12] for path in many.paths()] == ["100000", "100001"]
    assert restored(many) == 3.0


@pytest.mark.parametrize("name", ["state.pt", "COMMITTED"])
def test_every_flipped_byte_and_every_cut_is_noticed(
    name: str, two: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 40 places each, over all of the file; the checkpoint before is taken, and it is said."""
    path = two.paths()[-1]
    content = (path / name).read_bytes()
    places = {len(content) * number // 40 for number in range(40)}
    for place in sorted(places):
        for spoilt in (content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :], content[:place]):
            (path / name).write_bytes(spoilt)
            assert restored(two) == 1.0
            aside = path.with_name(path.name + ".damaged")
            said = capsys.readouterr().err.replace("\n", "")
            assert f"{path} is damaged" in said
            assert "the checkpoint before it is taken" in said
            aside.rename(path)
    (path / name).write_bytes(content)
    assert restored(two) == 2.0


def test_a_damaged_one_is_put_aside_until_two_good_ones_are_there(two: Checkpoints) -> None:
    (two.paths()[-1] / "state.pt").unlink()
    assert restored(two) == 1.0
    names = ["epoch-00001-step-0000000", "epoch-00001-step-0000002.damaged"]
    assert sorted(path.name for path in two.folder.iterdir()) == names
    two.save(1, 2, {"module": module(5.0)})
    assert sorted(path.name for path in two.folder.iterdir()) == [
        "epoch-00001-step-0000000",
        "epoch-00001-step-0000002",
    ]
    assert restored(two) == 5.0


def test_when_all_are_damaged_nothing_is_begun_behind_your_back(two: Checkpoints) -> None:
    for path in two.paths():
        (path / "state.pt").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"checkpoints: every checkpoint is damaged\. Give --overwrite to start anew"):
        restored(two)
    assert len(two.paths()) == 2


def test_another_architecture_and_other_facts_are_refused(two: Checkpoints) -> None:
    for state in ({"module": nn.Linear(3, 3)}, {"module": module(), "optimiser": module()}):
        with pytest.raises(InputError, match="of another architecture"):
            two.restore(state)
    with pytest.raises(InputError, match=r"of something else: dataset: d -> e\. Give --overwrite"):
        restored(Checkpoints(two.folder, {"dataset": "e"}))


def test_one_of_a_newer_version_is_refused(two: Checkpoints) -> None:
    recommit(two.paths()[-1], format_version=2)
    with pytest.raises(InputError, match="written by a newer version of wscl-embed"):
        restored(two)


def recommit(checkpoint: Path, **changed: object) -> None:
    """Change what is committed, as somebody does who knows how."""
    line, _ = (checkpoint / "COMMITTED").read_bytes().split(b"\n")
    line = json.dumps({**json.loads(line), **changed}).encode()
    (checkpoint / "COMMITTED").write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode())


def test_a_checkpoint_is_never_unpickled(two: Checkpoints, tmp_path: Path) -> None:
    """Not even one whose hash somebody made fit."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("x",))

    path = two.paths()[-1]
    torch.save({"module": Evil()}, path / "state.pt")
    content = (path / "state.pt").read_bytes()
    recommit(path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    assert restored(two) == 1.0
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "1.5", "10h", "often"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500, or of minutes such as 10m"):
        SaveEvery.parse(text)
    assert SaveEvery.parse("0.5m") == SaveEvery(seconds=30.0)


def test_weights_that_are_no_numbers_take_no_good_ones_place(tmp_path: Path) -> None:
    """The loss of the step before is still finite then."""
    options = TrainOptions(1, 2, 1, 0.1, 0.0, 0.2, "none")
    layer = module(1.0)
    saving = Saving(Checkpoints(tmp_path), {}, layer, options)
    saving.progress.step, saving.progress.losses = 1, [torch.tensor(0.5)]
    saving.save()
    with torch.no_grad():
        layer.weight[0, 0] = torch.inf
    saving.progress.step = 2
    with pytest.raises(DivergedError, match=r"the weights became infinite .* is .*epoch-00000-step-0000001\.$"):
        saving.save()
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00000-step-0000001"]
