"""Microsoft Vision ResNet-50: the network of the ``microsoftvision`` package, 2048-d."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.backbones.family import BackboneFamily
from pipeline.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn

# The package's own page (https://pypi.org/project/microsoftvision/): cv2.imread(IMREAD_COLOR), cv2.resize to 256 x 256,
# crop [16:240, 16:240], ToTensor, Normalize with these constants; the image stays in BGR order throughout.
MICROSOFTVISION = Preprocessing(
    name="microsoftvision",
    resize="exact",
    size=256,
    crop=224,
    interpolation="opencv-bilinear",
    channel_order="BGR",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

# The Fruits-360 notebook (https://abhishek-maheshwarappa.medium.com/microsoft-vision-transfer-learning-f1ba7dc9e75f):
# Pillow resize of the short side to 224, centre crop, and the deviations in the opposite order.
FRUITS360_NOTEBOOK = Preprocessing(
    name="fruits360-notebook",
    resize="short_side",
    size=224,
    crop=224,
    interpolation="pillow-bilinear",
    channel_order="BGR",
    mean=(0.485, 0.456, 0.406),
    std=(0.225, 0.224, 0.229),
)


def _build() -> nn.Module:
    # The class, not the package's resnet50(): that prints, downloads into the current folder and unpickles anything.
    from microsoftvision.models.resnext import Bottleneck, ResNet

    network: nn.Module = ResNet(Bottleneck, [3, 4, 6, 3])
    return network


def _published_url() -> str:
    from microsoftvision.models.resnext import model_urls

    return str(model_urls["resnet50"])


MICROSOFTVISION_RESNET50 = BackboneFamily(
    name="microsoftvision-resnet50",
    build=_build,
    embedding_dim=2048,
    presets=(MICROSOFTVISION, FRUITS360_NOTEBOOK),
    packages=("microsoftvision",),
    published_url=_published_url,
)
