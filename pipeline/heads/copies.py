"""Which rows of a table are the same image, by the SHA-256 of its bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.rows import Mask, Rows

#: Pairs of which the URIs are given, of each kind.
_EXAMPLES = 5

Numbers = NDArray[np.int64]


class Copies:
    """The rows of a table, and which of them are the same image.

    Args:
        rows: The table.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        order = np.lexsort((rows.content[:, 1], rows.content[:, 0]))
        new = (np.diff(rows.content[order], axis=0, prepend=~rows.content[order[:1]]) != 0).any(axis=1)
        self._image = np.empty(len(rows), np.int64)
        self._image[order] = np.cumsum(new) - 1

    def partners(self, rows: Numbers, others: Numbers) -> Numbers:
        """Return the first of some other rows that is the same image, -1 where none is: shape (len(rows),)."""
        first = np.full(len(self._rows), -1, np.int64)
        first[self._image[others[::-1]]] = others[::-1]
        result: Numbers = first[self._image[rows]]
        return result

    def alike(self, rows: Numbers, others: Numbers) -> Mask:
        """Return which rows are among the others with the same label: bool of shape (len(rows),)."""
        size = len(self._rows.names)
        keys, known = (self._image[some] * size + self._rows.label[some] for some in (rows, others))
        return np.isin(keys, known)

    def conflicts(self, part: str, rows: Numbers) -> dict[str, Any]:
        """Return the images of a part that are there with different labels, as plain JSON values."""
        ordered = rows[np.lexsort((self._rows.label[rows], self._image[rows]))]
        image, label = self._image[ordered], self._rows.label[ordered]
        same = image[1:] == image[:-1]
        (other,) = np.nonzero(same & (label[1:] != label[:-1]))  # each beside one of its image with another label
        images, first = np.unique(image[other], return_index=True)
        shown = other[first[:_EXAMPLES]]
        return {
            "part": part,
            "images": len(images),
            "rows": int(np.isin(image, images).sum()),
            "examples": self.examples(ordered[shown + 1], ordered[shown]),
        }

    def examples(
        self, rows: Numbers, partners: Numbers, cosines: NDArray[np.float32] | None = None
    ) -> list[dict[str, Any]]:
        """Return some pairs with their URIs and labels: the first ones, or those of the greatest cosine.

        Args:
            rows: Of one part.
            partners: Of the other, -1 for none.
            cosines: Of the pairs.
        """
        found = np.flatnonzero(partners >= 0)
        if cosines is not None:
            found = found[np.argsort(-cosines[found], kind="stable")]
        found = found[:_EXAMPLES]
        both = np.concatenate([partners[found], rows[found]])
        uris = self._rows.uris(both) if len(both) else []
        images = [
            {"uri": uri, "label": self._rows.names[place]}
            for uri, place in zip(uris, self._rows.label[both].tolist(), strict=True)
        ]
        pairs: list[dict[str, Any]] = [
            {"images": [one, other]} for one, other in zip(images[: len(found)], images[len(found) :], strict=True)
        ]
        if cosines is not None:
            for pair, cosine in zip(pairs, cosines[found].tolist(), strict=True):
                pair["cosine"] = round(cosine, 4)
        return pairs
