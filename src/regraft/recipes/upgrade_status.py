"""Where an upgrade is, as a person or a program asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from regraft.recipes.upgrade_plan import UpgradePlan
from regraft.retrieval.batches import Ending
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import Metric, Phase, Worker
from regraft.retrieval.store.protocol import VectorStore


@dataclass(frozen=True)
class StageFacts:
    """How far one stage of an upgrade is."""

    name: str
    items_done: int
    items_total: int
    compute_s: float
    store_s: float
    eta_s: float | None


@dataclass(frozen=True, kw_only=True)
class UpgradeStatus:
    """Where an upgrade is."""

    phase: Phase = "planned"
    is_paused: bool = False
    worker: Worker | None = None
    """The process that works on it now."""
    old_space: str
    new_space: str
    served: str
    """The space that answers now."""
    num_rows: int
    num_native: int
    """Rows whose vector in the new space the new model made."""
    num_transformed: int
    num_lacking: int
    """Rows without a vector in the new space."""
    stop: float
    """The share of native rows that is recommended."""
    measure: str
    """What the quality of the answers is called in the plan."""
    expected: float
    """How good the plan expects the answers to be now, from 0 to 1."""
    stages: tuple[StageFacts, ...] = ()
    gone: Mapping[str, str] = field(default_factory=dict[str, str])
    """Rows that cannot be encoded and keep a computed vector, with the reasons."""
    metrics: tuple[Metric, ...] = ()
    """What was measured in the course of the upgrade, the oldest first."""
    ending: Ending | None = None
    """How the last call ended; `None` if it only looked."""

    @property
    def share(self) -> float:
        """Of all rows, those that the new model has encoded."""
        return self.num_native / self.num_rows if self.num_rows else 0.0


def read_status(
    plan: UpgradePlan, store: VectorStore, ledger: Ledger | None, ending: Ending | None = None
) -> UpgradeStatus:
    """Look at the gallery, and into the ledger if the upgrade was begun.

    Args:
        plan: Of the upgrade.
        store: The gallery's rows.
        ledger: `None` before the upgrade is begun.
        ending: How the call ended that asks.
    """
    new, num_rows = plan.new.space, store.count()
    native, transformed = (store.count(space=new, origin=origin) for origin in ("native", "transformed"))
    served = store.layout.space if store.layout else ""
    forecast, share = plan.forecast, native / max(1, num_rows)
    planned = UpgradeStatus(
        old_space=plan.old.space,
        new_space=new,
        served=served,
        num_rows=num_rows,
        num_native=native,
        num_transformed=transformed,
        num_lacking=num_rows - native - transformed,
        stop=forecast.stop,
        measure=forecast.name,
        expected=(forecast.at(share) if served == new else forecast.before).mean,
    )
    return planned if ledger is None else _begun(planned, ledger, ending)


def _begun(planned: UpgradeStatus, ledger: Ledger, ending: Ending | None) -> UpgradeStatus:
    found = ledger.status()
    stages = tuple(
        StageFacts(name, stage.items_done, stage.items_total, stage.compute_s, stage.store_s, stage.eta_s)
        for name, stage in found.progress.items()
    )
    return replace(
        planned,
        phase=found.phase,
        is_paused=found.paused,
        worker=found.worker,
        stages=stages,
        gone=ledger.gone(),
        metrics=tuple(found.metrics),
        ending=ending,
    )
