"""`ImageColumns`: what the dataset knows about the images of an embedding file, joined by id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.dataset import image_source
from wscl_embed.errors import InputError, nearest
from wscl_embed.images import BadImageError
from wscl_embed.searching.where import passing_rows

if TYPE_CHECKING:
    import datasets

KEPT_CONDITIONS = 32


class ImageColumns:
    """The columns of the embedded images. Several threads may read at once.

    ============ ===============================================================================
    ``dataset``  the dataset
    ``rows``     (N,) int64: the row of the dataset of each embedded image, -1 where it has none
    ``names``    the columns but ``image``
    ============ ===============================================================================
    """

    def __init__(self, dataset: datasets.Dataset, ids: Sequence[str], place: str) -> None:
        """Join ``dataset`` to the N ``ids`` of an embedding file.

        Args:
            dataset: as `wscl_embed.dataset.as_dataset` gives it.
            place: what the dataset is called in errors.

        Raises:
            InputError: it has none of the ids.
        """
        position = {image_id: row for row, image_id in enumerate(dataset["id"][:])}
        self.dataset = dataset
        self.place = place
        self.rows: NDArray[np.int64] = np.array([position.get(image_id, -1) for image_id in ids], dtype=np.int64)
        self.names = [name for name in dataset.column_names if name != "image"]
        if len(ids) and (self.rows < 0).all():
            raise InputError(
                f"{place} has none of the {len(ids)} embedded images, by their ids ({ids[0]!r}, ...); --data names "
                "the dataset they were embedded from."
            )
        self._passing = lru_cache(KEPT_CONDITIONS)(partial(passing_rows, dataset.select_columns(self.names)))

    def check(self, names: Sequence[str]) -> None:
        """See that there are columns of these names.

        Raises:
            InputError: there is one missing (names the nearest).
        """
        for name in names:
            if name not in self.names:
                raise InputError(f"{self.place} has no column {name!r}. {nearest(name, self.names)}")

    def passing(self, where: str) -> NDArray[np.bool_]:
        """(N,) the embedded images that meet a condition; those the dataset lacks do not.

        Raises:
            InputError: as `wscl_embed.searching.where.passing_rows`.
        """
        passes: NDArray[np.bool_] = np.append(self._passing(where), False)  # row -1 is the last
        return passes[self.rows]

    def values(self, row: int, names: Sequence[str]) -> dict[str, Any]:
        """The values of one embedded image; None where the dataset lacks it."""
        if not names or self.rows[row] < 0:
            return dict.fromkeys(names)
        record = self.dataset.select_columns(list(names))[int(self.rows[row])]
        return {name: record[name] for name in names}

    def image(self, row: int) -> bytes | Path:
        """The image file, for `wscl_embed.images.decode_image`.

        Raises:
            BadImageError: the dataset lacks it, or its path leads elsewhere.
        """
        if self.rows[row] < 0:
            raise BadImageError("not in the dataset")
        return image_source(self.dataset[int(self.rows[row])]["image"])


def cell_text(value: object) -> str:
    """A value of a column, for people.

    >>> cell_text(["red", "dress"]), cell_text(None), cell_text({"colour": "red"})
    ('red, dress', '', 'colour: red')
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(cell_text(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {cell_text(one)}" for key, one in value.items() if one is not None)
    return str(value)
