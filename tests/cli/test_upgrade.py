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
from regraft.errors import RunError, SampleError
from regraft.recipes.encode_sources import EncodeSources
from regraft.recipes.gallery import add

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
        "does not apply",
        "held-out",
        "recommended stop",
        "no row",
    ):
        assert words in planned.stdout
    assert "planned" in run("status", "gallery").stdout

    half = json.loads(run("run", "gallery", "--until", "0.5", "--json").stdout)
    assert half["phase"] == "backfilling"
    assert half["share"] >= 0.5
    whole = run("run", "gallery", "--until", "1").stdout
    assert "100.0 %" in whole
    assert "finish forgets" in whole
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
    for wrong in (["--old", "old.npy"], ["--pairs-file", "a", "--old", "old.npy", "--new", "new.npy"]):
        assert run("plan", "gallery", "--model", "new.safetensors", *wrong).exit_code == 2


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
