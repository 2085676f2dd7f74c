"""Put something smaller in place of a unit's embeddings, where they were computed: nothing else has to travel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.engines import Embeddings
from pipeline.stages.block import constant
from pipeline.stages.costs import costs_of, peak_bytes, with_costs
from pipeline.table import embeddings

logger = logging.getLogger(__name__)

#: Makes of embeddings, float32 of shape (N, D), what the table holds instead: a struct array of N rows.
Derive = Callable[[Embeddings], pa.StructArray]


def derive_unit(block: pa.Table, derive: Derive) -> pa.Table:
    """Replace a unit's embeddings by what is made of them.

    Args:
        block: What `embed_unit` or `give_up` returned.
        derive: What is made of them.

    Returns:
        The block with ``derived``, null for rejects, in place of ``embedding``, and more ``costs``. A unit in trouble
        has neither.
    """
    start = time.perf_counter()
    vectors, block = block["embedding"], block.drop_columns(["embedding"])
    if block["trouble"][0].as_py() is None:
        good = np.asarray(pc.is_null(block["code"]))
        try:
            derived = derive(embeddings(vectors.filter(pa.array(good))))
        except Exception as error:  # whatever it is, the unit stays pending and says why
            storage.log_traceback(logger, "A unit's embeddings can't be used.")
            trouble = storage.explained(error, "Nothing can be made of the embeddings")
            place = block.column_names.index("trouble")
            block = block.set_column(place, "trouble", constant(trouble, pa.string(), len(block)))
        else:
            places = pa.array(np.cumsum(good) - 1, pa.int64(), mask=~good)
            block = block.append_column("derived", derived.take(places))
    costs = costs_of(block)
    seconds = costs.embed_s + time.perf_counter() - start
    return with_costs(block, replace(costs, embed_s=seconds, embed_peak_bytes=peak_bytes()))
