"""Command-line options made from the fields of `FitConfig`, so that each is described in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from wscl_embed.config import FitConfig

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(names: Sequence[str] | None = None) -> Callable[[Command], Command]:
    """A decorator that adds an option for each of the named fields of `FitConfig`, or for all.

    Options that are not given do not reach the command, so that a ``--config`` file may set them.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names or list(FitConfig.model_fields)):
            command = _option(name, FitConfig.model_fields[name])(command)
        return command

    return decorate


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and value != ()
    }


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    hint = _without_none(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    help = field.description or ""
    if hint is bool:
        return click.option(flag, name, is_flag=True, default=None, help=help)
    if get_origin(hint) is list:
        (kind,) = get_args(hint)
        return click.option(flag, name, multiple=True, type=_type(kind), metavar=_metavar(name, kind), help=help)
    shown = "" if field.is_required() or field.default is None else f"  [{field.default}]"
    return click.option(flag, name, type=_type(hint), metavar=_metavar(name, hint), help=help + shown)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _type(hint: Any) -> Any:
    return click.Choice(get_args(hint)) if get_origin(hint) is Literal else hint


def _metavar(name: str, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None
    return {"data": "PATH", "output": "PATH", "adapter": "SPEC"}.get(name, {int: "N", float: "X"}.get(hint, "TEXT"))
