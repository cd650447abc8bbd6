"""Encoding rows of a gallery and filling in their vectors."""

import time
from collections import deque
from collections.abc import Callable, Iterator

from regraft.errors import RunError
from regraft.retrieval.batches import Perform
from regraft.retrieval.encoding import Encode, Executor, Finished, Job
from regraft.retrieval.ledger_entries import Batch, Done
from regraft.retrieval.store.protocol import Records, VectorStore

BYTES_A_NUMBER = 4


def encoding_rows(
    store: VectorStore,
    encode: Encode,
    executor: Executor,
    *,
    look_space: str,
    fill_space: str,
    have: Callable[[Records], set[str]],
) -> Perform:
    """What encodes the rows of batches that have no native vector yet, and fills it in.

    The gallery is looked into before anything is encoded: what a killed run had already filled in is not
    encoded again. A row that changes between the look and the filling keeps what it was changed to.

    Args:
        look_space: The space in which a row's changes are noticed.
        fill_space: The space of the encoder.
        have: The ids of rows that have their vector.
    """

    def look(batch: Batch) -> Records:
        records = store.find(batch.ids, space=look_space)
        done = have(records)
        if batch.taken_before and not store.capabilities.atomic_fill and len(done) < len(records):
            return records  # filled in half: encoded whole again, because its composition decides last bits
        return records.take([row for row, name in enumerate(records.ids) if name not in done])

    def fill(seen: Records, finished: Finished, look_s: float) -> Done:
        encoded, start_s = finished.encoded, time.perf_counter()
        num_rows = 0
        if encoded.ids:
            same = seen.named(encoded.ids)
            num_rows = store.fill(encoded.ids, encoded.vectors, space=fill_space, origin="native", seen=same)
        return Done(
            rows=num_rows,
            bytes=num_rows * encoded.vectors.shape[1] * BYTES_A_NUMBER,
            compute_s=finished.seconds,
            store_s=look_s + time.perf_counter() - start_s,
            gone=encoded.gone,
        )

    def perform(batches: Iterator[Batch]) -> Iterator[tuple[Batch, Done]]:
        looked: deque[tuple[Batch, Records, float]] = deque()

        def jobs() -> Iterator[Job]:
            for batch in batches:
                start_s = time.perf_counter()
                seen = look(batch)
                looked.append((batch, seen, time.perf_counter() - start_s))
                yield Job(seen.ids, seen.sources)

        for finished in executor(encode, jobs()):
            batch, seen, look_s = looked.popleft()
            yield batch, fill(seen, finished, look_s)
        if looked:
            raise RunError(f"The executor lost {len(looked)} batches; expected one answer to each.")

    return perform
