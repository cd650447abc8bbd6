import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_toys import Brightness, Regression, adamw, line_batch, lines, picture_batch, pictures, sgd

from regraft.errors import Diverged, Interrupted, RecipeError, SampleError
from regraft.train.average import moving_average
from regraft.train.journal import read_events
from regraft.train.loop import fit
from regraft.train.processes import launch
from regraft.train.run import Run
from regraft.train.schedule import Schedule, group_apart, param_groups

SHORT = Schedule(steps=6, peak_lr=0.05)


def test_it_learns(tmp_path: Path) -> None:
    task = Regression()
    schedule = Schedule(steps=200, peak_lr=0.02, warmup_steps=10, evaluate_every=100)
    fit(task, lines, adamw(task.model), schedule, Run(tmp_path, {}))
    events = read_events(tmp_path)
    assert [event.step for event in events if event.evaluation] == [100, 200]
    assert events[0].loss > 1.0
    assert events[-1].evaluation["held_out_error"] < 0.05
    assert events[-1].loss == pytest.approx(sum(events[-1].terms.values()))
    assert events[-1].lr == schedule.lr(199)


def test_a_finished_run_gives_its_weights_and_asks_for_no_data(tmp_path: Path) -> None:
    task, again = Regression(), Regression()
    fit(task, lines, sgd(task.model), SHORT, Run(tmp_path, {}))
    before = (tmp_path / "events.jsonl").read_bytes()

    def no_data(step: int) -> Iterator[dict[str, Tensor]]:
        raise AssertionError

    fit(again, no_data, sgd(again.model), SHORT, Run(tmp_path, {}))
    assert all(map(torch.equal, task.model.parameters(), again.model.parameters()))
    assert (tmp_path / "events.jsonl").read_bytes() == before


def test_accumulation_changes_nothing_but_rounding(tmp_path: Path) -> None:
    curves = list[list[float]]()
    for accumulate in (1, 5):
        task = Regression()
        schedule = Schedule(steps=30, peak_lr=0.05, accumulate=accumulate)
        fit(task, lines, sgd(task.model), schedule, Run(tmp_path / str(accumulate), {}))
        curves.append([event.loss for event in read_events(tmp_path / str(accumulate))])
    # Float32 sums in another order, grown by 30 steps of momentum.
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_the_seed_decides_dropout(tmp_path: Path) -> None:
    def curve(name: str, seed: int) -> list[float]:
        task = Regression(dropout=0.5)
        schedule = Schedule(steps=5, peak_lr=0.05, seed=seed)
        torch.rand(len(name))  # The global generator is elsewhere each time; it must not matter.
        fit(task, lines, sgd(task.model), schedule, Run(tmp_path / name, {}))
        return [event.loss for event in read_events(tmp_path / name)]

    assert curve("a", 1) == curve("other", 1)
    assert curve("b", 1) != curve("c", 2)


def test_the_average_is_what_is_evaluated_in_eval_mode_without_gradients(tmp_path: Path) -> None:
    class Watched(Regression):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            self.seen = model
            assert not model.training
            assert not torch.is_grad_enabled()
            return super().evaluate(model)

    task = Watched()
    average = moving_average(task.model)
    fit(task, lines, sgd(task.model), SHORT, Run(tmp_path, {}), average=average)
    assert task.seen is average.module
    assert task.model.training
    error = read_events(tmp_path)[-1].evaluation["held_out_error"]
    assert error == Regression.evaluate(task, average.module.eval())["held_out_error"]
    assert error != Regression.evaluate(task, task.model.eval())["held_out_error"]


def test_norms_biases_and_scales_are_not_decayed(tmp_path: Path) -> None:
    class Nothing(Brightness):
        """A loss without slope, so that decay is all that moves."""

        def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
            return {"nothing": 0 * self.model(batch["x"]).sum()}

    task = Nothing()
    before = {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}
    schedule = Schedule(steps=4, peak_lr=0.1, weight_decay=0.5, final_weight_decay=0.1)
    fit(task, pictures, torch.optim.SGD(param_groups(task.model), lr=1.0), schedule, Run(tmp_path, {}))
    shrunk = 1.0
    for step in range(4):
        shrunk *= 1 - schedule.lr(step) * schedule.decay(step)
    for name, parameter in task.model.named_parameters():
        factor = 1.0 if name.endswith("bias") or name.startswith("norm") else shrunk
        assert torch.allclose(parameter, before[name] * factor, rtol=1e-5), name


class Exploding(Regression):
    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        terms = super().loss(batch, step)
        return terms | {"bad": terms["error"] * (float("nan") if step == 4 else 1.0)}


def test_divergence_stops_before_the_optimizer_acts(tmp_path: Path) -> None:
    task = Exploding()
    seen = list[list[Tensor]]()

    def watched(step: int) -> Iterator[dict[str, Tensor]]:
        for batch in lines(step):
            seen.append([parameter.detach().clone() for parameter in task.model.parameters()])
            yield batch

    schedule = Schedule(steps=9, peak_lr=0.05, checkpoint_every=2)
    with pytest.raises(Diverged) as caught:
        fit(task, watched, sgd(task.model), schedule, Run(tmp_path, {}))
    assert all(map(torch.equal, task.model.parameters(), seen[4]))
    for words in ("Step 4", "loss nan", "bad", "0.weight, 0.bias, 1.weight and 3 more", "Halve peak_lr"):
        assert words in str(caught.value)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-00000002",
        "step-00000004",
    ]


def test_clipping_bounds_the_step_and_not_the_record(tmp_path: Path) -> None:
    task = Regression()
    before = [parameter.detach().clone() for parameter in task.model.parameters()]
    schedule = Schedule(steps=1, peak_lr=1.0, clip_norm=1e-3)
    fit(task, lines, torch.optim.SGD(param_groups(task.model), lr=1.0), schedule, Run(tmp_path, {}))
    moved = torch.stack([(p - q).norm() for p, q in zip(task.model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)
    assert read_events(tmp_path)[0].gradient_norm > 1e-2


class Offset(Regression):
    """A line, and beside the network a number whose slope is a million."""

    def __init__(self, bad_step: int = -1) -> None:
        super().__init__()
        self.network, self.offset = self.model, nn.Linear(1, 1, bias=False)
        self.model = nn.ModuleList([self.network, self.offset])
        self.bad_step = bad_step

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        error = F.mse_loss(self.network(batch["x"]).squeeze(1), batch["y"])
        beside = 1e6 * self.offset.weight.sum()
        # The square root of nothing is nothing, with an infinite slope.
        bad = (0 * self.offset.weight).sum().sqrt() if step == self.bad_step else 0 * beside
        return {"error": error, "beside": beside + bad}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("build", [torch.optim.SGD, torch.optim.AdamW])
def test_a_group_apart_neither_counts_in_clipping_nor_suffers_from_it(
    tmp_path: Path, build: type[torch.optim.Optimizer]
) -> None:
    schedule = Schedule(steps=5, peak_lr=0.05, clip_norm=0.1)
    alone, task = Regression(), Offset()
    alone.loss = lambda batch, step: {"error": F.mse_loss(alone.model(batch["x"]).squeeze(1), batch["y"])}
    before = task.offset.weight.item()
    groups = [*param_groups(task.network), group_apart(task.offset, lr=1e-7)]
    fit(alone, lines, build(param_groups(alone.model), lr=1.0), schedule, Run(tmp_path / "alone", {}))
    fit(task, lines, build(groups, lr=1.0), schedule, Run(tmp_path / "both", {}))
    assert all(map(torch.equal, task.network.parameters(), alone.model.parameters()))
    norms = [[e.gradient_norm for e in read_events(tmp_path / name)] for name in ("alone", "both")]
    assert norms[0] == norms[1]
    # Five whole steps: of a tenth down the slope, or of Adam's own length.
    moved = 5 * 1e-7 * (1e6 if build is torch.optim.SGD else 1.0)
    assert before - task.offset.weight.item() == pytest.approx(moved, rel=0.3)


def test_a_group_apart_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = Offset(bad_step=2)
    groups = [*param_groups(task.network), group_apart(task.offset, lr=1e-7)]
    with pytest.raises(Diverged, match=r"Step 2 .*gradients of 1\.weight\."):
        fit(task, lines, torch.optim.SGD(groups, lr=1.0), SHORT, Run(tmp_path, {}))


def raising(number: signal.Signals, at: int, times: int = 1) -> Iterator[dict[str, Tensor]]:
    for step in itertools.count():
        if step == at:
            for _ in range(times):
                signal.raise_signal(number)
        yield line_batch(step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves_it(tmp_path: Path, number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    task, whole = Regression(), Regression()
    with pytest.raises(Interrupted, match="after step 3 of 6") as caught:
        fit(task, lambda _: raising(number, at=2), sgd(task.model), SHORT, Run(tmp_path, {}))
    assert "Run the same command again" in str(caught.value)
    assert signal.getsignal(number) is handler
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()
    fit(task, lines, sgd(task.model), SHORT, Run(tmp_path, {}))
    fit(whole, lines, sgd(whole.model), SHORT, Run(tmp_path / "whole", {}))
    assert all(map(torch.equal, task.model.parameters(), whole.model.parameters()))
    assert read_events(tmp_path) == read_events(tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    task = Regression()
    # A shell that starts tests in the background makes them deaf to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(
                task,
                lambda _: raising(signal.SIGINT, at=2, times=2),
                sgd(task.model),
                SHORT,
                Run(tmp_path, {}),
            )
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(read_events(tmp_path)) == 2
    assert not (tmp_path / "checkpoints").exists()


def test_it_trains_in_a_thread_where_nobody_can_listen(tmp_path: Path) -> None:
    task = Regression()
    thread = threading.Thread(target=fit, args=(task, lines, sgd(task.model), SHORT, Run(tmp_path, {})))
    thread.start()
    thread.join()
    assert len(read_events(tmp_path)) == 6


def test_data_that_ends_is_an_error(tmp_path: Path) -> None:
    task = Regression()
    with pytest.raises(SampleError, match="before step 4"):
        fit(task, lambda step: itertools.islice(lines(step), 4), sgd(task.model), SHORT, Run(tmp_path, {}))


def test_what_would_not_be_saved_is_refused(tmp_path: Path) -> None:
    task = Regression()
    optimizer = torch.optim.SGD([*task.model.parameters(), nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(RecipeError, match=r"1 parameters that task\.model does not have"):
        fit(task, lines, optimizer, SHORT, Run(tmp_path, {}))


def test_decay_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    task = Regression()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    with pytest.raises(RecipeError, match="no group of the optimizer"):
        fit(task, lines, optimizer, Schedule(steps=6, peak_lr=0.05, weight_decay=0.1), Run(tmp_path, {}))


def test_mixed_precision_keeps_float32_weights_and_learns(tmp_path: Path) -> None:
    class Watched(Regression):
        def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
            self.computed_in = self.model(batch["x"]).dtype
            return super().loss(batch, step)

    task = Watched()
    fabric = launch(accelerator="cpu", precision="bf16-mixed")
    schedule = Schedule(steps=100, peak_lr=0.02)
    fit(task, lines, adamw(task.model), schedule, Run(tmp_path, {}), fabric=fabric)
    assert task.computed_in == torch.bfloat16
    assert {parameter.dtype for parameter in task.model.parameters()} == {torch.float32}
    assert read_events(tmp_path)[-1].evaluation["held_out_error"] < 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_gpu_trains_saves_and_resumes(tmp_path: Path, precision: str) -> None:
    def train(steps_of_data: int) -> Brightness:
        task = Brightness()
        fabric = launch(accelerator="cuda", precision=precision)
        average = moving_average(task.model)
        schedule = Schedule(steps=20, peak_lr=0.01, checkpoint_every=5, accumulate=2)
        data = [picture_batch(step) for step in range(steps_of_data)]
        fit(
            task, lambda step: iter(data[step:]), adamw(task.model), schedule, Run(tmp_path, {}),
            fabric=fabric, average=average,
        )  # fmt: skip
        return task

    with pytest.raises(SampleError):
        train(12)
    task = train(20)
    assert next(task.model.parameters()).device.type == "cuda"
    assert [event.step for event in read_events(tmp_path)] == list(range(1, 21))
