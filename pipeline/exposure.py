"""Refuse a Ray cluster in which anyone on its network can run code.

Ray's servers require a token where they were started with RAY_AUTH_MODE=token. A process's own setting says nothing of
that: who sends a token is served by a cluster that requires none, too. So the cluster is asked, without a token. It is
its control store (GCS) that answers, which no node can join without the token that it requires.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from ray._private.authentication.authentication_utils import is_token_auth_enabled

from pipeline.errors import ConfigError

logger = logging.getLogger(__name__)

#: Set to 1: work on an open cluster all the same, since its network keeps everybody else out.
VARIABLE = "VEP_ALLOW_OPEN_CLUSTER"

#: A question of Ray's protocol that changes nothing.
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ANSWER_S = 10.0
#: With one of these as its address, a node listens on the loopback interface; with any other one, on all interfaces.
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def requires_token(gcs_address: str) -> bool | None:
    """Return whether a cluster turns away who has no token; None where it doesn't answer."""
    import grpc  # here, since worker processes import this module and ask nothing

    options = [("grpc.enable_http_proxy", 0)]  # as Ray itself goes: never by a proxy
    with grpc.insecure_channel(gcs_address, options) as channel:
        try:
            channel.unary_unary(_CHECK_ALIVE)(b"", timeout=_ANSWER_S, wait_for_ready=True)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def require_private(gcs_address: str, hosts: Sequence[str]) -> None:
    """Refuse an open cluster.

    Args:
        gcs_address: Host and port of its control store.
        hosts: Addresses of its nodes, and of its dashboard.

    Raises:
        ConfigError: It listens beyond the loopback interface and requires no token.
    """
    open_to = sorted({host for host in hosts if host not in _LOOPBACK})
    if not open_to:
        return
    required = requires_token(gcs_address)
    if required is None:  # it speaks TLS, with certificates on both sides, or is reached in another way (ray://)
        required = is_token_auth_enabled() or os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true")
    if required:
        return
    where = f"The Ray cluster at {gcs_address} listens on {', '.join(open_to[:3])}{', …' if len(open_to) > 3 else ''}"
    if os.environ.get(VARIABLE) == "1":
        logger.warning("%s and requires no token: who can reach it can run code in it (%s=1).", where, VARIABLE)
        return
    raise ConfigError(
        f"{where} and requires no token, so anyone who can reach it can run code in it. Expected token authentication: "
        "make a token with `ray get-auth-token --generate`, copy ~/.ray/auth_token to every node, and start Ray there "
        f"and this job with RAY_AUTH_MODE=token (docs/cluster.md). If its network keeps everybody else out, set "
        f"{VARIABLE}=1."
    )
