"""`request purge`: the clear ids of served requests are deleted, since a register of erased people must be erasable."""

from __future__ import annotations

from pymixunlearn.experiments.common.signing import Signer
from pymixunlearn.experiments.request.inputs import PurgeInputs
from pymixunlearn.experiments.request.ledger import Ledger


def run_purge(inputs: PurgeInputs) -> tuple[int, int]:
    """Delete the clear ids of all served requests, and write what is left anew so that no page holds them.

    Returns:
        How many rows were deleted, and how many of pending requests stay.

    Raises:
        UserError: There is no ledger, it is damaged, or it cannot be written.
    """
    signer = None if inputs.sign_key is None else Signer(inputs.sign_key)
    ledger = Ledger(inputs.ledger, inputs.ledger_dir)
    state = ledger.state()
    served = [request for request in state.requests.values() if request.served is not None]
    names = [request.request_id for request in served if request.request_id not in state.purged]
    rows = 0
    if names:
        with ledger.store.writing() as writer:
            rows = writer.purge(int(request.added["seq"]) for request in served)
            writer.append("purge", {"requests": names, "rows": rows}, signer)
    ledger.store.rewrite_clear_ids()  # also where a process died between the deletion and this
    return rows, len(ledger.store.clear_ids())
