"""A training of seconds, for tests of what train.py does."""

from conftest import ROOT

TRAIN = ROOT / "train.py"
# A narrow codec, a few steps, one validation and two test images.
SMALL = (
    "strategy=cpu",
    "logger=csv",
    "data.num_workers=0",
    "data.crop_size=64",
    "data.batch_size=4",
    "data.crops_per_image=2",
    "data.limit=4",
    "data.eval_crop=192",
    "trainer.log_every_n_steps=1",
)
NARROW = ("model.widths=[8,8]", "model.latent_channels=4")
