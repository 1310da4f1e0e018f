"""The command line: a mistake costs one line and exit code 2 and writes nothing."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from wscl_embed.cli import main
from wscl_embed.config import FitConfig
from wscl_embed.demo import EMOJI
from wscl_embed.registry import GROUP

Rows = list[dict[str, Any]]
# What may stand before the error: how long a stage took, and what an adapter found.
PROGRESS = re.compile(r"[a-z ]+: [\d.]+ s|adapter \w+|  .*")


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["wscl-embed", *map(str, arguments)])
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        return Outcome(int(code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def photos(emoji_folder: Path, tmp_path: Path) -> Path:
    """A folder of 60 emoji with their metadata, to spoil."""
    folder = tmp_path / "photos"
    shutil.copytree(emoji_folder, folder)
    write_rows(folder, read_rows(folder)[::4])
    return folder


def read_rows(folder: Path) -> Rows:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


def write_rows(folder: Path, rows: Rows) -> None:
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def snapshot(folder: Path) -> dict[Path, bytes]:
    """Every file below ``folder``, and every empty folder."""
    return {
        path: path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def check_refused(cli: Cli, place: Path, arguments: list[object], said: str) -> None:
    """The command must end with one line that says ``said`` and code 2, and leave every file as it was."""
    before = snapshot(place)
    outcome = cli(*arguments)
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    *earlier, last = outcome.err.splitlines()
    assert last.startswith("error: ")
    assert said in last
    assert all(PROGRESS.fullmatch(line) for line in earlier if line), outcome.err
    assert snapshot(place) == before


def fit_arguments(photos: Path, output: Path, *more: object, adapter: str = "hashtags:min_df=1") -> list[object]:
    quick = ["--image-size", 48, "--epochs", 1, "--cached-views", 1, "--workers", 0, "--device", "cpu"]
    return ["fit", "--data", photos, "--adapter", adapter, "--output", output, *quick, *more]


@pytest.mark.parametrize(
    ("adapter", "more", "said"),
    [
        ("hashtags:column=tagz", (), "no column 'tagz'. Its columns are: tags, captions, label, split."),
        ("hashtag", (), "unknown adapter 'hashtag'. Did you mean hashtags?"),
        ("hashtags:min_tf=2", (), "no option 'min_tf'. Did you mean min_df?"),
        ("hashtags:min_df=two", (), "min_df='two': Input should be a valid integer"),
        ("hashtags:min_informativeness=5", (), "min_informativeness must be at least 0 and at most 1; got 5"),
        ("none", ("--label-column", "labl"), "'labl': no such column. The dataset has: tags, captions, label, split."),
        ("none", ("--label-column", "tags"), "no label occurs twice among the"),
        ("none", ("--label-column", "label", "--eval-split", "tset"), "no such split. There are: test, train, val."),
        ("none", ("--caption-column", "capt"), "--caption-column 'capt': no such column. The dataset has: tags,"),
        ("none", ("--caption-column", "captions"), "the model efficientnet-lite0 has no text tower"),
        ("none", ("--model", "resnet18"), "unknown model 'resnet18'. Did you mean timm/resnet18?"),
        ("none", ("--model", "ViT-B-33"), "unknown model 'ViT-B-33'. Did you mean ViT-B-32"),
        ("none", ("--adapter-weight", 1, "--adapter-weight", 2), "1 --adapter, but 2 --adapter-weight"),
        ("none", ("--device", "gpu"), "--device 'gpu': no such device; there are auto, cpu, cuda"),
        ("none", ("--image-size", 4), "--image-size 4: Input should be greater than or equal to 8"),
        ("none", ("--epochs", "many"), "Invalid value for '--epochs': 'many' is not a valid integer"),
        ("none", ("--tune", "heads"), "'heads' is not one of 'head', 'full'"),
        ("none", ("--adaptr", "x"), "--adaptr"),
        ("none", ("--overwrite", "--resume"), "give --overwrite or --resume, not both"),
        ("none", ("--save-every", "often"), "--save-every 'often': give a number of steps such as 500"),
        ("none", ("--learning-rate", "1e38"), "1e+38: Input should be less than or equal to 1000000000"),
        ("none", ("--learning-rate", "1e-40"), "1e-40: Input should be greater than or equal to 0.000000001"),
        ("none", ("--weight-decay", "inf"), "--weight-decay inf: Input should be a finite number"),
        ("none", ("--weight-decay", "nan"), "--weight-decay nan: Input should be a finite number"),
        ("none", ("--temperature", "1e-40"), "1e-40: Input should be greater than or equal to 0.000000001"),
        ("none", ("--instance-weight", "1e39"), "1e+39: Input should be less than or equal to 1000000000"),
        ("none", ("--lam", "1e-320", "--q", 0.5), "--lam 1e-320: Input should be greater than or equal to 0.000000001"),
        ("none", ("--batch-size", 10**12), "1000000000000: Input should be less than or equal to 2147483647"),
        ("none", ("--workers", 10**6), "--workers 1000000: Input should be less than or equal to 256"),
        ("none", ("--image-size", 10**12), "--image-size 1000000000000: Input should be less than or equal to 8192"),
        ("none", ("--cached-views", 10**20), "--cached-views 100000000000000000000: Input should be less than or eq"),
        ("none", ("--seed", 2**64), "--seed 18446744073709551616: Input should be less than or equal to 4294967295"),
        ("hashtags:seed=4294967296", (), "seed must be at least 0 and at most 4294967295; got 4294967296"),
        ("hashtags:min_informativeness=nan", (), "min_informativeness must be at least 0 and at most 1; got nan"),
        ("hierarchy:of=hashtags,levels=1000", (), "levels must be at least 1 and at most 64; got 1000"),
        ("hierarchy:of=hashtags,level_weights=1e308+1", (), "level_weights must be above 0 and at most"),
        ("none", ("--config", "no-such.yaml"), "no-such.yaml: the config cannot be read"),
    ],
)
def test_a_mistake_in_an_option(
    cli: Cli, photos: Path, tmp_path: Path, adapter: str, more: tuple[object, ...], said: str
) -> None:
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run", *more, adapter=adapter), said)


@pytest.mark.parametrize("command", ["fit", "cluster"])
def test_a_mistake_in_a_signal_is_said_before_the_encoder_is_opened(
    cli: Cli, photos: Path, tmp_path: Path, command: str
) -> None:
    adapters = ["--adapter", "image_features", "--adapter", "hashtags:column=tagz", "--model", "no-such-model"]
    output = tmp_path / ("run" if command == "fit" else "clusters.parquet")
    check_refused(cli, tmp_path, [command, "--data", photos, *adapters, "--output", output], "no column 'tagz'")


def test_images_alone_have_no_column_to_name(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "alone" / "a.png")
    said = "no column 'tags'. It has images alone: give them a metadata.jsonl, or take the adapter image_features."
    check_refused(cli, tmp_path, fit_arguments(tmp_path / "alone", tmp_path / "run"), said)


def test_too_few_clusters_says_which_option_to_change(cli: Cli, photos: Path, tmp_path: Path) -> None:
    arguments = fit_arguments(photos, tmp_path / "run", adapter="hashtags:n_clusters=1")
    check_refused(
        cli,
        tmp_path,
        arguments,
        "only 1 cluster was found among 40 images, and at least 2 are needed. Raise n_clusters (now 1).",
    )


def test_an_empty_dataset(cli: Cli, photos: Path, tmp_path: Path) -> None:
    write_rows(photos, [])
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run"), "metadata.jsonl: the dataset is empty.")


def test_repeated_ids_name_their_lines(cli: Cli, photos: Path, tmp_path: Path) -> None:
    rows = read_rows(photos)
    write_rows(photos, [*rows, rows[1]])
    said = f"1 ids occur more than once, which must be unique: '{rows[1]['id']}'"
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run"), said)
    assert "metadata.jsonl:2 and " in cli(*fit_arguments(photos, tmp_path / "run")).err


def test_a_signal_that_is_null_throughout(cli: Cli, photos: Path, tmp_path: Path) -> None:
    write_rows(photos, [{**row, "tags": None} for row in read_rows(photos)])
    said = "the column 'tags' is null in all 40 records"
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run"), said)


def test_a_metadata_line_that_does_not_parse(cli: Cli, photos: Path, tmp_path: Path) -> None:
    lines = (photos / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2][:-1]
    (photos / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run"), "metadata.jsonl:3: not valid JSON")


def test_a_dataset_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    check_refused(cli, tmp_path, fit_arguments(tmp_path / "fotos", tmp_path / "run"), "fotos: there is no such file")


def test_more_bad_images_than_the_share(cli: Cli, photos: Path, tmp_path: Path) -> None:
    for row in read_rows(photos)[:6]:
        (photos / row["file_name"]).write_bytes(b"<!DOCTYPE html><p>404")
    said = (
        "6 of 60 images cannot be used: 10.0%, where 5.0% is allowed. Commonest reasons: an HTML page, not an image (6)"
    )
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run"), said)
    check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run", adapter="image_features"), said)
    arguments = ["embed", "--data", photos, "--model", "efficientnet-lite0", "--image-size", 48, "--workers", 0]
    outcome = cli(*arguments, "--output", tmp_path / "out.h5")
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.endswith("The other images are embedded and wait for --resume.\n")
    assert not (tmp_path / "out.h5").exists()
    assert cli(*arguments, "--output", tmp_path / "out.h5", "--resume", "--max-bad-share", 0.2).code == 0
    assert not (tmp_path / ".out.h5.partial").exists()


def test_a_checkpoint_of_another_architecture(cli: Cli, photos: Path, tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), tmp_path / "resnet.pt")
    for model, said in (
        ("efficientnet-lite0", "resnet.pt do not fit efficientnet-lite0: 84 tensors, not 296"),
        ("timm/resnet18", "resnet.pt does not fit model timm/resnet18, it is of another architecture"),
    ):
        more = ("--model", model, "--pretrained", tmp_path / "resnet.pt")
        check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run", *more), said)


@pytest.mark.parametrize("name", ["damaged.pt", "damaged.safetensors"])
def test_a_damaged_checkpoint(cli: Cli, photos: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><p>404")
    for model in ("efficientnet-lite0", "ViT-S-32-alt"):
        more = ("--model", model, "--pretrained", tmp_path / name)
        check_refused(cli, tmp_path, fit_arguments(photos, tmp_path / "run", *more), name)


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("epoch: 3", "options.yaml: unknown option 'epoch'. Did you mean epochs?"),
        ("epochs: many", "options.yaml: --epochs 'many': Input should be a valid integer"),
        ("3: epochs", "options.yaml: a config is a mapping of options to values"),
        ("epochs: [3", "options.yaml:1: the config does not parse"),
        ("- epochs", "options.yaml: a config is a mapping of options to values"),
    ],
)
def test_a_config_that_does_not_fit(cli: Cli, tmp_path: Path, yaml: str, said: str) -> None:
    (tmp_path / "options.yaml").write_text(yaml)
    arguments = ["fit", "--data", EMOJI, "--adapter", "none", "--output", tmp_path / "run"]
    check_refused(cli, tmp_path, [*arguments, "--config", tmp_path / "options.yaml"], said)


def test_an_output_that_is_taken(cli: Cli, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.doc").write_text("years of work")
    said = "run exists. Give --overwrite to replace it, or --resume to continue its run."
    check_refused(cli, tmp_path, fit_arguments(photos, run), said)
    said = "run is not a run (no config.yaml), so --overwrite leaves it alone."
    check_refused(cli, tmp_path, fit_arguments(photos, run, "--overwrite"), said)
    check_refused(cli, tmp_path, fit_arguments(photos, run, "--resume"), "there is no run to resume (no config.yaml)")
    check_refused(cli, tmp_path, fit_arguments(photos, run / "thesis.doc"), "thesis.doc is a file")
    check_refused(
        cli, tmp_path, fit_arguments(photos, run / "thesis.doc" / "run"), "thesis.doc is a file, not a folder"
    )


def test_a_run_is_resumed_with_its_own_options_only(cli: Cli, photos: Path, tmp_path: Path) -> None:
    arguments = fit_arguments(photos, tmp_path / "run", adapter="none")
    options = {"data": str(photos), "adapter": ["none"], "output": str(tmp_path / "run"), "workers": 0}
    config = FitConfig(**options, image_size=48, epochs=1, cached_views=1, device="cpu").resolved()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config.to_yaml())
    said = "run: --resume with other options than the run began with: temperature: 0.2 -> 0.5. Give the old ones,"
    check_refused(cli, tmp_path, [*arguments, "--resume", "--temperature", 0.5], said)
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch-00001-step-0000000"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(b"cut off")
    outcome = cli(*arguments, "--resume", "--workers", 1)  # how it is made, not what
    assert outcome.code == 2
    assert "checkpoints: every checkpoint is damaged" in outcome.err.splitlines()[-1]
    assert f"{checkpoint} is damaged (no COMMITTED)" in outcome.err.replace("\n", "")


def test_resuming_what_was_never_begun_begins_it(cli: Cli, photos: Path, tmp_path: Path) -> None:
    outcome = cli(*fit_arguments(photos, tmp_path / "run", "--resume", adapter="none"))
    assert outcome.code == 0
    assert "there is no run to resume yet, so it begins" in outcome.err


def test_a_failed_overwrite_leaves_the_old_run(cli: Cli, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "embeddings.h5"):
        (run / name).write_text("of the old run")
    arguments = fit_arguments(photos, run, "--overwrite", adapter="hashtags:column=tagz")
    check_refused(cli, tmp_path, arguments, "no column 'tagz'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "the options --data, --adapter and --output are missing. Try: wscl-embed fit --help"),
        (["fit", "--data", EMOJI, "--adapter", "none"], "the option --output is missing. Try: wscl-embed fit --help"),
        (["cluster", "--data", EMOJI], "the option --adapter is missing"),
        (["cluster", "--data", EMOJI, "--adapter", "labels:column=group"], "no column 'group'"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--split", "tset"], "split 'tset'"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--output", "taken"], "taken exists. Give --overwrite"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--batch-size", 1], "1 is not in the range 2<=x<="),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--label-column", "group"], "'group': no such column"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--plot", "p.png"], "their column with --label-column"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--stability", 1], "0, or 2 to 100; got 1"),
        (["cluster", "--data", EMOJI, "--adapter", "labels", "--diagnostics", "taken"], "taken exists"),
        (
            ["cluster", "--data", EMOJI, "--adapter", "labels", "--output", "x", "--plot", "x"],
            "must be different files",
        ),
        (["embed", "--data", EMOJI], "the options --model and --output are missing. Try: wscl-embed embed --help"),
        (["embed", "--data", EMOJI, "--model", ".", "--output", "new.h5"], "there is no open_clip_config.json in it"),
        (["embed", "--data", EMOJI, "--model", "x", "--output", "taken"], "taken exists. Give --overwrite"),
        (["embed", "--data", EMOJI, "--model", "x", "--output", "taken/new.h5"], "taken is a file, not a folder"),
        (["embed", "--data", EMOJI, "--model", "x", "--output", ".", "--overwrite"], ". is a folder; name a file"),
        (["embed", "--data", EMOJI, "--model", "x", "--output", "new.h5", "--workers", -1], "--workers -1: Input"),
        (["embed", "--data", EMOJI, "--model", "x", "--output", "new.h5", "--batch-size", 0], "0 is not in the range"),
        (["evaluate", "run", "--data", EMOJI], "nothing to score by: name a --label-column or"),
        (["evaluate", "new.h5", "--data", EMOJI, "--label-column", "label"], "new.h5: there is no such file"),
        (["evaluate", "taken", "--data", EMOJI, "--label-column", "label"], "taken: not an HDF5 file"),
        (["evaluate", "taken", "--data", EMOJI, "--label-column", "group"], "'group': no such column"),
        (["evaluate", "taken", "--data", EMOJI, "--caption-column", "captions"], "taken: not an HDF5 file"),
        (["search", "run", "--image", "new.png"], "run: there is no such run or embedding file"),
        (["search", "taken", "--image", "new.png"], "taken: not an HDF5 file"),
        (["index", "run"], "run: there is no such run or embedding file"),
        (["search", "run", "--image", "taken", "-k", 0], "0 is not in the range x>=1"),
        (["adapters", "hashtag"], "unknown adapter 'hashtag'. Did you mean hashtags?"),
        (["demo", "--output", "."], ". exists. Give --overwrite"),
        (["fitt"], "No such command 'fitt'"),
    ],
)
def test_mistakes_in_the_other_commands(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("something else")
    check_refused(cli, tmp_path, arguments, said)


def test_a_broken_plugin_does_not_hide_the_others(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nbroken = no_such_module:Adapter\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = cli("adapters")
    assert listed.code == 0
    assert "broken  (broken 1.0, no_such_module:Adapter)\n  does not work: " in listed.out
    assert "hashtags  (wscl-embed " in listed.out
    assert "column=tags" in listed.out
    assert cli("fit", "--data", EMOJI, "--adapter", "broken", "--output", tmp_path / "run").code == 2


def test_a_failure_of_ours_is_told_from_wrong_use(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from wscl_embed.cli import adapters
    from wscl_embed.errors import WsclEmbedError

    def fail(error: BaseException) -> Callable[..., None]:
        def callback(**_: object) -> None:
            raise error

        return callback

    monkeypatch.setattr(adapters.command, "callback", fail(WsclEmbedError("the loss became nan.")))
    assert cli("adapters") == Outcome(1, "", "error: the loss became nan.\n")
    monkeypatch.setattr(adapters.command, "callback", fail(KeyboardInterrupt()))
    interrupted = cli("adapters")
    assert (interrupted.code, interrupted.err.splitlines()[-1]) == (130, "error: interrupted.")


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    outcome = cli()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: wscl-embed [OPTIONS] COMMAND")
    assert cli("--version").out.startswith("wscl-embed, version ")


def test_cluster_shows_adapters_side_by_side(cli: Cli, emoji_folder: Path) -> None:
    """The labels of a third of the emoji: estimates, with where they lie."""
    rows = read_rows(emoji_folder)
    write_rows(emoji_folder, [{**row, "known": row["label"] if at % 3 == 0 else None} for at, row in enumerate(rows)])
    specs = ["hashtags:min_df=1", "attributes:columns=label", "none"]
    arguments = ["cluster", "--data", emoji_folder, "--label-column", "known", "--stability", 2]
    outcome = cli(*arguments, *(part for spec in specs for part in ("--adapter", spec)))
    assert outcome.code == 0, outcome.err
    for line in (
        r"  .*hashtags .* attributes .* none ",
        r"I\(Z;T\), bits .* \d\.\d\d .* \d\.\d\d .* \d\.\d\d ",
        r"stable, seeds .* \d\.\d\d .* 1\.00 ",
        r"attributes .* \d\.\d\d ",
        r"none .* - .* - ",
        r"Estimates, .* from the labels of 80 of 239 images",
    ):
        assert re.search(line, outcome.out), (line, outcome.out)
    assert max(map(len, outcome.out.split("Positives")[0].splitlines())) <= 80
    write_rows(emoji_folder, rows)
