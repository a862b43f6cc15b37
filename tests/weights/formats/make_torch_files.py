"""Writes the two small PyTorch files of this folder: a training checkpoint in both formats of torch.save. Needs torch.

The values are simple sequences, which the tests repeat instead of reading them from these files.
"""

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
