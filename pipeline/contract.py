"""The feature contract: all that makes two embeddings comparable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ContractMismatch, TableError


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with one spelling only: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class FeatureContract:
    """What must be equal for two embeddings to be compared.

    Engine, precision and batch size are not part of it: they are recorded with each run, and the parity tests show
    that they don't change the features.

    Args:
        backbone: Name of the network, for instance ``microsoftvision-resnet50``.
        weights_sha256: SHA-256 of the network's tensors, the same whatever file format held them.
        preprocessing: Every constant of the preprocessing, as plain JSON values.
        embedding_dim: D, the length of one embedding.
        weights: Where the weights came from, for people: ``random:SEED``, ``auto``, ``none`` or a URI without secrets.
            Not compared: the SHA-256 is.
    """

    backbone: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    embedding_dim: int
    weights: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is compared."""
        return hashlib.sha256(canonical_json(self._compared()).encode()).hexdigest()

    @property
    def random_weights(self) -> bool:
        """Whether the weights were initialised at random rather than trained."""
        return self.weights.startswith("random:")

    def _compared(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "weights"}

    def to_json(self) -> dict[str, Any]:
        """Return the contract as plain JSON values, with its digest."""
        return {**asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> FeatureContract:
        """Read what `to_json` wrote.

        Args:
            value: The parsed JSON object.
            where: The file it was read from, for the message.

        Raises:
            TableError: Fields are missing, unknown or don't agree with the stored digest.
        """
        fields = dict(value)
        digest = fields.pop("digest", None)
        try:
            contract = cls(**fields)
        except TypeError as error:
            raise TableError(
                f"The feature contract in {where} is not one this version can read ({error}). "
                "It was written by another version, or the file was edited."
            ) from None
        if digest != contract.digest:
            raise TableError(
                f"The feature contract in {where} does not match its own digest: expected {digest}, "
                f"computed {contract.digest}. The file was edited or damaged; restore it."
            )
        return contract

    def describe(self) -> str:
        """Return the contract in a few words, for messages."""
        name = f"weights {self.weights_sha256[:12]}…"
        if self.random_weights:
            name += f" (RANDOM, seed {self.weights.partition(':')[2]})"
        return f"backbone {self.backbone}, {name}, preprocessing {self.preprocessing.get('name')}"


def require_same_features(stored: FeatureContract, asked: FeatureContract, what: str, advice: str) -> None:
    """Refuse to go on where two contracts differ.

    Args:
        stored: The contract that ``what`` was made with.
        asked: The contract of this run.
        what: The thing that holds ``stored``, for the message: ``Table out/fruits``.
        advice: What the user can do.

    Raises:
        ContractMismatch: They differ.
    """
    if stored.digest == asked.digest:
        return
    old, new = stored._compared(), asked._compared()
    names = ", ".join(key for key in old if old[key] != new[key])
    raise ContractMismatch(
        f"{what} was made with {stored.describe()}; this run asks for {asked.describe()}. "
        f"They differ in: {names}; such features can't be compared. {advice}"
    )
