"""The feature contract: all that makes two embeddings comparable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.errors import ContractMismatch, TableError


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with one spelling only: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a network of 8-bit numbers was made of one of floats; its features are other features.

    Args:
        method: By what, for instance ``nncf int8``.
        calibration_sha256: Digest of the images that its ranges come from, and of the settings.
        float_weights_sha256: SHA-256 of the float network's tensors.
        float_weights: Where those came from, for people, as `FeatureContract.weights`. Not compared.
    """

    method: str
    calibration_sha256: str
    float_weights_sha256: str
    float_weights: str


@dataclass(frozen=True, slots=True)
class FeatureContract:
    """What must be equal for two embeddings to be compared.

    Engine, float precision and batch size are not part of it: they are recorded with each run, and the parity tests
    show that they don't change the features.

    Args:
        backbone: Name of the network, for instance ``microsoftvision-resnet50``.
        weights_sha256: SHA-256 of the network's tensors, the same whatever file format held them.
        preprocessing: Every constant of the preprocessing, as plain JSON values.
        embedding_dim: D, the length of one embedding.
        weights: Where the weights came from, for people: ``random:SEED``, ``auto``, ``none`` or a URI without secrets.
            Not compared: the SHA-256 is.
        quantisation: How the network was quantised, whose tensors and place the weights then are; None: it was not.
    """

    backbone: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    embedding_dim: int
    weights: str
    quantisation: Quantisation | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is compared."""
        return hashlib.sha256(canonical_json(self._compared()).encode()).hexdigest()

    @property
    def random_weights(self) -> bool:
        """Whether the weights were initialised at random rather than trained."""
        return self.origin.startswith("random:")

    @property
    def origin(self) -> str:
        """Where the float weights came from: ``weights``, or of a quantised network those that it was made of."""
        return self.weights if self.quantisation is None else self.quantisation.float_weights

    def before_quantisation(self) -> FeatureContract:
        """Return the contract of the float network; of one that is not quantised, this one."""
        if self.quantisation is None:
            return self
        made_of = self.quantisation
        return replace(
            self, weights_sha256=made_of.float_weights_sha256, weights=made_of.float_weights, quantisation=None
        )

    def _compared(self) -> dict[str, Any]:
        compared = self._fields()
        del compared["weights"]
        if self.quantisation is not None:
            del compared["quantisation"]["float_weights"]
        return compared

    def _fields(self) -> dict[str, Any]:
        """Return all fields; ``quantisation`` only where there is any, as before there was such a field."""
        fields = asdict(self)
        if self.quantisation is None:
            del fields["quantisation"]
        return fields

    def to_json(self) -> dict[str, Any]:
        """Return the contract as plain JSON values, with its digest."""
        return {**self._fields(), "digest": self.digest}

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
            if fields.get("quantisation") is not None:
                fields["quantisation"] = Quantisation(**fields["quantisation"])
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
            name += f" (RANDOM, seed {self.origin.partition(':')[2]})"
        if self.quantisation is not None:
            name += f" (int8, calibration {self.quantisation.calibration_sha256[:12]}…)"
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
    names = ", ".join(key for key in {**old, **new} if old.get(key) != new.get(key))
    raise ContractMismatch(
        f"{what} was made with {stored.describe()}; this run asks for {asked.describe()}. "
        f"They differ in: {names}; such features can't be compared. {advice}"
    )
