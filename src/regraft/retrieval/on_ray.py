"""Encoding on a Ray cluster, for galleries that outgrow one machine."""

import logging
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

from regraft.errors import MissingExtra, RecipeError, RegraftError
from regraft.retrieval.encoding import Encode, Finished, Job, timed

WINDOW_BATCHES = 1024


@final
@dataclass(frozen=True, kw_only=True)
class OnRay:
    """An `Executor` that lets Ray Data spread batches over actors, each of which holds the encoder.

    Only the process that calls it touches the gallery and the ledger, in the order of the batches, as what
    came of them streams back. So it ends with the same bits as encoding here does, if what the encoder makes
    of a batch depends on nothing but the batch: mind the kind of processor, and the number of threads. An
    actor that dies is started again, and what it had not given back is encoded again.

    The encoder must survive `pickle`, and sources must mean the same on every machine. Ray is told not to
    report its use to its makers.

    Args:
        num_workers: Actors.
        num_threads: Threads of each, and processors that Ray keeps for it.
        num_gpus: GPUs of each; may be a fraction.
        address: The cluster, or "local" for a new one on this machine; `None` for the one that `RAY_ADDRESS`
            names, else one that runs here, else a new one. A process that has called `ray.init` stays in its.
    """

    num_workers: int = 2
    num_threads: int = 1
    num_gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.num_threads < 1 or self.num_gpus < 0:
            raise RecipeError(f"{self} cannot work; expected at least one worker and one thread.")

    def __call__(self, encode: Encode, jobs: Iterator[Job]) -> Iterator[Finished]:
        """Encode jobs, up to a thousand ahead of the one whose result is taken.

        Raises:
            MissingExtra: Ray is not installed.
        """
        _join(self.address)
        while window := list(islice(jobs, WINDOW_BATCHES)):
            yield from self._encoded(encode, window)

    def _encoded(self, encode: Encode, window: list[Job]) -> Iterator[Finished]:
        from ray import data

        items = [{"job": pickle.dumps(job)} for job in window]
        with data.DataContext.current(_quiet(data.DataContext.get_current().copy())):
            encoded = data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Worker,
                fn_constructor_args=(encode,),
                batch_size=1,
                compute=_actors(min(self.num_workers, len(items))),
                num_cpus=self.num_threads,
                num_gpus=self.num_gpus or None,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.num_threads)}},
            )
        for row in encoded.iter_rows():
            finished = pickle.loads(row["finished"])
            if isinstance(finished, RegraftError):
                raise finished
            yield finished


def _actors(number: int) -> Any:
    """Begin with all, and make do with those that the cluster has room for."""
    from ray.data import ActorPoolStrategy

    return ActorPoolStrategy(min_size=1, max_size=number, initial_size=number)


@final
class _Worker:
    """An actor's side."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        try:
            finished = timed(self._encode, pickle.loads(batch["job"][0]))
        except RegraftError as error:
            finished = error  # Ray would wrap it, and its advice would be lost
        return {"finished": [pickle.dumps(finished)]}


def _quiet(context: Any) -> Any:
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def _join(address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import data  # pyright: ignore[reportUnusedImport]  # noqa: F401  (needs packages of its own)
    except ImportError as error:
        raise MissingExtra.of("encoding on Ray", "ray") from error
    if not ray.is_initialized():
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it reports each thousand batches as news
        with _same_signals():
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
            )


@contextmanager
def _same_signals() -> Generator[None]:
    """Keep listening to SIGTERM as before: Ray's own handler would end the process within a batch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
