"""The actor of the graph: a loaded engine in a process of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.backbones import Backbone, Preprocessing, load_backbone
from pipeline.contract import FeatureContract
from pipeline.cores import keep_to_a_share
from pipeline.engines import Engine, SharedEngine, load_engine, load_file_engine
from pipeline.images import Limits
from pipeline.layout import EngineSpec, Layout
from pipeline.monitor import Reporter
from pipeline.stages.busy import Busy
from pipeline.stages.derive import Derive, derive_unit
from pipeline.stages.embed import embed_unit, give_up

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """What an actor needs to load the backbone where it runs: names and a URI, never the weights themselves.

    Args:
        contract: The features that it gives.
        preprocessing: What turns an image into the network's input.
        weights: Where they are, as `pipeline.backbones.resolve_weights` returns it.
        cache_dir: Folder of each node's cache.
        storage_options: Of the object store that holds a quantised network.
    """

    contract: FeatureContract
    preprocessing: Preprocessing
    weights: str
    cache_dir: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def backbone(self) -> Backbone:
        """Return the backbone, whose network is loaded when it is needed."""
        return load_backbone(
            self.contract.backbone,
            self.weights,
            self.preprocessing.name,
            cache_dir=self.cache_dir,
            expected=self.contract,
            storage_options=self.storage_options,
        )

    def load(self, spec: EngineSpec, layout: Layout, limits: Limits) -> Engine:
        """Make the backbone ready to execute here.

        Raises:
            ConfigError: This machine can't do what was asked for.
            WeightsError: The network was needed, and its weights can't be had.
        """
        loaded = self.backbone()
        engine = load_engine(
            loaded,
            layout.engine,
            spec.precision,
            batch_size=spec.batch_size,
            device=layout.device,
            num_threads=layout.num_threads,
            cache_dir=self.cache_dir,
        )
        return load_file_engine(engine, loaded, limits) if spec.decode == "gpu" else engine


class EmbedActor:
    """Holds a loaded engine and embeds the units that come by, maybe from several threads (`Layout.units_at_once`)."""

    def __init__(
        self,
        backbone: BackboneSpec,
        spec: EngineSpec,
        layout: Layout,
        embedding_type: pa.DataType,
        companion: Any,
        limits: Limits,
        derive: Derive | None,
    ) -> None:
        self._embedding_type, self._report, self._derive = embedding_type, Reporter(companion, "embedded"), derive
        self._preprocessing, self._turn, self._busy = backbone.preprocessing, threading.Lock(), Busy()
        self._engine: Engine | Exception
        try:
            if layout.num_threads is not None:
                keep_to_a_share(layout.num_threads)
            self._engine = backbone.load(spec, layout, limits)
        except Exception as error:  # what a constructor raises, Ray buries; so each unit brings it to the driver
            storage.log_traceback(logger, "The engine can't be loaded.")
            self._engine = error

    def __call__(self, block: pa.Table) -> pa.Table:
        """Embed one unit; what is derived of its embeddings, if anything is, leaves in their place."""
        block = self._embed(block)
        return block if self._derive is None else derive_unit(block, self._derive)

    def _embed(self, block: pa.Table) -> pa.Table:
        if isinstance(self._engine, Exception):
            return give_up(block, self._embedding_type, self._engine)
        try:
            turn = None if isinstance(self._engine, SharedEngine) else self._turn
            return embed_unit(
                self._engine, block, self._preprocessing, self._embedding_type, self._report, turn, self._busy
            )
        finally:
            self._report.flush()
