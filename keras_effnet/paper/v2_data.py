"""EfficientNetV2's tables, with the numbers as printed (arXiv:2104.00298v3).

Each row starts with the number of its table. No number was checked against a second source. FLOPS are multiply-adds. ""
stands for a number that is not given.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A row of Table 1 or 7: a network on ImageNet.

    Args:
        table: number of the table.
        model: the name in the paper.
        top1, params, flops: as printed.
        ms: milliseconds of inference for an image, on a V100 in float16 with batches of 16.
        hours: of training, on 32 cores of TPUv3.
        variant: the same network in `VARIANTS`, if there is one.
    """

    table: int
    model: str
    top1: str
    params: str
    flops: str
    ms: str = ""
    hours: str = ""
    variant: str = ""


@dataclass(frozen=True)
class Throughput:
    """A row of Table 2: B6 trained at an image size; images per second and core at two batch sizes."""

    table: int
    size: int
    top1: str
    tpu_32: str
    tpu_128: str
    v100_12: str
    v100_24: str


@dataclass(frozen=True)
class Fused:
    """A row of Table 3: B4 whose first stages are fused; images per second and core."""

    table: int
    stages: int
    params: str
    flops: str
    top1: str
    tpu: str
    v100: str


@dataclass(frozen=True)
class Stage:
    """A row of Table 4, V2-S."""

    table: int
    operator: str
    strides: int
    channels: int
    layers: int


@dataclass(frozen=True)
class Regularised:
    """A row of Table 5: accuracies of one image size with RandAugment's magnitude 5, 10 and 15."""

    table: int
    size: int
    weak: str
    medium: str
    strong: str


@dataclass(frozen=True)
class Progressive:
    """A row of Table 6: a setting in the first and the last stage, as "first to last", of S, M and L."""

    table: int
    setting: str
    s: str
    m: str
    l: str  # noqa: E741  # the name of the network


@dataclass(frozen=True)
class Transfer:
    """A row of Table 8: accuracies after fine-tuning, means of five runs."""

    table: int
    model: str
    params: str
    imagenet: str
    cifar10: str
    cifar100: str
    flowers: str
    cars: str
    variant: str = ""


TABLE_1 = (
    #       table  model            top1    params  flops                       variant
    Network(1,     "EfficientNet-B6", "84.6", "43M",  "19B", variant="b6"),
    Network(1,     "ResNet-RS-420",   "84.4", "192M", "64B"),
    Network(1,     "NFNet-F1",        "84.7", "133M", "36B"),
)  # fmt: skip

TABLE_2 = (
    #          table  size  top1    TPU 32  TPU 128  V100 12  V100 24
    Throughput(2,     512,  "84.3", "42",   "",      "29",    ""),
    Throughput(2,     380,  "84.6", "76",   "93",    "37",    "52"),
)  # fmt: skip

TABLE_3 = (
    #     table  stages  params    flops    top1    TPU    V100
    Fused(3,     0,      "19.3M",  "4.5B",  "82.8", "262", "155"),
    Fused(3,     3,      "20.0M",  "7.5B",  "83.1", "362", "216"),
    Fused(3,     5,      "43.4M",  "21.3B", "83.1", "327", "223"),
    Fused(3,     7,      "132.0M", "34.4B", "81.7", "254", "206"),
)  # fmt: skip

TABLE_4 = (
    #     table  operator                  strides  channels  layers
    Stage(4,     "Conv3x3",                2,       24,       1),
    Stage(4,     "Fused-MBConv1, k3x3",    1,       24,       2),
    Stage(4,     "Fused-MBConv4, k3x3",    2,       48,       4),
    Stage(4,     "Fused-MBConv4, k3x3",    2,       64,       4),
    Stage(4,     "MBConv4, k3x3",          2,       128,      6),
    Stage(4,     "MBConv6, k3x3",          1,       160,      9),
    Stage(4,     "MBConv6, k3x3",          2,       256,      15),
    Stage(4,     "Conv1x1 & Pooling & FC", 1,       1280,     1),
)  # fmt: skip

TABLE_5 = (
    #           table  size  magnitude 5    magnitude 10   magnitude 15
    Regularised(5,     128,  "78.3 ± 0.16", "78.0 ± 0.08", "77.7 ± 0.15"),
    Regularised(5,     192,  "81.2 ± 0.06", "81.6 ± 0.08", "81.5 ± 0.05"),
    Regularised(5,     300,  "82.5 ± 0.05", "82.7 ± 0.08", "83.2 ± 0.09"),
)  # fmt: skip

TABLE_6 = (
    #           table  setting       S             M             L
    Progressive(6,     "image size", "128 to 300", "128 to 380", "128 to 380"),
    Progressive(6,     "RandAugment", "5 to 15",   "5 to 20",    "5 to 25"),
    Progressive(6,     "mixup alpha", "0 to 0",    "0 to 0.2",   "0 to 0.4"),
    Progressive(6,     "dropout",     "0.1 to 0.3", "0.1 to 0.4", "0.1 to 0.5"),
)  # fmt: skip

TABLE_7 = (
    #       table  model                     top1    params  flops    ms     hours  variant
    Network(7,     "EfficientNet-B3",        "81.5", "12M",  "1.9B",  "19",  "10",  "b3"),
    Network(7,     "EfficientNet-B4",        "82.9", "19M",  "4.2B",  "30",  "21",  "b4"),
    Network(7,     "EfficientNet-B5",        "83.7", "30M",  "10B",   "60",  "43",  "b5"),
    Network(7,     "EfficientNet-B6",        "84.3", "43M",  "19B",   "97",  "75",  "b6"),
    Network(7,     "EfficientNet-B7",        "84.7", "66M",  "38B",   "170", "139", "b7"),
    Network(7,     "RegNetY-8GF",            "81.7", "39M",  "8B",    "21"),
    Network(7,     "RegNetY-16GF",           "82.9", "84M",  "16B",   "32"),
    Network(7,     "ResNeSt-101",            "83.0", "48M",  "13B",   "31"),
    Network(7,     "ResNeSt-200",            "83.9", "70M",  "36B",   "76"),
    Network(7,     "ResNeSt-269",            "84.5", "111M", "78B",   "160"),
    Network(7,     "TResNet-L",              "83.8", "56M",  "",      "45"),
    Network(7,     "TResNet-XL",             "84.3", "78M",  "",      "66"),
    Network(7,     "EfficientNet-X",         "84.7", "73M",  "91B"),
    Network(7,     "NFNet-F0",               "83.6", "72M",  "12B",   "30",  "8.9"),
    Network(7,     "NFNet-F1",               "84.7", "133M", "36B",   "70",  "20"),
    Network(7,     "NFNet-F2",               "85.1", "194M", "63B",   "124", "36"),
    Network(7,     "NFNet-F3",               "85.7", "255M", "115B",  "203", "65"),
    Network(7,     "NFNet-F4",               "85.9", "316M", "215B",  "309", "126"),
    Network(7,     "LambdaResNet-420-hybrid", "84.9", "125M", "",     "",    "67"),
    Network(7,     "BotNet-T7-hybrid",       "84.7", "75M",  "46B",   "",    "95"),
    Network(7,     "BiT-M-R152x2 (21k)",     "85.2", "236M", "135B",  "500"),
    Network(7,     "ViT-B/32",               "73.4", "88M",  "13B",   "13"),
    Network(7,     "ViT-B/16",               "74.9", "87M",  "56B",   "68"),
    Network(7,     "DeiT-B",                 "81.8", "86M",  "18B",   "19"),
    Network(7,     "DeiT-B-384",             "83.1", "86M",  "56B",   "68"),
    Network(7,     "T2T-ViT-19",             "81.4", "39M",  "8.4B"),
    Network(7,     "T2T-ViT-24",             "82.2", "64M",  "13B"),
    Network(7,     "ViT-B/16 (21k)",         "84.6", "87M",  "56B",   "68"),
    Network(7,     "ViT-L/16 (21k)",         "85.3", "304M", "192B",  "195", "172"),
    Network(7,     "EfficientNetV2-S",       "83.9", "22M",  "8.8B",  "24",  "7.1", "v2-s"),
    Network(7,     "EfficientNetV2-M",       "85.1", "54M",  "24B",   "57",  "13",  "v2-m"),
    Network(7,     "EfficientNetV2-L",       "85.7", "120M", "53B",   "98",  "24",  "v2-l"),
    Network(7,     "EfficientNetV2-S (21k)", "84.9", "22M",  "8.8B",  "24",  "9.0", "v2-s"),
    Network(7,     "EfficientNetV2-M (21k)", "86.2", "54M",  "24B",   "57",  "15",  "v2-m"),
    Network(7,     "EfficientNetV2-L (21k)", "86.8", "120M", "53B",   "98",  "26",  "v2-l"),
    Network(7,     "EfficientNetV2-XL (21k)", "87.3", "208M", "94B",  "",    "45",  "v2-xl"),
)  # fmt: skip

TABLE_8 = (
    #   table   model               params  ImageNet CIFAR-10      CIFAR-100      Flowers        Cars
    Transfer(8, "GPipe",            "556M", "84.4", "99.0",        "91.3",        "98.8",        "94.7"),
    Transfer(8, "EfficientNet-B7",  "66M",  "84.7", "98.9",        "91.7",        "98.8",        "94.7", "b7"),
    Transfer(8, "ViT-B/32",         "88M",  "73.4", "97.8",        "86.3",        "85.4",        ""),
    Transfer(8, "ViT-B/16",         "87M",  "74.9", "98.1",        "87.1",        "89.5",        ""),
    Transfer(8, "ViT-L/32",         "306M", "71.2", "97.9",        "87.1",        "86.4",        ""),
    Transfer(8, "ViT-L/16",         "306M", "76.5", "97.9",        "86.4",        "89.7",        ""),
    Transfer(8, "DeiT-B",           "86M",  "81.8", "99.1",        "90.8",        "98.4",        "92.1"),
    Transfer(8, "DeiT-B-384",       "86M",  "83.1", "99.1",        "90.8",        "98.5",        "93.3"),
    Transfer(8, "EfficientNetV2-S", "24M",  "83.2", "98.7 ± 0.04", "91.5 ± 0.11", "97.9 ± 0.13", "93.8 ± 0.11", "v2-s"),
    Transfer(8, "EfficientNetV2-M", "55M",  "85.1", "99.0 ± 0.08", "92.2 ± 0.08", "98.5 ± 0.08", "94.6 ± 0.10", "v2-m"),
    Transfer(8, "EfficientNetV2-L", "121M", "85.7", "99.1 ± 0.03", "92.3 ± 0.13", "98.8 ± 0.05", "95.1 ± 0.10", "v2-l"),
)  # fmt: skip
