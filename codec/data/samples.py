"""The photographs packaged with scikit-image: data for a first run, with no download and no configuration."""

from pathlib import Path

import skimage.data

# Natural colour photographs, none of which is in TRAIN in any form.
TEST = ("chelsea.png", "coffee.png", "rocket.jpg")
# Charts, text, logos and drawings are left out. Of the stereo pair motorcycle_left and _right only one is in:
# held out for validation, the other would be almost the same picture as one trained on.
TRAIN = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
)


class SamplesSource:
    """11 photographs to train on (5 in colour), 3 in colour to test on; sides of 300 to 1411 pixels."""

    def prepare(self) -> None:
        pass  # the photographs came with the package

    def images(self, split: str) -> list[Path]:
        folder = Path(skimage.data.__file__).parent
        return [folder / name for name in {"train": TRAIN, "test": TEST}[split]]
