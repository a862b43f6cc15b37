"""What native libraries write to stderr is hidden, unless TF_CPP_MIN_LOG_LEVEL asks for it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keras_effnet.native_logs import muted_stderr, wants_logs

ROOT = Path(__file__).parents[1]
SCRIPT = """
import numpy as np
import keras_effnet
from keras_effnet.variants import tiny
model = keras_effnet.EfficientNet(tiny(), weights=None, classes=3)
model.predict(np.zeros((1, *model.input_shape[1:]), "float32"), verbose=0)
model.save("model.keras")
from keras_effnet.cli import app
app(["evaluate", "photos", "--model", "model.keras"], standalone_mode=False)
"""


@pytest.mark.parametrize("level", [None, "3"])
def test_the_python_api_and_the_command_line_are_silent(level: str | None, tmp_path: Path) -> None:
    from PIL import Image

    for name in "012":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "a.png")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"TF_CPP_MIN_LOG_LEVEL": level} if level else {})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "33.33 %" in done.stdout


@pytest.mark.parametrize(("level", "shown"), [("0", True), ("1", True), ("2", False), ("3", False), (None, False)])
def test_levels_0_and_1_ask_for_the_lines(
    level: str | None, shown: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    assert wants_logs() == shown
    with muted_stderr():
        os.write(2, b"a line\n")
    os.write(2, b"another\n")
    assert capfd.readouterr().err == ("a line\nanother\n" if shown else "another\n")


def test_threads_and_nested_blocks_restore_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    def mute() -> None:
        for _ in range(200):
            with muted_stderr(), muted_stderr():
                pass

    threads = [threading.Thread(target=mute) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"
