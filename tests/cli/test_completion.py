"""Shell completion, as bash asks for it."""

import os
import subprocess
import sys

import pytest


def complete(line: str) -> list[str]:
    words = line.split(" ")
    environ = {
        **os.environ,
        "_KERAS_EFFNET_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-c", "from keras_effnet.cli import main; main()"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("keras-effnet cl", ["classify"]),
        ("keras-effnet weights v", ["verify"]),
        ("keras-effnet classify --mod", ["--model"]),
        ("keras-effnet export x.tflite --model lite", [f"lite{i}" for i in range(5)]),
    ],
)
def test_shell_completes_commands_options_and_networks(line: str, expected: list[str]) -> None:
    assert complete(line) == expected
