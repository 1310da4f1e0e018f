"""Command-line options made from the fields of `FitConfig`, so that each is described in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from wscl_embed.config import FitConfig, missing
from wscl_embed.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])


METAVARS = {
    "data": "PATH",
    "output": "PATH",
    "cache_dir": "PATH",
    "adapter": "SPEC",
    "model": "NAME",
    "pretrained": "TAG",
    "device": "DEVICE",
    "eval_split": "SPLIT",
    "label_column": "COLUMN",
    "caption_column": "COLUMN",
    "save_every": "N|Nm",
    "wise_ft": "auto|X",
}


class SectionedCommand(click.Command):
    """A command whose help shows its options under headings."""

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]], **options: Any) -> None:
        """A command of ``sections``: heading -> names of options, in their order; others are "Other options"."""
        super().__init__(*arguments, **options)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What `click` calls to write the options."""
        records = {str(one.name): one.get_help_record(ctx) for one in self.get_params(ctx)}
        named = [name for names in self.sections.values() for name in names]
        others = [name for name in records if name not in named]
        for heading, names in {**self.sections, "Other options": others}.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names if (record := records[name])])


def config_options(
    names: Sequence[str] | None = None, *, described: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """A decorator that adds an option for each of the named fields of `FitConfig`, or for all.

    Options that are not given do not reach the command, so that a ``--config`` file may set them.

    Args:
        names: the fields.
        described: help for those that are something else here than for `fit`.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names or list(FitConfig.model_fields)):
            field = FitConfig.model_fields[name]
            command = _option(name, field, (described or {}).get(name) or _help(field))(command)
        return command

    return decorate


def require(options: Mapping[str, Any], names: Sequence[str], command: str) -> None:
    """Refuse a command line that lacks some of the options ``names``, naming all that are missing."""
    absent = [name for name in names if name not in options]
    if absent:
        raise InputError(missing(absent, command))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and value != ()
    }


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        return f"{text}  [required]"
    shown = isinstance(field.default, bool) or field.default in (None, [])
    return text if shown else f"{text}  [default: {field.default}]"


def _option(name: str, field: FieldInfo, help: str) -> Callable[[Any], Any]:
    hint = _without_none(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    if hint is bool:
        return click.option(flag, name, is_flag=True, default=None, help=help)
    if get_origin(hint) is list:
        (kind,) = get_args(hint)
        return click.option(flag, name, multiple=True, type=_type(kind), metavar=_metavar(name, kind), help=help)
    return click.option(flag, name, type=_type(hint), metavar=_metavar(name, hint), help=help)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _type(hint: Any) -> Any:
    return click.Choice(get_args(hint)) if get_origin(hint) is Literal else hint


def _metavar(name: str, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None
    return METAVARS.get(name) or {int: "N", float: "X"}.get(hint, "TEXT")
