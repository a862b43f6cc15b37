"""Writes the small PyTorch files of this folder. Needs torch.

They are a training checkpoint and a whole module, each in both formats of torch.save, and a module of TorchScript.

The values are simple sequences, which the tests repeat instead of reading them from these files.
"""

import inspect
import zipfile
from pathlib import Path

import torch

shared = torch.arange(40.0)
state = {
    "module.conv_stem.weight": torch.arange(216.0).reshape(3, 3, 3, 8).permute(3, 2, 0, 1),
    "module.bn1.weight": torch.arange(8).half() / 4,
    "module.bn1.bias": torch.arange(8).bfloat16() / 4,
    "module.bn1.running_mean": shared[3:11],
    "module.bn1.running_var": shared[12:28:2].double(),
    "module.bn1.num_batches_tracked": torch.tensor(7),
    "module.classifier.weight": torch.nn.Parameter(shared[:40].reshape(8, 5).t()),
    "module.classifier.bias": torch.zeros(5),
}
checkpoint = {
    "epoch": 3,
    "arch": "tiny",
    "state_dict": {name: torch.ones(1) for name in state},
    "state_dict_ema": state,
    "metric": 0.5,
}

here = Path(__file__).parent
torch.save(checkpoint, here / "checkpoint.pth")
torch.save(checkpoint, here / "checkpoint_legacy.pth", _use_new_zipfile_serialization=False)


class Stem(torch.nn.Module):
    """A convolution, its batch normalisation, and what a module may have besides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = torch.nn.Conv2d(3, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(2)
        self.act = torch.nn.SiLU()
        with torch.no_grad():
            for i, value in enumerate(self.state_dict().values()):
                value.copy_(torch.arange(value.numel()).reshape(value.shape) + i)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn1(self.conv_stem(x)))


class Learner(torch.nn.Module):
    """A module around a network that it has under two names, with a loss and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Stem()
        self.model = self.net
        self.loss = torch.nn.CrossEntropyLoss()
        self.settings = {"lr": 0.1, "betas": (0.9, 0.99)}
        self.register_forward_hook(torch.nn.functional.relu)


class Average:
    """An average that is no module itself."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module


def without_sources(path: Path) -> None:
    """Drop the sources of PyTorch's modules from a TorchScript file: they are not needed to read its tensors."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if "/code/" not in name:
                archive.writestr(name, content)


def no_source(_: type) -> None:
    raise OSError("no source")


if __name__ == "__main__":
    torch.save(Learner(), here / "module.pth")
    torch.jit.script(Stem().eval()).save(here / "torchscript.pt")
    without_sources(here / "torchscript.pt")
    inspect.getsourcelines = no_source  # the older format contains the source of each class
    average = {"ema": Average(Learner()), "epoch": 3}
    torch.save(average, here / "module_legacy.pth", _use_new_zipfile_serialization=False)
