"""Images that are in more than one part of a table, or in one part with different labels.

A copy of a training image among the test images is no test. Copies are found by the SHA-256 of the images' bytes; an
image that was encoded again, by its features (`pipeline.heads.near_duplicates`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.heads.compute import pick_device
from pipeline.heads.copies import Copies, Numbers
from pipeline.heads.features import Features
from pipeline.heads.metrics import Outcomes, summarise
from pipeline.heads.near_duplicates import mean_of, multiply_adds, nearest
from pipeline.heads.notes import counted
from pipeline.heads.options import TrainOptions
from pipeline.heads.parts import Parts
from pipeline.heads.rows import TRAIN, Mask
from pipeline.heads.splits import in_random_order

#: Multiply-adds beyond which near duplicates of a random sample alone are looked for: 10 s of a fast core or two.
_BUDGET = {"cpu": 2 * 10**12, "cuda": 10**15}
#: Salt of that sample.
_SALT = 2


@dataclass(frozen=True)
class Leaks:
    """What was found.

    Args:
        record: As plain JSON values: ``near_duplicate_cosine``, None where none were looked for; ``between``, for each
            pair of parts what the second one has of the first; ``label_conflicts``, for each part that has any.
            Examples have URIs and labels.
        notes: The same as sentences, without URIs.
        leaked: For each part, which of its rows an earlier part has, too: bool of shape (N,).
    """

    record: dict[str, Any]
    notes: list[str]
    leaked: dict[str, Mask]

    @property
    def counts(self) -> dict[str, Any]:
        """The record without examples."""
        counts: dict[str, Any] = _without_examples(self.record)
        return counts

    def without_leaked(self, outcomes: Mapping[str, Outcomes], seed: int) -> dict[str, dict[str, Any]]:
        """Return what a head reaches without the rows that an earlier part has, too, for the parts with such rows.

        Returns:
            By part, as plain JSON values: ``num_rows``, ``top1`` and its 95 % ``interval``.
        """
        result: dict[str, dict[str, Any]] = {}
        for name, leaked in self.leaked.items():
            if leaked.any() and not leaked.all():
                metrics = summarise(outcomes[name].only(~leaked), seed)
                result[name] = {
                    "num_rows": metrics["num_rows"],
                    "top1": metrics["top1"],
                    "interval": metrics["intervals"]["top1"],
                }
        return result

    def refuse(self, table: str) -> None:
        """Raise ConfigError where an image is in two parts."""
        cosine = self.record["near_duplicate_cosine"]
        found = [sentence for between in self.record["between"] for sentence in _found(between, cosine)]
        if not found:
            return
        examples = (
            example
            for between in self.record["between"]
            for kind in ("exact", "near")
            for example in between[kind]["examples"]
        )
        one, other = (image["uri"] for image in next(examples)["images"])
        raise ConfigError(
            f"Expected no image of {table} in two parts (--strict-splits). {' '.join(found)} For example {one} and "
            f"{other}. Leave them out of one part and embed again, raise --near-duplicate-cosine (1: exact copies "
            "alone), or train without --strict-splits."
        )


def find_leaks(parts: Parts, features: Mapping[str, Features], options: TrainOptions) -> Leaks:
    """Compare every part with every later one.

    Args:
        parts: Which rows are for what.
        features: Of each part.
        options: From which cosine on rows are near duplicates, and the seed of a sample.
    """
    names = [name for name, part in features.items() if len(part)]
    numbers = {name: np.flatnonzero(parts.masks[name]) for name in names}
    copies = Copies(parts.rows)
    search = _Search(parts, {name: features[name] for name in names}, options)
    between: list[dict[str, Any]] = []
    leaked = {name: np.zeros(len(numbers[name]), bool) for name in names}
    for first, second in combinations(names, 2):
        others, rows = numbers[first], numbers[second]
        exact = copies.partners(rows, others)
        near, cosines, num_checked = search.partners(first, second, exact < 0)
        leaked[second] |= (exact >= 0) | (near >= 0)
        other_label = parts.rows.label[rows] != parts.rows.label[near]
        between.append(
            {
                "parts": [first, second],
                "rows": len(rows),
                "exact": {
                    "rows": int((exact >= 0).sum()),
                    "other_label": int(((exact >= 0) & ~copies.alike(rows, others)).sum()),
                    "examples": copies.examples(rows, exact),
                },
                "near": {
                    "rows": int((near >= 0).sum()),
                    "other_label": int(((near >= 0) & other_label).sum()),
                    "rows_checked": num_checked,
                    "examples": copies.examples(rows, near, cosines),
                },
            }
        )
    cosine = options.near_duplicate_cosine if search.on else None
    conflicts = [found for name in names if (found := copies.conflicts(name, numbers[name]))["images"]]
    notes = [sentence for each in between for sentence in _found(each, cosine)]
    notes += [_sampled(each) for each in between if search.on and each["near"]["rows_checked"] < each["rows"]]
    notes += [
        f"Images of {each['part']} with different labels: {counted(each['images'], 'image')} in "
        f"{counted(each['rows'], 'row')}."
        for each in conflicts
    ]
    return Leaks({"near_duplicate_cosine": cosine, "between": between, "label_conflicts": conflicts}, notes, leaked)


class _Search:
    """Near duplicates between parts; of a sample of the later part's rows, where all pairs are too many."""

    def __init__(self, parts: Parts, features: Mapping[str, Features], options: TrainOptions) -> None:
        self.on = options.near_duplicate_cosine < 1 and len(features) > 1
        self._parts, self._features, self._options = parts, features, options
        if self.on:
            self._device = pick_device(options.device)
            train = features[TRAIN]
            self._mean = mean_of(train)
            others = sum(len(part) for part in features.values()) - len(train)
            cost = multiply_adds(len(train), others, train.embedding_dim)
            self._share = min(1.0, _BUDGET[self._device.type] / cost)

    def partners(self, first: str, second: str, wanted: Mask) -> tuple[Numbers, NDArray[np.float32], int]:
        """Return each row's near duplicate in the first part (-1: none), the cosine, and how many rows were compared.

        Args:
            first: The one part.
            second: The other.
            wanted: Which of its rows to compare: bool of shape (N,). The rest counts as compared.
        """
        partner, cosines = np.full(len(wanted), -1, np.int64), np.zeros(len(wanted), np.float32)
        if not self.on:
            return partner, cosines, 0
        keep = self._sample(second, wanted)
        if keep.any():
            rows = self._features[second].only(keep)
            found = nearest(self._features[first], rows, self._mean, self._options.near_duplicate_cosine, self._device)
            numbers = np.flatnonzero(self._parts.masks[first])
            partner[keep] = np.where(found.place >= 0, numbers[found.place], -1)
            cosines[keep] = found.cosine
        return partner, cosines, int(keep.sum() + (~wanted).sum())

    def _sample(self, name: str, wanted: Mask) -> Mask:
        """Return those of the wanted rows that there is time for."""
        chosen = np.flatnonzero(wanted)
        if self._share == 1 or not len(chosen):
            return wanted
        hashes = in_random_order(self._parts.rows.content[self._parts.masks[name]], self._options.seed, _SALT)
        keep = np.zeros(len(wanted), bool)
        keep[chosen[np.argsort(hashes[chosen], kind="stable")[: max(1, int(self._share * len(chosen)))]]] = True
        return keep


def _found(between: dict[str, Any], cosine: float | None) -> list[str]:
    first, second = between["parts"]
    sentences = []
    for kind, title in (
        ("exact", f"Exact copies of images of {first} in {second}"),
        ("near", f"Near duplicates of images of {first} in {second} (cosine of centred features {cosine} or more)"),
    ):
        found = between[kind]
        if found["rows"]:
            other = f", {found['other_label']} of them with another label" if found["other_label"] else ""
            sentences.append(f"{title}: {counted(found['rows'], 'row')}{other}.")
    return sentences


def _sampled(between: dict[str, Any]) -> str:
    first, second = between["parts"]
    return (
        f"Near duplicates of images of {first} were looked for in {between['near']['rows_checked']} of "
        f"{counted(between['rows'], 'row')} of {second}, chosen at random: there are too many pairs to compare all."
    )


def _without_examples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_examples(item) for key, item in value.items() if key != "examples"}
    return [_without_examples(item) for item in value] if isinstance(value, list) else value
