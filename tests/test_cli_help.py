"""The help of the commands tells the truth, and so does what they say to do next."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from wscl_embed.cli import COMMANDS, group, tables
from wscl_embed.cli.options import SectionedCommand
from wscl_embed.config import FitConfig
from wscl_embed.registry import make_adapter
from wscl_embed.run import Run


def printed(*arguments: str) -> str:
    """What ``wscl-embed`` prints."""
    return CliRunner().invoke(group, list(arguments), prog_name="wscl-embed").output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_parses(name: str) -> None:
    text = printed(name, "--help")
    assert "Example:" in text
    commands = re.findall(rf"^ *wscl-embed ({name} .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    assert commands
    command = group.get_command(click.Context(group), name)
    assert command is not None
    for line in commands:
        _, *arguments = shlex.split(line.replace("...", ""))
        context = command.make_context(name, arguments)
        for spec in context.params.get("adapter") or ():
            make_adapter(spec)


def test_the_help_of_the_group_names_every_command_and_its_example_parses() -> None:
    text = printed("--help")
    assert all(re.search(rf"^  {name} ", text, flags=re.MULTILINE) for name in COMMANDS)
    for name, *arguments in (shlex.split(line) for line in re.findall(r"wscl-embed (\w+.*)$", text, re.MULTILINE)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        command.make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_of_the_list_is_that_of_the_command(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.help is not None
    assert command.help.splitlines()[0].split()[0] == COMMANDS[name].split()[0]


def test_every_option_of_fit_is_described() -> None:
    text = printed("fit", "--help")
    assert all(f"--{name.replace('_', '-')} " in text for name in FitConfig.model_fields)
    command = group.get_command(click.Context(group), "fit")
    assert command is not None
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert isinstance(command, SectionedCommand)
    named = [name for names in command.sections.values() for name in names]
    assert sorted(named) == sorted(str(parameter.name) for parameter in command.params)
    for heading in command.sections:
        assert f"\n{heading}:\n" in text


def test_serve_is_recommended_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.print_next(Run(Path("runs/a")))
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    tables.print_next(Run(Path("runs/a")))
    assert capsys.readouterr().out.splitlines() == [
        "Search it: wscl-embed serve runs/a",
        "Search it: wscl-embed search runs/a --image PICTURE",
    ]


def test_a_column_with_brackets_in_its_name_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"split": None, "label_column": "size [/cm]", "caption_column": None, "n_queries": 3, "n_skipped": 0}
    tables.print_scores({**metrics, "after": {"recall@1": 0.5}}, after="value")
    assert "Image-to-image retrieval by size [/cm], 3 queries" in capsys.readouterr().out
