"""`regraft upgrade`: what it prints, and that Ctrl-C at any instant costs nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from galleries import write_model, write_pictures
from typer.testing import CliRunner, Result

from regraft.cli.upgrade import app
from regraft.cli.upgrade_printing import next_step, rung_lines, tell, time_taken
from regraft.errors import RunError, SampleError
from regraft.recipes.encode_sources import EncodeSources
from regraft.recipes.gallery import add
from regraft.recipes.upgrade_plan import RungFacts
from regraft.recipes.upgrade_status import UpgradeStatus

NUM_PICTURES = 60


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two models, pictures by class and a gallery of them."""
    monkeypatch.chdir(tmp_path)
    old = write_model(tmp_path / "old.safetensors", 0)
    write_model(tmp_path / "new.safetensors", 1)
    write_pictures(tmp_path / "pictures", NUM_PICTURES)
    add(tmp_path / "gallery", [tmp_path / "pictures"], model=old)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_from_plan_to_finish(home: Path) -> None:
    planned = run("plan", "gallery", "--model", "new.safetensors", "--pairs", "20", "--labels", "folder")
    assert planned.exit_code == 0
    assert planned.stderr == "", "a bar only in a terminal"
    for words in (
        "60 rows",
        "20 pairs",
        "procrustes",
        "near_orthogonal, residual_mlp, fct, head_free, label_free, fastfill, by_class do not apply: ",
        "20 of 60 rows were encoded for the plan",
        "WARNING: the forecast rests on 3 held-out pairs",
        "held-out",
        "recommended stop",
        "no row",
    ):
        assert words in planned.stdout
    page = (home / "gallery" / "upgrade" / "plan.html").read_text()
    for words in (
        "rests on 3 held-out pairs",
        "20 of 60 rows were encoded for the plan",
        "do not apply: ",
    ):
        assert words in page
    assert "planned" in run("status", "gallery").stdout

    half = json.loads(run("run", "gallery", "--until", "0.5", "--json").stdout)
    assert half["phase"] == "backfilling"
    assert half["share"] >= 0.5
    whole = run("run", "gallery", "--until", "1").stdout
    assert "100.0 %" in whole
    assert "finish forgets" in whole
    assert "--until 1" not in whole, "nothing is left to encode"
    assert "60 encoded by the new model" in run("status", "gallery").stdout
    assert "finished" in run("finish", "gallery").stdout
    with pytest.raises(RunError, match="finished"):
        run("rollback", "gallery")


def test_json_of_a_plan(home: Path) -> None:
    plan = json.loads(run("plan", "gallery", "--model", "new.safetensors", "--pairs", "20", "--json").stdout)
    assert plan["forecast"]["measure"].startswith("agreement@")
    assert len(plan["forecast"]["points"]) == 21
    assert Path(plan["page"]).is_file()
    assert plan["cost"]["num_rows"] == NUM_PICTURES


def test_pairs_from_files(home: Path) -> None:
    old, new = np.random.default_rng(0).normal(size=(2, 40, 256)).astype(np.float32)
    np.save("old.npy", old)
    np.save("new.npy", new)
    by_arrays = run("plan", "gallery", "--model", "new.safetensors", "--old", "old.npy", "--new", "new.npy")
    assert "40 pairs" in by_arrays.stdout
    columns = {"old": old[:30].tolist(), "new": new[:30].tolist()}
    pyarrow.parquet.write_table(pa.table(columns), "pairs.parquet")
    by_table = run("plan", "gallery", "--model", "new.safetensors", "--pairs-file", "pairs.parquet")
    assert "30 pairs" in by_table.stdout
    with pytest.raises(SampleError, match="cannot be read as a Parquet file"):
        run("plan", "gallery", "--model", "new.safetensors", "--pairs-file", "old.npy")
    for wrong in (
        ["--old", "old.npy"],
        ["--pairs-file", "a", "--old", "old.npy", "--new", "new.npy"],
        ["--pairs", "20", "--pairs-from", "pictures"],
    ):
        assert run("plan", "gallery", "--model", "new.safetensors", *wrong).exit_code == 2
    (home / "empty").mkdir()
    for place, message in {
        "nope": "There is no file or folder nope",
        "empty": "No pictures in empty",
    }.items():
        with pytest.raises(SampleError, match=message):
            run("plan", "gallery", "--model", "new.safetensors", "--pairs-from", place)


def test_rungs_that_do_not_apply_share_a_line() -> None:
    rungs = [
        RungFacts("ridge", 0.5, 0.6, 0.1, None),
        RungFacts("fct", None, None, 0.0, "few"),
        RungFacts("fastfill", None, None, 0.0, "no head"),
        RungFacts("head_free", None, None, 0.0, "few"),
    ]
    assert list(rung_lines(rungs)) == [
        "ridge      50.0 at the start,  60.0 on average",
        "fct, head_free do not apply: few",
        "fastfill does not apply: no head",
    ]


def test_a_short_time_is_told_in_milliseconds() -> None:
    assert [time_taken(seconds) for seconds in (0.0, 0.0123, 2.0)] == ["0.0 s", "12.3 ms", "2.0 s"]


def test_gone_rows_are_counted_and_a_few_shown(capsys: pytest.CaptureFixture[str]) -> None:
    gone = {f"row{number}": "its file is gone" for number in range(12)}
    state = UpgradeStatus(
        phase="backfilling",
        old_space="a",
        new_space="b",
        served="b",
        num_rows=20,
        num_native=8,
        num_transformed=12,
        num_lacking=0,
        stop=0.5,
        measure="mAP",
        expected=0.5,
        gone=gone,
    )
    tell(state, as_json=False)
    printed = capsys.readouterr().out
    assert "12 rows keep a computed vector" in printed
    assert printed.count("its file is gone") == 3
    assert "--json lists them all" in printed
    assert "run tries the gone rows again" in str(next_step(state))
    assert "--until 1" not in str(next_step(state))


def test_an_interrupted_run_goes_on(home: Path) -> None:
    run("plan", "gallery", "--model", "new.safetensors", "--pairs", "20", "--labels", "folder")
    command = [sys.executable, "-m", "regraft", "upgrade", "run", "gallery", "--until", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ledger = home / "gallery" / "upgrade" / "ledger.sqlite"
    while process.poll() is None and not ledger.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    # Through before the signal; stopped at the end of a batch; or stopped outside of any work.
    endings = {0: "", 1: "Stopped by SIGINT", 130: ""}
    assert endings[process.returncode] in stderr, stderr
    assert "Traceback" not in stderr
    assert json.loads(run("run", "gallery", "--until", "1", "--json").stdout)["num_native"] == NUM_PICTURES
    assert "rolled back" in run("rollback", "gallery").stdout


def test_the_encoder_travels_light(home: Path) -> None:
    import pickle

    encode = EncodeSources(home / "new.safetensors")
    source = str(home / "pictures" / "ant" / "000.png")
    first = encode(["a"], [source])
    assert first.ids == ["a"]
    sent = pickle.dumps(encode)
    assert len(sent) < 1000
    again = pickle.loads(sent)(["a", "b"], [source, None])
    assert again.gone == {"b": "it has no source"}
    np.testing.assert_array_equal(again.vectors, first.vectors)
