"""Which cores an actor computes on, where several share a node: each keeps to its own, so that threads don't meet.

The operating system moves threads within an actor's share, since those who read and commit use the same cores.
"""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)

#: The claims of this process; each lasts as long as the process.
_claims: list[socket.socket] = []


def shares(cores: list[int], num_threads: int) -> list[list[int]]:
    """Cut a node's cores into shares of ``num_threads`` neighbours; an only share is none."""
    starts = range(0, len(cores) - num_threads + 1, num_threads)
    return [cores[start : start + num_threads] for start in starts] if len(starts) > 1 else []


def keep_to_a_share(num_threads: int) -> list[int] | None:
    """Keep this process to a share of the node's cores that no other process has claimed.

    Args:
        num_threads: Cores of a share.

    Returns:
        The share; None where there is just one, none is left, or the system can't do that.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    for share in shares(sorted(os.sched_getaffinity(0)), num_threads):
        claim = socket.socket(socket.AF_UNIX)
        try:
            # A name that is no file, in the system's abstract namespace: it is free again when the process has ended.
            claim.bind(f"\0vep-cores-{share[0]}-{num_threads}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        os.sched_setaffinity(0, share)
        logger.info("Computing on cores %d to %d.", share[0], share[-1])
        return share
    return None
