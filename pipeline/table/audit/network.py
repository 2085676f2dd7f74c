"""Check the quantised network that a table's features come from."""

from __future__ import annotations

from pipeline.errors import WeightsError
from pipeline.quantised import parse_network
from pipeline.table.audit.findings import Findings
from pipeline.table.info import TableInfo
from pipeline.table.schema import Table


def check_network(table: Table, info: TableInfo, findings: Findings) -> None:
    """Find out whether the network is there and whole: without it, the table can't be extended nor compared with.

    Args:
        table: Where it lies.
        info: What the table says of itself; of a table of floats, or of predictions, nothing is expected.
        findings: Where a breach goes.

    Raises:
        OSError: It can't be read now.
    """
    if info.kind != "embeddings" or info.contract.quantisation is None:
        return
    uri = table.network_uri(info.contract)
    try:
        network = parse_network(table.store.read_bytes(uri), uri)
    except FileNotFoundError:
        message = "Expected the quantised network that the embeddings come from, found none. Restore it."
        findings.add("network", uri, message)
    except WeightsError as error:
        findings.add("network", uri, str(error))
    else:
        if network.contract.digest != info.contract.digest:
            message = f"Expected {info.contract.describe()}, got {network.contract.describe()}. Restore the file."
            findings.add("network", uri, message)
