"""What a run is made of: one validated object, from the command line, a YAML file or Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wscl_embed.errors import InputError, nearest
from wscl_embed.limits import HUGE, MAX_IMAGE_SIZE, MAX_INT, MAX_SEED, MAX_VIEWS, MAX_WORKERS, TINY
from wscl_embed.save_every import SaveEvery

SAME_RESULT = ("output", "save_every", "workers", "cache_dir", "micro_batch_size")
"""What may be changed when a run is resumed: how it is made, not what (but for rounding, and batch norms that are
tuned, which see each micro-batch by itself)."""

FULL_ONLY = ("unlocked_groups", "micro_batch_size", "compile")
HOLDOUT = 0.2


class FitConfig(BaseModel):
    """Everything `wscl_embed.fit` needs to know. Each field is an option of ``wscl-embed fit``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str = Field(description="images and their signals: a folder, Parquet, WebDataset tars, or a Hub name")
    adapter: list[str] = Field(
        min_length=1, description="what makes clusters: NAME or NAME:option=value,... ; may be repeated"
    )
    adapter_weight: list[float] = Field([], description="weight of each --adapter, in their order")
    output: str = Field(description="the run directory to write")

    label_column: str | None = Field(
        None, description="column of labels to score retrieval by and to choose --wise-ft by; never shown to training"
    )
    caption_column: str | None = Field(
        None, description="column of captions to score text-to-image search by and to embed, by the model's text tower"
    )
    eval_split: str = Field("test", description="split to score, before and after; several as val+test")
    holdout: float = Field(
        HOLDOUT, gt=0, lt=1, description="share of the images held out to be scored, without a split column"
    )
    max_bad_share: float = Field(0.05, ge=0, le=1, description="stop when more of the images than this cannot be read")

    model: str = Field(
        "efficientnet-lite0", description="encoder: open_clip name, hf-hub:NAME, timm/NAME, model folder, .json config"
    )
    pretrained: str | None = Field(None, description="its weights: open_clip tag, checkpoint file, or none: random")
    image_size: int | None = Field(
        None, ge=8, le=MAX_IMAGE_SIZE, description="pixels a side  [default: the model's own]"
    )

    tune: Literal["head", "full"] = Field(
        "head", description="what is trained. head: a linear map of cached features, in seconds; full: the image tower"
    )
    unlocked_groups: int | None = Field(
        None, ge=0, le=MAX_INT, description="tune only this many of the last layer groups, as open_clip counts them"
    )
    micro_batch_size: int | None = Field(
        None, ge=1, le=MAX_INT, description="images through the encoder at once, for batches beyond memory (GradCache)"
    )
    compile: bool = Field(False, description="compile the image tower with torch.compile")
    cached_views: int = Field(4, ge=1, le=MAX_VIEWS, description="augmented views cached of each image")
    epochs: int | None = Field(None, ge=1, le=MAX_INT, description="passes over the data  [default: head 20, full 10]")
    batch_size: int | None = Field(None, ge=2, le=MAX_INT, description="images a batch  [default: head 256, full 128]")
    images_per_cluster: int = Field(4, ge=1, le=MAX_INT, description="images of one cluster in a batch")
    learning_rate: float | None = Field(
        None, ge=TINY, le=HUGE, description="peak learning rate  [default: head 3e-3, full 1e-4]"
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=HUGE,
        description="AdamW's; in head mode it pulls to the frozen embedding  [default: head 1, full 0.05]",
    )
    temperature: float = Field(0.2, ge=TINY, le=HUGE, description="the lower, the more the nearest wrong images weigh")
    projection: Literal["none", "linear", "mlp"] = Field("none", description="head used in training only")
    denominator: Literal["all", "negatives"] = Field(
        "all", description="negatives: positives leave each other's denominator (SINCERE)"
    )
    cross_view_only: bool = Field(False, description="compare rows of different views only")
    q: float = Field(0.0, ge=0, le=1, description="robustness to wrong positives (RINCE); 0 is InfoNCE")
    lam: float = Field(1.0, ge=TINY, le=1, description="RINCE's weight of the denominator")
    instance_weight: float = Field(0.0, ge=0, le=HUGE, description="weight of an added InfoNCE term with its own head")
    recluster_every: int | None = Field(
        None,
        ge=1,
        le=MAX_INT,
        description="epochs after which adapters that read images cluster anew, by the encoder of the time",
    )
    recluster_warmup: int = Field(
        0, ge=0, le=MAX_INT, description="epochs before the first of those clusters; for an untrained encoder"
    )

    wise_ft: str | None = Field(
        None,
        description="share of the tuned weights in the mixture with the frozen ones that is written, 0 to 1; auto: "
        "chosen on validation images  [default: auto where 100 of them have labels or captions, else 0.3]",
    )

    save_every: str = Field(
        "10m",
        description="checkpoints within an epoch: 500 is every 500 steps, 10m every 10 minutes",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="of the embeddings in the HDF5 file")
    device: str = Field("auto", description="where to compute: auto, cpu, cuda, cuda:1, ...")
    workers: int | None = Field(
        None, ge=0, le=MAX_WORKERS, description="processes that decode images  [default: cores - 1, at most 8]"
    )
    cache_dir: str | None = Field(None, description="folder for cached features  [default: ~/.cache/wscl-embed]")
    tensorboard: bool = Field(False, description="write TensorBoard logs into the run directory")
    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="random seed of clustering, sampling, augmentation and initialisation"
    )

    @field_validator("data", "output")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        """``photos/`` is ``photos``, also to ``--resume``, which compares."""
        return value.rstrip("/") or value

    @field_validator("wise_ft", mode="before")
    @classmethod
    def _is_alpha(cls, value: object) -> object:
        if value is None or value == "auto":
            return value
        try:
            if 0 <= float(str(value)) <= 1:
                return str(value)
        except ValueError:
            pass
        raise ValueError("give auto, or a number from 0 (the frozen encoder) to 1 (the tuned one)")

    @field_validator("save_every", mode="before")
    @classmethod
    def _is_interval(cls, value: object) -> str:
        SaveEvery.parse(str(value))
        return str(value)

    @model_validator(mode="after")
    def _fits_mode(self) -> FitConfig:
        given = [name for name in FULL_ONLY if getattr(self, name) not in (None, False)]
        if self.tune == "head" and given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{names}: for --tune full only; head mode runs on cached features")
        if self.q == 0 and self.lam != 1:
            raise ValueError("--lam: weighs the denominator of RINCE; give --q above 0 as well")
        if self.recluster_warmup and self.recluster_every is None:
            raise ValueError("--recluster-warmup: give --recluster-every as well")
        return self

    @property
    def alpha(self) -> float | None:
        """The number ``wise_ft`` is; None where it is to be chosen."""
        return None if self.wise_ft in (None, "auto") else float(self.wise_ft)

    @property
    def scored(self) -> bool:
        """Whether there is something to score embeddings by."""
        return self.label_column is not None or self.caption_column is not None

    def resolved(self) -> FitConfig:
        """The same with every default that depends on ``tune`` filled in."""
        defaults = MODE_DEFAULTS[self.tune]
        return self.model_copy(update={key: value for key, value in defaults.items() if getattr(self, key) is None})

    def to_yaml(self) -> str:
        """YAML that ``wscl-embed fit --config`` repeats the run from."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


MODE_DEFAULTS: dict[str, dict[str, Any]] = {
    "head": {"epochs": 20, "batch_size": 256, "learning_rate": 3e-3, "weight_decay": 1.0},
    "full": {"epochs": 10, "batch_size": 128, "learning_rate": 1e-4, "weight_decay": 0.05},
}


def make_config(options: Mapping[str, Any], config_file: str | Path | None = None) -> FitConfig:
    """A `FitConfig` from ``options``, over those of a YAML file.

    Raises:
        InputError: an unknown option (names the nearest), a value that does not fit, one that is missing, or a file
            that does not parse.

    >>> config = make_config({"data": "photos/", "adapter": ["hashtags"], "output": "runs/a"})
    >>> config.data, config.resolved().epochs
    ('photos', 20)
    """
    merged = {**(read_config(config_file) if config_file else {}), **options}
    try:
        return FitConfig(**merged)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "config"
        place = f"{config_file}: " if config_file and name not in options else ""
        if problem["type"] == "extra_forbidden":
            message = f"unknown option {name!r}. {nearest(name, FitConfig.model_fields)}"
        elif problem["type"] == "missing":
            message = missing([str(one["loc"][0]) for one in error.errors() if one["type"] == "missing"], "fit")
        elif not problem["loc"]:
            message = problem["msg"].removeprefix("Value error, ") + "."
        else:
            problem_text = problem["msg"].removeprefix("Value error, ")
            message = f"--{name.replace('_', '-')} {problem['input']!r}: {problem_text}."
        raise InputError(place + message) from error


def missing(names: Sequence[str], command: str) -> str:
    """What to say of options that were not given.

    >>> missing(["data", "label_column"], "fit")
    'the options --data and --label-column are missing. Try: wscl-embed fit --help'
    """
    *first, last = [f"--{name.replace('_', '-')}" for name in names]
    said = f"options {', '.join(first)} and {last} are" if first else f"option {last} is"
    return f"the {said} missing. Try: wscl-embed {command} --help"


class PlainLoader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines can stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*) are not read", mark)
        return super().compose_node(parent, index)


def read_config(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file."""
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=PlainLoader)
    except OSError as error:
        raise InputError(f"{path}: the config cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{path}{line}: the config does not parse ({problem}).") from error
    except RecursionError as error:
        raise InputError(f"{path}: the config does not parse (nested too deep).") from error
    if not (isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)):
        raise InputError(f"{path}: a config is a mapping of options to values.")
    return loaded


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """``option: old -> new`` for each that differs."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys)
