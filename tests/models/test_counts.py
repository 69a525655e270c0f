"""Parameter counts: those of the peers, from shapes alone."""

from __future__ import annotations

import math
from typing import Any

import jax
import pytest

from jaxdl.models import create_model, model_info
from jaxdl.models.registry import example_input
from jaxdl.nn import light_key

# (name, options, parameters); the input is the example of the catalog.
COUNTS: tuple[tuple[str, dict[str, Any], int], ...] = (
    # Small networks.
    ("linear", {"num_classes": 10}, 784 * 10 + 10),
    # Classics: LeNet, AlexNet, VGG, GoogLeNet, Inception.
    ("lenet5", {"num_classes": 10}, 61_706),
    ("alexnet", {"num_classes": 1000}, 61_100_840),
    ("alexnet_paper", {"num_classes": 1000}, 60_965_224),
    ("vgg11", {"num_classes": 1000}, 132_863_336),
    ("vgg16", {"num_classes": 1000}, 138_357_544),
    ("vgg16_bn", {"num_classes": 1000}, 138_365_992),
    ("vgg19", {"num_classes": 1000}, 143_667_240),
    ("googlenet", {"num_classes": 1000}, 6_624_904),
    ("googlenet", {"num_classes": 1000, "aux": True}, 13_004_888),
    ("googlenet_paper", {"num_classes": 1000}, 6_998_552),
    ("inception_v3", {"num_classes": 1000}, 23_834_568),
    ("inception_v3", {"num_classes": 1000, "aux": True}, 27_161_264),
    # Residual networks.
    ("resnet18", {"num_classes": 1000}, 11_689_512),
    ("resnet34", {"num_classes": 1000}, 21_797_672),
    ("resnet50", {"num_classes": 1000}, 25_557_032),
    ("resnet101", {"num_classes": 1000}, 44_549_160),
    ("resnet152", {"num_classes": 1000}, 60_192_808),
    ("resnet50_v1", {"num_classes": 1000}, 25_557_032),
    ("resnet50_v1", {"num_classes": 1000, "conv_bias": True}, 25_583_592),
    ("resnetv2_50", {"num_classes": 1000}, 25_549_352),
    ("resnetv2_18", {"num_classes": 1000}, 11_687_720),
    ("resnetv2_101", {"num_classes": 1000}, 44_541_480),
    ("resnet18d", {"num_classes": 1000}, 11_708_744),
    ("resnet50d", {"num_classes": 1000}, 25_576_264),
    ("resnext50_32x4d", {"num_classes": 1000}, 25_028_904),
    ("resnext101_32x8d", {"num_classes": 1000}, 88_791_336),
    ("resnext101_64x4d", {"num_classes": 1000}, 83_455_272),
    ("wide_resnet50_2", {"num_classes": 1000}, 68_883_240),
    ("wide_resnet101_2", {"num_classes": 1000}, 126_886_696),
    ("resnet18", {"num_classes": 10, "stem": "cifar"}, 11_173_962),
    ("resnet50", {"num_classes": 0}, 25_557_032 - 2_049_000),
    # Dense, small and mobile networks.
    ("densenet121", {"num_classes": 1000}, 7_978_856),
    ("densenet161", {"num_classes": 1000}, 28_681_000),
    ("densenet169", {"num_classes": 1000}, 14_149_480),
    ("densenet201", {"num_classes": 1000}, 20_013_928),
    ("squeezenet1_0", {"num_classes": 1000}, 1_248_424),
    ("squeezenet1_1", {"num_classes": 1000}, 1_235_496),
    ("mobilenet_v2", {"num_classes": 1000}, 3_504_872),
    ("efficientnet_lite0", {"num_classes": 1000}, 4_652_008),
    ("efficientnet_lite1", {"num_classes": 1000}, 5_416_680),
    ("efficientnet_lite2", {"num_classes": 1000}, 6_092_072),
    ("efficientnet_lite3", {"num_classes": 1000}, 8_197_096),
    ("efficientnet_lite4", {"num_classes": 1000}, 13_006_568),
    # Recurrent networks: torch's less the second of its two biases (of a GRU, the part that adds to the first).
    ("lstm_classifier", {"num_classes": 10}, 4 * 128 * (32 + 128 + 1) + 129 * 10),
    ("gru_classifier", {"num_classes": 10, "depth": 2}, 3 * 128 * (32 + 128 + 1) + 3 * 128 * 257 + 2 * 128 + 129 * 10),
    ("rnn_classifier", {"num_classes": 10, "bidirectional": True}, 2 * 128 * (32 + 128 + 1) + 257 * 10),
    ("lstm_language_model", {"num_classes": 65, "width": 512, "depth": 2}, 65 * 512 + 2 * 2048 * 1025 + 513 * 65),
    ("lstm_language_model", {"num_classes": 65, "width": 512, "tied": True}, 65 * 512 + 2048 * 1025),
    ("vector_to_sequence", {"num_classes": 10}, 4 * 128 * (32 + 128 + 1) + 129 * 10),
    (
        "lstm_seq2seq",
        {"num_classes": 50, "source_vocabulary": 40},
        # embeddings, encoder, bridges, decoder, keys, combination, logits
        90 * 256 + 2 * 1024 * 513 + 2 * 513 * 256 + 1024 * 513 + 512 * 256 + (256 + 512 + 1) * 256 + 257 * 50,
    ),
    # Transformers.
    ("gpt2", {}, 124_439_808),
    ("gpt2_medium", {}, 354_823_168),
    ("gpt2_large", {}, 774_030_080),
    ("gpt2_xl", {}, 1_557_611_200),
    # seven more feed-forward layers and a router in each of twelve blocks
    ("gpt2", {"experts": 8}, 124_439_808 + 12 * (7 * (2 * 768 * 3072 + 3072 + 768) + 768 * 8)),
    ("transformer", {"num_classes": 1000}, 44_140_544 + 1000 * 512),  # torch.nn.Transformer's defaults and an embedding
    ("vit_b_16", {"num_classes": 1000}, 86_567_656),
    ("vit_b_32", {"num_classes": 1000}, 88_224_232),
    ("vit_l_16", {"num_classes": 1000}, 304_326_632),
    ("vit_l_32", {"num_classes": 1000}, 306_535_400),
    ("vit_h_14", {"num_classes": 1000}, 632_045_800),
    # Segmentation.
    ("unet", {"num_classes": 2}, 31_037_698),
    ("fcn8s_vgg16", {"num_classes": 21}, 134_489_759),
    ("fcn_resnet50", {"num_classes": 21}, 32_957_013),
    ("fcn_resnet50", {"num_classes": 21, "aux": True}, 35_322_218),
    ("fcn_resnet101", {"num_classes": 21, "aux": True}, 54_314_346),
    ("deeplabv3_resnet50", {"num_classes": 21}, 39_638_869),
    ("deeplabv3_resnet50", {"num_classes": 21, "aux": True}, 42_004_074),
    ("deeplabv3_resnet101", {"num_classes": 21, "aux": True}, 60_996_202),
    ("pspnet_resnet50", {"num_classes": 21}, 46_592_597),
    ("pspnet_resnet50", {"num_classes": 21, "aux": True}, 48_957_802),
    # Detection.
    ("ssd300_vgg16", {"num_classes": 91}, 35_641_826),
    ("ssd300_vgg16", {"num_classes": 21}, 26_285_486),
    ("ssd512_vgg16", {"num_classes": 21}, 27_188_676),  # no peer's: as first built
    ("ssd300_resnet50", {"num_classes": 21}, 31_663_918),
    ("ssd512_resnet50", {"num_classes": 21}, 32_567_492),
    # Variational autoencoders, two towers.
    ("vae", {}, 1_079_600),
    ("conv_vae", {}, 236_577),
    ("two_tower", {}, 72_384),
)

# Deep ones, whose shapes alone take a second or more; a shallower one of each family is always counted.
_SLOW = {"densenet161", "densenet169", "densenet201", "resnet101", "resnet152", "resnetv2_101", "resnext101_32x8d"}
_SLOW |= {"resnext101_64x4d", "wide_resnet101_2", "efficientnet_lite2", "efficientnet_lite3", "efficientnet_lite4"}


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        pytest.param(*row, id=f"{row[0]}-{row[2]}", marks=[pytest.mark.slow] if row[0] in _SLOW else [])
        for row in COUNTS
    ],
)
def test_counts_are_those_of_the_peers(name, options, parameters):
    model = create_model(name, **options)
    keys = {"params": light_key(jax.random.key(0))}
    variables = jax.eval_shape(lambda x: model.init(keys, x, train=False), example_input(name))
    leaves = jax.tree.leaves(variables["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters
    assert {str(leaf.dtype) for leaf in leaves} == {"float32"}


def test_the_registry_counts_alike():
    assert model_info("linear").parameters == 784 * 1000 + 1000
