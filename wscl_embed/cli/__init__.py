"""The command line. Each command mirrors a Python function; heavy imports happen when a command runs."""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from typing import Any, NoReturn

import click

from wscl_embed import __version__
from wscl_embed.errors import MemoryLimitError, StorageError, WsclEmbedError
from wscl_embed.files import refusal
from wscl_embed.interruption import Interrupted, handled
from wscl_embed.progress import printable

RANK = int(os.environ.get("RANK", "0"))
WAIT = 30  # seconds; the first leaves long before, and torchrun then ends the others

COMMANDS = {
    "fit": "Cluster by weak signals, fine-tune, embed, and compare before and after.",
    "cluster": "Turn signals into clusters and say what they are, without training.",
    "embed": "Embed images into an HDF5 file.",
    "evaluate": "Score an embedding file by image-to-image retrieval.",
    "search": "Find the images most like an image or a text.",
    "serve": "Look at a run in a browser: before and after, clusters, filters.",
    "index": "Build an index that makes searching many images fast.",
    "export": "Write embeddings, or the model, in the layout of another tool.",
    "adapters": "List the installed adapters with their options.",
    "doctor": "Look whether this machine and installation can do a run, and say what mends what cannot.",
    "demo": "Run the whole job on the emoji that come with the package.",
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is run or asks for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"wscl_embed.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Click's own answer to an interrupt is a blank line."""
        try:
            return super().invoke(ctx)
        except Interrupted as interrupted:
            _fail(f"{interrupted} {self._continuation(ctx)}".strip(), interrupted.exit_code, kind="")

    def _continuation(self, ctx: click.Context) -> str:
        command = ctx.invoked_subcommand and self.get_command(ctx, ctx.invoked_subcommand)
        if not command or not any(parameter.name == "resume" for parameter in command.params):
            return ""
        again = [one for one in sys.argv[1:] if one not in ("--overwrite", "--resume")]
        start = ["wscl-embed"]
        if "TORCHELASTIC_RUN_ID" in os.environ:
            start = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], "-m", "wscl_embed"]
        return f"Continue with: {shlex.join([*start, *again, '--resume'])}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="wscl-embed")
def group() -> None:
    """From images and weak metadata to a better embedding file.

    Try it on what comes with the package:

    \b
        wscl-embed demo

    Then on your own images:

    \b
        wscl-embed fit --data photos/ --adapter hashtags:column=tags --label-column category --output runs/photos

    \b
    Exit codes: 0 done, 1 failed, 2 wrong use or bad input, 3 loss not finite, 4 out of memory, 5 disk full or broken,
    6 image lost during the run, 7 process lost, 130 Ctrl-C, 143 SIGTERM
    """


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 a failure of ours; 2 wrong use or bad input; 3 the loss became no number; 4 out of memory;
    5 the disk is full or refuses; 6 an image was lost during the run; 7 a process was lost; 130 Ctrl-C; 143 SIGTERM.
    """
    if RANK:  # of the processes torchrun started the first reports
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the end
    try:
        with handled():
            group.main(standalone_mode=False, prog_name="wscl-embed")
    except WsclEmbedError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if refusal(error) is None:
            raise
        _fail(f"{error.filename or 'a file'}: {refusal(error)}.", StorageError.exit_code)
    except MemoryError as error:
        _fail(f"out of memory. {error}".rstrip(), MemoryLimitError.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        help_command = f" Try: {error.ctx.command_path} --help" if error.ctx else ""
        _fail(error.format_message() + help_command, 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted.", 130)


def _fail(message: str, code: int, kind: str = "error") -> NoReturn:
    if kind:
        message = f"{kind} on process {RANK}: {message}" if RANK else f"{kind}: {message}"
    if kind or not RANK:
        click.echo(printable(message), err=True)
    if RANK:
        time.sleep(WAIT)  # torchrun ends the others as soon as one has left: let the first say what it has to say
    sys.exit(code)
