"""What is known of weights without loading them: the SHA-256 of the network's tensors, which the contract names.

To compute it takes PyTorch and the network, seconds of every start. So it is noted in the node's cache, under all that
it follows from. Whoever loads the network nevertheless holds it against what was noted.
"""

from __future__ import annotations

import hashlib
import logging
import re
from importlib.metadata import version
from pathlib import Path

from pipeline import storage
from pipeline.backbones.family import BackboneFamily
from pipeline.backbones.fetch import fetch
from pipeline.contract import canonical_json

logger = logging.getLogger(__name__)

#: To be raised whenever the same weights give another digest.
_FORM = 1


class KnownWeights:
    """The note on some weights of a backbone.

    Args:
        family: The backbone.
        weights: As `pipeline.backbones.load.resolve_weights` returns them.
        cache_dir: Folder of the cache.

    Raises:
        WeightsError: There is no such file.
        WeightsUnavailable: It can't be downloaded now.
    """

    def __init__(self, family: BackboneFamily, weights: str, cache_dir: str) -> None:
        if weights not in ("auto", "none") and not weights.startswith("random:"):
            weights = f"sha256:{storage.file_sha256(fetch(weights, cache_dir))}"
        packages = {package: version(package) for package in ("torch", *family.packages)}
        key = canonical_json({"backbone": family.name, "weights": weights, "packages": packages, "form": _FORM})
        name = f"{family.name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.sha256"
        self.path = Path(cache_dir).expanduser() / "networks" / name

    def sha256(self) -> str | None:
        """Return the SHA-256 (hex) of the tensors; None where it isn't known."""
        try:
            noted = self.path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return None
        return noted if re.fullmatch("[0-9a-f]{64}", noted) else None

    def note(self, sha256: str) -> None:
        """Note it for the next time, where that can be done."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            storage.LocalStore().replace(str(self.path), sha256.encode())
        except OSError as error:  # it saves time, and must never be why a run fails
            logger.warning(
                "%s", storage.explained(error, f"What was found of the weights can't be kept in {self.path}")
            )
