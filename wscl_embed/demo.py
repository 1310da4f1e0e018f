"""The whole job on data that comes with the package: 1,906 emoji, their keywords as hashtags."""

from __future__ import annotations

from pathlib import Path

from wscl_embed.pipeline import FitResult, fit

EMOJI = Path(__file__).parent / "demo_data" / "emoji.parquet"
CONTACT_SHEET = "contact_sheet.png"


def run_demo(output: str | Path, *, overwrite: bool = False, workers: int | None = None) -> FitResult:
    """Tune an ImageNet-initialised EfficientNet-Lite0 on the emoji's keywords and show what changed.

    The emoji's group is the held-out label: it never reaches training. On the validation emoji it chooses one number,
    how far to go from the frozen weights to the tuned ones; on the test emoji it scores the result. Writes a run into
    ``output``, and beside its files ``contact_sheet.png``.

    Raises:
        InputError: the package with the weights is missing (names the pip line), or ``output`` exists.
    """
    result = fit(
        EMOJI,
        "hashtags:column=tags",
        output,
        overwrite=overwrite,
        label_column="label",
        image_size=96,
        workers=workers,
    )
    write_demo_sheet(result)
    return result


def write_demo_sheet(result: FitResult) -> None:
    """``contact_sheet.png`` from the embeddings of the run and the frozen ones."""
    from wscl_embed.contact_sheet import write_contact_sheet

    rows = result.held_out
    dataset = result.dataset.select(rows)
    write_contact_sheet(
        result.run.folder / CONTACT_SHEET, dataset, result.before[rows], result.after[rows], list(dataset["label"])
    )
