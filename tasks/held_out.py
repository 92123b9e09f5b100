"""What a classifier said of cases that it had not learned from, kept beside its bundle."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.gather.opening import Folded
from tasks.storage import Draft, Receipt, Store

FILE = "held_out.parquet"


def digest_of_cases(data: Folded) -> str:
    """What a model was trained on, whatever order it came in."""
    return hashlib.sha256("".join(sorted(identities(data, data.of("train")))).encode()).hexdigest()


def identities(data: Folded, which: np.ndarray) -> list[str]:
    """What each of some cases is known by, through all runs: its name, its origin and its values."""
    origins = data.table.origins
    return [
        hashlib.sha256(
            f"{data.table.ids[at]}\0{origins[at] if origins is not None else ''}\0".encode() + data.cases.values(at).tobytes()
        ).hexdigest()
        for at in which.tolist()
    ]


def write_held_out(draft: Draft, data: Folded, logits: list[np.ndarray], probabilities: np.ndarray) -> None:
    """What was said of each case to validate on without having learned from it, member by member and in the end."""
    columns = {"case": pa.array(identities(data, data.validated))}
    names = [f"logits_{member}" for member in range(len(logits))]
    for name, values in zip([*names, "probabilities"], [*logits, probabilities], strict=True):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel().astype(np.float64)), values.shape[1])
    draft.write_table(FILE, pa.table(columns))


@dataclass(frozen=True)
class HeldOut:
    """What a model said of cases before it had learned from them."""

    cases: list[str]  # identities
    logits: list[np.ndarray]  # M times (N, K)
    probabilities: np.ndarray  # (N, K)


def read_held_out(store: Store, model: Receipt) -> HeldOut:
    table = pq.read_table(store.file(model, FILE), page_checksum_verification=True)

    def matrix(name: str) -> np.ndarray:
        column = table[name].combine_chunks()
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)

    names = sorted((name for name in table.column_names if name.startswith("logits_")), key=lambda name: int(name[7:]))
    return HeldOut(table["case"].to_pylist(), [matrix(name) for name in names], matrix("probabilities"))
