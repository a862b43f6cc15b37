"""The paper's tables, with the numbers as printed (arXiv:1905.11946v5). Each row starts with the number of its table.

A "+" after a number means that it was checked against a second source (`verified`). FLOPS are multiply-adds.
"""

from dataclasses import dataclass

_UNITS = {"M": 1e6, "B": 1e9}


def number(printed: str) -> float:
    """Convert a printed number to its value.

    Example:
        >>> number("5.3M+"), number("4.9x"), number("0.098")
        (5300000.0, 4.9, 0.098)
    """
    digits = printed.rstrip("+x").replace(",", "")
    return float(digits.rstrip("MB")) * _UNITS.get(digits[-1], 1)


def verified(printed: str) -> bool:
    """Whether a printed number was checked against a second source."""
    return printed.endswith("+")


@dataclass(frozen=True)
class Stage:
    """A row of Table 1. All rows are verified."""

    table: int
    operator: str
    resolution: int
    channels: int
    layers: int


@dataclass(frozen=True)
class Result:
    """A row of Table 2: a network on ImageNet. `peer` is the EfficientNet that it is compared with."""

    table: int
    model: str
    peer: str
    top1: str
    top5: str
    params: str
    flops: str
    params_ratio: str = ""
    flops_ratio: str = ""


@dataclass(frozen=True)
class Scaled:
    """A row of Table 3 or 7: a network and its three coefficients."""

    table: int
    network: str
    depth: float
    width: float
    resolution: float
    flops: str
    top1: str


@dataclass(frozen=True)
class Speed:
    """A row of Table 4: seconds for one image on a single core."""

    table: int
    model: str
    peer: str
    seconds: str
    top1: str
    speedup: str = ""


@dataclass(frozen=True)
class Transfer:
    """Half a row of Table 5: a rival and our network on a data set. `against` is "public models" or "best results"."""

    table: int
    against: str
    dataset: str
    rival: str
    rival_accuracy: str
    rival_params: str
    model: str
    accuracy: str
    params: str = ""
    ratio: str = ""


@dataclass(frozen=True)
class Dataset:
    """A row of Table 6."""

    table: int
    name: str
    train: str
    test: str
    classes: str


@dataclass(frozen=True)
class Accuracy:
    """A row of Table 8: accuracy on ImageNet's 50,000 validation images and on its test images."""

    table: int
    model: str
    val_top1: str
    val_top5: str
    test_top1: str
    test_top5: str


TABLE_1 = (
    #     table  operator                   resolution  channels  layers
    Stage(1,     "Conv3x3",                 224,        32,       1),
    Stage(1,     "MBConv1, k3x3",           112,        16,       1),
    Stage(1,     "MBConv6, k3x3",           112,        24,       2),
    Stage(1,     "MBConv6, k5x5",           56,         40,       2),
    Stage(1,     "MBConv6, k3x3",           28,         80,       3),
    Stage(1,     "MBConv6, k5x5",           14,         112,      3),
    Stage(1,     "MBConv6, k5x5",           14,         192,      4),
    Stage(1,     "MBConv6, k3x3",           7,          320,      1),
    Stage(1,     "Conv1x1 & Pooling & FC",  7,          1280,     1),
)  # fmt: skip

TABLE_2 = (
    #      table  model                  peer    top1     top5     params    flops     params  flops ratio
    Result(2,     "EfficientNet-B0",     "b0",   "77.1+", "93.3+", "5.3M+",  "0.39B+"),
    Result(2,     "ResNet-50",           "b0",   "76.0",  "93.0",  "26M",    "4.1B",   "4.9x",  "11x"),
    Result(2,     "DenseNet-169",        "b0",   "76.2",  "93.2",  "14M",    "3.5B",   "2.6x",  "8.9x"),
    Result(2,     "EfficientNet-B1",     "b1",   "79.1+", "94.4+", "7.8M+",  "0.70B+"),
    Result(2,     "ResNet-152",          "b1",   "77.8+", "93.8+", "60M+",   "11B+",   "7.6x+", "16x+"),
    Result(2,     "DenseNet-264",        "b1",   "77.9",  "93.9",  "34M",    "6.0B",   "4.3x",  "8.6x"),
    Result(2,     "Inception-v3",        "b1",   "78.8",  "94.4",  "24M",    "5.7B",   "3.0x",  "8.1x"),
    Result(2,     "Xception",            "b1",   "79.0",  "94.5",  "23M",    "8.4B",   "3.0x",  "12x"),
    Result(2,     "EfficientNet-B2",     "b2",   "80.1+", "94.9+", "9.2M+",  "1.0B+"),
    Result(2,     "Inception-v4",        "b2",   "80.0",  "95.0",  "48M",    "13B",    "5.2x",  "13x"),
    Result(2,     "Inception-ResNet-v2", "b2",   "80.1",  "95.1",  "56M",    "13B",    "6.1x",  "13x"),
    Result(2,     "EfficientNet-B3",     "b3",   "81.6+", "95.7+", "12M+",   "1.8B+"),
    Result(2,     "ResNeXt-101",         "b3",   "80.9+", "95.6+", "84M+",   "32B+",   "7.0x+", "18x+"),
    Result(2,     "PolyNet",             "b3",   "81.3",  "95.8",  "92M",    "35B",    "7.7x",  "19x"),
    Result(2,     "EfficientNet-B4",     "b4",   "82.9+", "96.4+", "19M+",   "4.2B+"),
    Result(2,     "SENet",               "b4",   "82.7+", "96.2+", "146M+",  "42B+",   "7.7x+", "10x+"),
    Result(2,     "NASNet-A",            "b4",   "82.7+", "96.2+", "89M+",   "24B+",   "4.7x+", "5.7x+"),
    Result(2,     "AmoebaNet-A",         "b4",   "82.8",  "96.1",  "87M",    "23B",    "4.6x",  "5.5x"),
    Result(2,     "PNASNet",             "b4",   "82.9",  "96.2",  "86M",    "23B",    "4.5x",  "6.0x"),
    Result(2,     "EfficientNet-B5",     "b5",   "83.6+", "96.7+", "30M+",   "9.9B+"),
    Result(2,     "AmoebaNet-C",         "b5",   "83.5",  "96.5",  "155M",   "41B",    "5.2x",  "4.1x"),
    Result(2,     "EfficientNet-B6",     "b6",   "84.0+", "96.8+", "43M+",   "19B+"),
    Result(2,     "EfficientNet-B7",     "b7",   "84.3+", "97.0+", "66M+",   "37B+"),
    Result(2,     "GPipe",               "b7",   "84.3+", "97.0+", "557M+",  "",       "8.4x+"),
)  # fmt: skip

TABLE_3 = (
    #      table  network        depth  width  resolution  flops    top1
    Scaled(3,     "MobileNetV1", 1.0,   1.0,   1.0,        "0.6B",  "70.6"),
    Scaled(3,     "MobileNetV1", 1.0,   2.0,   1.0,        "2.2B",  "74.2"),
    Scaled(3,     "MobileNetV1", 1.0,   1.0,   2.0,        "2.2B",  "72.7"),
    Scaled(3,     "MobileNetV1", 1.4,   1.2,   1.3,        "2.3B",  "75.6"),
    Scaled(3,     "MobileNetV2", 1.0,   1.0,   1.0,        "0.3B",  "72.0"),
    Scaled(3,     "MobileNetV2", 4.0,   1.0,   1.0,        "1.2B",  "76.8"),
    Scaled(3,     "MobileNetV2", 1.0,   2.0,   1.0,        "1.1B",  "76.4"),
    Scaled(3,     "MobileNetV2", 1.0,   1.0,   2.0,        "1.2B",  "74.8"),
    Scaled(3,     "MobileNetV2", 1.4,   1.2,   1.3,        "1.3B",  "77.4"),
    Scaled(3,     "ResNet-50",   1.0,   1.0,   1.0,        "4.1B",  "76.0"),
    Scaled(3,     "ResNet-50",   4.0,   1.0,   1.0,        "16.2B", "78.1"),
    Scaled(3,     "ResNet-50",   1.0,   2.0,   1.0,        "14.7B", "77.7"),
    Scaled(3,     "ResNet-50",   1.0,   1.0,   2.0,        "16.4B", "77.5"),
    Scaled(3,     "ResNet-50",   1.4,   1.2,   1.3,        "16.7B", "78.8"),
)  # fmt: skip

TABLE_4 = (
    #     table  model              peer    seconds   top1    speedup
    Speed(4,     "ResNet-152",      "b1",   "0.554",  "77.8"),
    Speed(4,     "EfficientNet-B1", "b1",   "0.098",  "78.8", "5.7x+"),
    Speed(4,     "GPipe",           "b7",   "19.0",   "84.3"),
    Speed(4,     "EfficientNet-B7", "b7",   "3.1",    "84.4", "6.1x+"),
)  # fmt: skip

_PUBLIC, _BEST = "public models", "best results"

TABLE_5 = (
    #        table  against  dataset               rival           accuracy  params  model  ours     params  ratio
    Transfer(5,     _PUBLIC, "CIFAR-10",           "NASNet-A",     "98.0",   "85M",  "b0",  "98.1",  "4M",   "21x"),
    Transfer(5,     _PUBLIC, "CIFAR-100",          "NASNet-A",     "87.5",   "85M",  "b0",  "88.1",  "4M",   "21x"),
    Transfer(5,     _PUBLIC, "Birdsnap",           "Inception-v4", "81.8",   "41M",  "b5",  "82.0",  "28M",  "1.5x"),
    Transfer(5,     _PUBLIC, "Stanford Cars",      "Inception-v4", "93.4",   "41M",  "b3",  "93.6",  "10M",  "4.1x"),
    Transfer(5,     _PUBLIC, "Flowers",            "Inception-v4", "98.5",   "41M",  "b5",  "98.5",  "28M",  "1.5x"),
    Transfer(5,     _PUBLIC, "FGVC Aircraft",      "Inception-v4", "90.9",   "41M",  "b3",  "90.7",  "10M",  "4.1x"),
    Transfer(5,     _PUBLIC, "Oxford-IIIT Pets",   "ResNet-152",   "94.5",   "58M",  "b4",  "94.8",  "17M",  "5.6x"),
    Transfer(5,     _PUBLIC, "Food-101",           "Inception-v4", "90.8",   "41M",  "b4",  "91.5",  "17M",  "2.4x"),
    Transfer(5,     _BEST,   "CIFAR-10",           "GPipe",        "99.0",   "556M", "b7",  "98.9",  "64M",  "8.7x"),
    Transfer(5,     _BEST,   "CIFAR-100",          "GPipe",        "91.3",   "556M", "b7",  "91.7+", "64M",  "8.7x"),
    Transfer(5,     _BEST,   "Birdsnap",           "GPipe",        "83.6",   "",     "b7",  "84.3"),
    Transfer(5,     _BEST,   "Stanford Cars",      "DAT",          "94.8",   "",     "b7",  "94.7"),
    Transfer(5,     _BEST,   "Flowers",            "DAT",          "97.7",   "",     "b7",  "98.8+"),
    Transfer(5,     _BEST,   "FGVC Aircraft",      "DAT",          "92.9",   "",     "b7",  "92.9"),
    Transfer(5,     _BEST,   "Oxford-IIIT Pets",   "GPipe",        "95.9",   "556M", "b6",  "95.4",  "41M",  "14x"),
    Transfer(5,     _BEST,   "Food-101",           "GPipe",        "93.0",   "556M", "b7",  "93.0",  "64M",  "8.7x"),
)  # fmt: skip
TABLE_5_MEANS = {_PUBLIC: "4.7x+", _BEST: "9.6x+"}

TABLE_6 = (
    #       table  name                train     test      classes
    Dataset(6,     "CIFAR-10",         "50,000", "10,000", "10"),
    Dataset(6,     "CIFAR-100",        "50,000", "10,000", "100"),
    Dataset(6,     "Birdsnap",         "47,386", "2,443",  "500"),
    Dataset(6,     "Stanford Cars",    "8,144",  "8,041",  "196"),
    Dataset(6,     "Flowers",          "2,040",  "6,149",  "102"),
    Dataset(6,     "FGVC Aircraft",    "6,667",  "3,333",  "100"),
    Dataset(6,     "Oxford-IIIT Pets", "3,680",  "3,369",  "37"),
    Dataset(6,     "Food-101",         "75,750", "25,250", "101"),
)  # fmt: skip

TABLE_7 = (
    #      table  network            depth  width  resolution  flops   top1
    Scaled(7,     "EfficientNet-B0", 1.0,   1.0,   1.0,        "0.4B", "77.3"),
    Scaled(7,     "EfficientNet-B0", 4.0,   1.0,   1.0,        "1.8B", "79.0"),
    Scaled(7,     "EfficientNet-B0", 1.0,   2.0,   1.0,        "1.8B", "78.9"),
    Scaled(7,     "EfficientNet-B0", 1.0,   1.0,   2.0,        "1.9B", "79.1"),
    Scaled(7,     "EfficientNet-B0", 1.4,   1.2,   1.3,        "1.8B", "81.1"),
)  # fmt: skip

TABLE_8 = (
    #        table  model  val top1  val top5  test top1  test top5
    Accuracy(8,     "b0",  "77.11",  "93.35",  "77.23",   "93.45"),
    Accuracy(8,     "b1",  "79.13",  "94.47",  "79.17",   "94.43"),
    Accuracy(8,     "b2",  "80.07",  "94.90",  "80.16",   "94.98"),
    Accuracy(8,     "b3",  "81.59",  "95.67",  "81.72",   "95.70"),
    Accuracy(8,     "b4",  "82.89",  "96.37",  "82.94",   "96.27"),
    Accuracy(8,     "b5",  "83.60",  "96.71",  "83.69",   "96.64"),
    Accuracy(8,     "b6",  "83.95",  "96.76",  "84.04",   "96.86"),
    Accuracy(8,     "b7",  "84.26",  "96.97",  "84.33",   "96.94"),
)  # fmt: skip

# Section 5.2. All entries are verified.
TRAINING = (
    "RMSProp with decay 0.9 and momentum 0.9; batch normalisation momentum 0.99; weight decay 1e-5",
    "initial learning rate 0.256, times 0.97 every 2.4 epochs",
    "SiLU; AutoAugment; stochastic depth with survival probability 0.8; dropout from 0.2 for B0 to 0.5 for B7",
    "25,000 training images held out for early stopping; accuracy on the validation set",
)
