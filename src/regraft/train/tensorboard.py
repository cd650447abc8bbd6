"""Following a run in TensorBoard."""

from pathlib import Path
from typing import final

from regraft.errors import MissingExtra
from regraft.train.journal import Event


@final
class TensorBoard:
    """A watcher that writes the events to `tensorboard/` in the run directory.

    Raises:
        MissingExtra: If TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("writing for TensorBoard", "tensorboard") from error
        self._writer_class = SummaryWriter
        self._writer: SummaryWriter | None = None

    def start(self, directory: Path, step: int, num_steps: int) -> None:
        """Open the log; TensorBoard forgets the steps after `step`."""
        self._writer = self._writer_class(str(directory / "tensorboard"), purge_step=step + 1)

    def record(self, event: Event) -> None:
        """Add a point to every curve."""
        assert self._writer is not None
        values = {"loss": event.loss, "lr": event.lr, "gradient_norm": event.gradient_norm}
        values |= {f"terms/{name}": value for name, value in event.terms.items()}
        values |= {f"evaluation/{name}": value for name, value in event.evaluation.items()}
        for name, value in values.items():
            self._writer.add_scalar(name, value, event.step)

    def stop(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
