"""Work that outgrows one machine, spread over a Ray cluster."""

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, final

from regraft.errors import MissingExtra, RecipeError, RegraftError

WINDOW_JOBS = 1024

Job = TypeVar("Job")
Done = TypeVar("Done")


@final
@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Lets Ray Data spread jobs over actors, each of which holds what does them.

    Only the process that calls it sees what comes of them, in their order, as it streams back. So it ends
    with the same bits as doing them here does, if what comes of a job depends on nothing but the job: mind
    the kind of processor, and the number of threads. An actor that dies is started again, and what it had not
    given back is done again.

    What does the jobs must survive `pickle`, and files must mean the same on every machine. Ray is told not
    to report its use to its makers.

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

    def map(self, work: Callable[[Job], Done], jobs: Iterator[Job]) -> Iterator[Done]:
        """Do jobs, up to a thousand ahead of the one whose result is taken.

        Raises:
            MissingExtra: Ray is not installed.
            RecipeError: The cluster cannot hold a worker.
            RegraftError: What the work raises.
        """
        _join(self.address)
        self._check_room()
        while window := list(islice(jobs, WINDOW_JOBS)):
            yield from self._done(work, window)

    def _check_room(self) -> None:
        """Refuse what Ray would wait for without an end."""
        import ray

        there = ray.cluster_resources()
        for what, wanted in {"GPU": self.num_gpus, "CPU": self.num_threads}.items():
            if there.get(what, 0) < wanted:
                raise RecipeError(
                    f"A worker wants {wanted:g} {what}, but the cluster has {there.get(what, 0):g} in all.",
                    hint="Ask for less, or start nodes that have them.",
                )

    def _done(self, work: Callable[[Job], Done], window: list[Job]) -> Iterator[Done]:
        from ray import data

        items = [{"job": pickle.dumps(job)} for job in window]
        with data.DataContext.current(_quiet(data.DataContext.get_current().copy())):
            done = data.from_items(items, override_num_blocks=len(items)).map_batches(
                _Worker,
                fn_constructor_args=(work,),
                batch_size=1,
                compute=_actors(min(self.num_workers, len(items))),
                num_cpus=self.num_threads,
                num_gpus=self.num_gpus or None,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.num_threads)}},
            )
        for row in done.iter_rows():
            came_of_it = pickle.loads(row["done"])
            if isinstance(came_of_it, RegraftError):
                raise came_of_it
            yield came_of_it


def _actors(number: int) -> Any:
    """Begin with all, and make do with those that the cluster has room for."""
    from ray.data import ActorPoolStrategy

    return ActorPoolStrategy(min_size=1, max_size=number, initial_size=number)


@final
class _Worker:
    """An actor's side."""

    def __init__(self, work: Callable[[Any], object]) -> None:
        self._work = work

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        try:
            done = self._work(pickle.loads(batch["job"][0]))
        except RegraftError as error:
            done = error  # Ray would wrap it, and its advice would be lost
        return {"done": [pickle.dumps(done)]}


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
        raise MissingExtra.of("working on Ray", "ray") from error
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
