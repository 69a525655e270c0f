"""The table of all models: under which name which class, with which options, for which input.

One line per name; a family is one call of `_family`. Options of a row are defaults that go with the name: the caller of
`create_model` may still set them, so that "resnet50" of `width=8` exists for tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

IMAGES = "[batch, height, width, channels]"
FLAT = "[batch, ...], flattened"
TOKENS = "[batch, length] integers"


class Entry(NamedTuple):
    """One name of the registry.

    Attributes:
        module: the file in jaxdl.models, without its ending.
        kind: the class in it.
        inputs: the shape of x in words.
        example: the shape of one example without the batch, for which parameters are counted; a mapping of such shapes
            where x is one.
        reference: who published it, and the implementation whose numbers it follows.
        options: the options that go with the name.
        dtype: of x in the example.
        classes: how many `ModelInfo.parameters` counts with: ImageNet's, for segmentation and detection Pascal VOC's.
    """

    module: str
    kind: str
    inputs: str
    example: Any
    reference: str
    options: Mapping[str, Any] = MappingProxyType({})
    dtype: str = "float32"
    classes: int = 1000


def _family(
    module: str,
    kind: str,
    inputs: str,
    example: Any,
    reference: str,
    names: Mapping[str, Mapping[str, Any]],
    *,
    dtype: str = "float32",
    classes: int = 1000,
) -> dict[str, Entry]:
    """Rows of one class: name -> options."""
    return {
        name: Entry(module, kind, inputs, example, reference, MappingProxyType(dict(options)), dtype, classes)
        for name, options in names.items()
    }


_BASIC: Mapping[str, Sequence[int]] = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3)}
_BOTTLENECK: Mapping[str, Sequence[int]] = {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3), "152": (3, 8, 36, 3)}


def _resnets(before: str, after: str, deep_only: bool = False, **options: Any) -> dict[str, dict[str, Any]]:
    """Names of one variant: "resnet" + depth + suffix -> options."""
    basic = {} if deep_only else {f"{before}{n}{after}": {"depths": depths, **options} for n, depths in _BASIC.items()}
    deep = {
        f"{before}{n}{after}": {"depths": depths, "bottleneck": True, **options} for n, depths in _BOTTLENECK.items()
    }
    return {**basic, **deep}


_VGG: Mapping[str, Sequence[int]] = {
    "11": (1, 1, 2, 2, 2),
    "13": (2, 2, 2, 2, 2),
    "16": (2, 2, 3, 3, 3),
    "19": (2, 2, 4, 4, 4),
}

MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        # Small networks.
        **_family("mlp", "Linear", FLAT, (784,), "", {"linear": {}}),
        **_family("mlp", "MLP", FLAT, (784,), "", {"mlp": {}}),
        **_family("convnet", "ConvNet", IMAGES, (32, 32, 3), "", {"convnet": {}}),
        # Classics: LeNet, AlexNet, VGG, GoogLeNet, Inception.
        **_family("lenet", "LeNet", IMAGES, (32, 32, 1), "LeCun et al., Gradient-Based Learning, 1998", {"lenet5": {}}),
        **_family(
            "alexnet",
            "AlexNet",
            IMAGES,
            (224, 224, 3),
            "Krizhevsky, One weird trick, 2014; numbers as torchvision",
            {"alexnet": {}},
        ),
        **_family(
            "alexnet",
            "AlexNet",
            IMAGES,
            (227, 227, 3),
            "Krizhevsky, Sutskever, Hinton, ImageNet Classification, 2012",
            {
                "alexnet_paper": {
                    "widths": (96, 256, 384, 384, 256),
                    "groups": 2,
                    "response_norm": True,
                    "first_padding": 0,
                }
            },
        ),
        **_family(
            "vgg",
            "VGG",
            IMAGES,
            (224, 224, 3),
            "Simonyan and Zisserman, Very Deep Convolutional Networks, 2014; numbers as torchvision",
            {
                f"vgg{depth}{suffix}": {"depths": depths, **options}
                for depth, depths in _VGG.items()
                for suffix, options in (("", {}), ("_bn", {"batch_norm": True}))
            },
        ),
        **_family(
            "googlenet",
            "GoogLeNet",
            IMAGES,
            (224, 224, 3),
            "Szegedy et al., Going Deeper with Convolutions, 2014; numbers as torchvision",
            {"googlenet": {}},
        ),
        **_family(
            "googlenet",
            "GoogLeNet",
            IMAGES,
            (224, 224, 3),
            "Szegedy et al., Going Deeper with Convolutions, 2014",
            {"googlenet_paper": {"batch_norm": False, "response_norm": True, "large_kernel": 5, "dropout": 0.4}},
        ),
        **_family(
            "inception",
            "InceptionV3",
            IMAGES,
            (299, 299, 3),
            "Szegedy et al., Rethinking the Inception Architecture, 2015; numbers as torchvision and timm",
            {"inception_v3": {}},
        ),
        # Residual networks.
        **{
            name: row
            for reference, names in (
                ("He et al., Deep Residual Learning, 2015; numbers as torchvision (v1.5)", _resnets("resnet", "")),
                (
                    "He et al., Deep Residual Learning, 2015; numbers as keras with conv_bias=True, epsilon=1.001e-5",
                    _resnets("resnet", "_v1", deep_only=True, variant="v1"),
                ),
                (
                    "He et al., Identity Mappings in Deep Residual Networks, 2016; numbers as timm",
                    _resnets("resnetv2_", "", variant="v2"),
                ),
                (
                    "He et al., Bag of Tricks for Image Classification, 2018; numbers as timm",
                    _resnets("resnet", "d", variant="d"),
                ),
                (
                    "Xie et al., Aggregated Residual Transformations, 2016; numbers as torchvision",
                    {
                        name: {"depths": _BOTTLENECK[depth], "bottleneck": True, "groups": groups, "group_width": width}
                        for name, depth, groups, width in (
                            ("resnext50_32x4d", "50", 32, 4),
                            ("resnext101_32x8d", "101", 32, 8),
                            ("resnext101_64x4d", "101", 64, 4),
                        )
                    },
                ),
                (
                    "Zagoruyko and Komodakis, Wide Residual Networks, 2016; numbers as torchvision",
                    {
                        f"wide_resnet{depth}_2": {"depths": _BOTTLENECK[depth], "bottleneck": True, "group_width": 128}
                        for depth in ("50", "101")
                    },
                ),
            )
            for name, row in _family("resnet", "ResNet", IMAGES, (224, 224, 3), reference, names).items()
        },
        # Dense, small and mobile networks.
        **_family(
            "densenet",
            "DenseNet",
            IMAGES,
            (224, 224, 3),
            "Huang et al., Densely Connected Convolutional Networks, 2016; numbers as torchvision",
            {
                "densenet121": {"depths": (6, 12, 24, 16)},
                "densenet161": {"depths": (6, 12, 36, 24), "growth": 48, "width": 96},
                "densenet169": {"depths": (6, 12, 32, 32)},
                "densenet201": {"depths": (6, 12, 48, 32)},
            },
        ),
        **_family(
            "squeezenet",
            "SqueezeNet",
            IMAGES,
            (224, 224, 3),
            "Iandola et al., SqueezeNet: AlexNet accuracy with 50x fewer parameters, 2016; numbers as torchvision",
            {"squeezenet1_0": {"version": "1.0"}, "squeezenet1_1": {"version": "1.1"}},
        ),
        **_family(
            "mobilenet",
            "MobileNetV2",
            IMAGES,
            (224, 224, 3),
            "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018; numbers as torchvision",
            {"mobilenet_v2": {}},
        ),
        **{
            name: entry
            for number, size, width, depth, dropout in (
                (0, 224, 1.0, 1.0, 0.2),
                (1, 240, 1.0, 1.1, 0.2),
                (2, 260, 1.1, 1.2, 0.3),
                (3, 300, 1.2, 1.4, 0.3),
                (4, 380, 1.4, 1.8, 0.3),
            )
            for name, entry in _family(
                "efficientnet",
                "EfficientNetLite",
                IMAGES,
                (size, size, 3),
                "Liu, Higher accuracy on vision models with EfficientNet-Lite, 2020; numbers as timm",
                {f"efficientnet_lite{number}": {"width": width, "depth": depth, "dropout": dropout}},
            ).items()
        },
        # Recurrent networks.
        **_family(
            "rnn",
            "RNNClassifier",
            "[batch, time, features], or [batch, time] integers with `vocabulary`",
            (64, 32),
            "",
            {
                "rnn_classifier": {"cell": "vanilla"},
                "lstm_classifier": {"cell": "lstm"},
                "gru_classifier": {"cell": "gru"},
            },
        ),
        **_family("rnn", "VectorToSequence", "[batch, features]", (32,), "", {"vector_to_sequence": {}}),
        **_family(
            "rnn",
            "RNNLanguageModel",
            TOKENS,
            (64,),
            "",
            {
                "rnn_language_model": {"cell": "vanilla"},
                "lstm_language_model": {"cell": "lstm"},
                "gru_language_model": {"cell": "gru"},
            },
            dtype="int32",
        ),
        **_family(
            "seq2seq",
            "RNNSeq2Seq",
            "{source: [batch, sources], target: [batch, targets]} integers",
            {"source": (24,), "target": (24,)},
            "Luong et al., Attention-based Neural Machine Translation, 2015",
            {"rnn_seq2seq": {"cell": "vanilla"}, "lstm_seq2seq": {"cell": "lstm"}, "gru_seq2seq": {"cell": "gru"}},
            dtype="int32",
        ),
        # Transformers.
        **_family(
            "vit",
            "ViT",
            IMAGES,
            (224, 224, 3),
            "Dosovitskiy 2020, torchvision",
            {
                "vit_b_16": {},
                "vit_b_32": {"patch": 32},
                "vit_l_16": {"width": 1024, "depth": 24, "heads": 16},
                "vit_l_32": {"patch": 32, "width": 1024, "depth": 24, "heads": 16},
                "vit_h_14": {"patch": 14, "width": 1280, "depth": 32, "heads": 16},
            },
        ),
        **_family(
            "seq2seq_transformer",
            "Transformer",
            "{source, target}: [batch, length] integers",
            {"source": (64,), "target": (64,)},
            "Vaswani 2017",
            {"transformer": {}},
            dtype="int32",
        ),
        **_family(
            "transformer",
            "TransformerEncoder",
            TOKENS,
            (64,),
            "Vaswani 2017",
            {"transformer_encoder": {}},
            dtype="int32",
        ),
        **_family(
            "transformer",
            "GPT",
            TOKENS,
            (64,),
            "Radford 2019",
            {
                "gpt": {},
                "gpt2": {"num_classes": 50_257},
                "gpt2_medium": {"num_classes": 50_257, "width": 1024, "depth": 24, "heads": 16},
                "gpt2_large": {"num_classes": 50_257, "width": 1280, "depth": 36, "heads": 20},
                "gpt2_xl": {"num_classes": 50_257, "width": 1600, "depth": 48, "heads": 25},
            },
            dtype="int32",
        ),
        # Segmentation.
        **_family(
            "unet",
            "UNet",
            IMAGES,
            (224, 224, 3),
            "Ronneberger et al., U-Net, 2015; numbers as the widespread PyTorch form, which keeps the size",
            {"unet": {}},
            classes=21,
        ),
        **_family(
            "fcn",
            "FCN",
            IMAGES,
            (224, 224, 3),
            "Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015",
            {f"fcn{stride}s_vgg16": {"stride": stride} for stride in (8, 16, 32)},
            classes=21,
        ),
        **{
            name: row
            for module, kind, prefix, depths, reference in (
                ("fcn", "FCNResNet", "fcn", ("50", "101"), "Long et al., 2015; form and numbers as torchvision"),
                ("pspnet", "PSPNet", "pspnet", ("50",), "Zhao et al., Pyramid Scene Parsing Network, 2017"),
                (
                    "deeplab",
                    "DeepLabV3",
                    "deeplabv3",
                    ("50", "101"),
                    "Chen et al., Rethinking Atrous Convolution, 2017; numbers as torchvision",
                ),
            )
            for name, row in _family(
                module,
                kind,
                IMAGES,
                (224, 224, 3),
                reference,
                {f"{prefix}_resnet{depth}": {"depths": _BOTTLENECK[depth]} for depth in depths},
                classes=21,
            ).items()
        },
        # Detection.
        **_family(
            "ssd",
            "SSD",
            "[batch, 300, 300, channels]",
            (300, 300, 3),
            "Liu et al., 2016; torchvision",
            {"ssd300_vgg16": {}, "ssd300_resnet50": {"backbone": "resnet50"}},
            classes=21,
        ),
        **_family(
            "ssd",
            "SSD",
            "[batch, 512, 512, channels]",
            (512, 512, 3),
            "Liu et al., 2016",
            {"ssd512_vgg16": {"size": 512}, "ssd512_resnet50": {"size": 512, "backbone": "resnet50"}},
            classes=21,
        ),
        # Variational autoencoders, two towers.
        **_family("vae", "VAE", "[batch, *shape]", (28, 28, 1), "Kingma and Welling, 2014", {"vae": {}}),
        **_family(
            "vae",
            "VAE",
            IMAGES,
            (28, 28, 1),
            "Kingma and Welling, 2014",
            {"conv_vae": {"coder": "conv", "width": 32}},
        ),
        **_family(
            "two_tower",
            "TwoTower",
            "[batch, 2] integers (query, item), or a mapping of query and item",
            (2,),
            "Yi et al., 2019",
            {"two_tower": {}},
            dtype="int32",
        ),
    }
)
