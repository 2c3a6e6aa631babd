"""ImageDataModule: what its loaders give, that it is the same again, and what it refuses before any training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import LightningModule, Trainer
from PIL import Image

import codec.data.module
from codec.data.dataset import EpochSampler
from codec.data.folder import FolderSource
from codec.data.image_file import NamedImage
from codec.data.module import ImageDataModule
from codec.data.samples import SamplesSource
from codec.data.source import SourceError

CONF = Path(__file__).parents[2] / "conf"


def make_images(folder, count=6, size=(24, 20), suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02}{suffix}")
    return folder


@pytest.fixture
def folders(tmp_path):
    return FolderSource(str(make_images(tmp_path / "train", 12))), FolderSource(str(make_images(tmp_path / "test")))


def module(folders, **options):
    options = {"crop_size": 8, "batch_size": 4, "num_workers": 0, "val_fraction": 0.25} | options
    data = ImageDataModule(*folders, **options)
    data.prepare_data()
    data.setup()
    return data


def epoch(data, number=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return torch.stack(list(loader))


def test_batches_are_uint8_crops_and_evaluation_gives_named_whole_images(folders):
    data = module(folders, crops_per_image=2)
    batches = epoch(data)  # 9 images to train on, twice: 4 whole batches of 4
    assert batches.dtype == torch.uint8
    assert batches.shape == (4, 4, 3, 8, 8)
    for loader, count in ((data.val_dataloader(), 3), (data.test_dataloader(), 6)):
        items = list(loader)
        assert len(items) == count
        assert all(isinstance(item, NamedImage) for item in items)
        assert all((item.image.dtype, item.image.shape) == (torch.uint8, (3, 20, 24)) for item in items)
        assert len({item.name for item in items}) == count
    assert [item.name for item in data.test_dataloader()] == [f"{i:02}.png" for i in range(6)]


def test_options_of_size_and_colour(folders):
    data = module(folders, channels=1, resize=[16, 12], crop_size=None, eval_crop=10)
    assert epoch(data).shape == (2, 4, 1, 16, 12)
    assert next(iter(data.val_dataloader())).image.shape == (1, 10, 10)
    data = module(folders, resize=10, limit=2)
    assert next(iter(data.test_dataloader())).image.shape == (3, 10, 12)
    assert [len(s.paths) for s in (data.train_set, data.val_set, data.test_set)] == [2, 2, 2]


def test_batches_are_a_function_of_seed_and_epoch_alone(folders):
    first = epoch(module(folders, seed=1), 3)
    torch.manual_seed(99)
    again = module(folders, seed=1)
    epoch(again, 2)
    assert torch.equal(epoch(again, 3), first)
    assert not torch.equal(epoch(again, 4), first)
    assert not torch.equal(epoch(module(folders, seed=2), 3), first)


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"cache": True}])
def test_workers_and_cache_change_no_batch(folders, options):
    plain, other = module(folders), module(folders, **options)
    assert torch.equal(epoch(plain, 1), epoch(other, 1))
    for one, two in zip(plain.test_dataloader(), other.test_dataloader(), strict=True):
        assert one.name == two.name
        assert torch.equal(one.image, two.image)


def test_lightning_moves_the_sampler_on_and_a_resumed_run_sees_the_same_batches(folders, tmp_path):
    class Recorder(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch):
            self.seen.append((self.current_epoch, batch.clone()))
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def run(epochs, ckpt_path=None):
        options = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "limit_val_batches": 0,
        }
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", use_distributed_sampler=False, **options)
        recorder = Recorder()
        trainer.fit(recorder, datamodule=module(folders, seed=5), ckpt_path=ckpt_path)
        return trainer, recorder.seen

    _, whole = run(2)
    trainer, start = run(1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, rest = run(2, tmp_path / "half.ckpt")
    assert [number for number, _ in whole] == [0, 0, 1, 1]
    assert not torch.equal(whole[0][1], whole[2][1])
    for (epoch_1, batch_1), (epoch_2, batch_2) in zip(whole, start + rest, strict=True):
        assert epoch_1 == epoch_2
        assert torch.equal(batch_1, batch_2)


def test_processes_draw_disjoint_and_equal_shares_of_one_epoch():
    draws = [list(EpochSampler(7, 3, seed=0, rank=rank, world_size=2)) for rank in (0, 1)]
    alone = list(EpochSampler(7, 3, seed=0, rank=0, world_size=1))
    assert [len(share) for share in draws] == [10, 10]
    assert len(alone) == 21
    assert set(draws[0]) | set(draws[1]) == set(alone[:20])  # the world size changes no crop
    assert [sum(draw.image == i for draw in alone) for i in range(7)] == [3] * 7


def test_processes_validate_their_own_share_and_test_everything(folders, monkeypatch):
    data = module(folders)
    names = []
    for rank in (0, 1):
        monkeypatch.setattr(codec.data.module, "distributed_rank", lambda rank=rank: (rank, 2))
        names.append([item.name for item in data.val_dataloader()])
        assert len(list(data.test_dataloader())) == 6
    assert sorted(len(share) for share in names) == [1, 2]
    assert not set(names[0]) & set(names[1])
    monkeypatch.setattr(codec.data.module, "distributed_rank", lambda: (3, 4))
    assert len(list(data.val_dataloader())) == 3  # an idle process would be waited for


def test_the_last_batch_is_dropped_only_if_there_is_a_whole_one(folders):
    assert epoch(module(folders, batch_size=4)).shape[:2] == (2, 4)
    assert epoch(module(folders, batch_size=100)).shape[:2] == (1, 9)


def test_flip_mirrors_about_half_of_the_crops(tmp_path):
    ramp = np.tile(np.arange(16, dtype=np.uint8)[:, None], (1, 3))[None].repeat(16, 0)
    (tmp_path / "a").mkdir()
    for i in range(2):
        Image.fromarray(ramp).save(tmp_path / "a" / f"{i}.png")
    data = ImageDataModule(
        FolderSource(str(tmp_path / "a")), None, val_fraction=0.5, crops_per_image=64, num_workers=0, crop_size=8
    )
    data.setup()
    batches = epoch(data).flatten(0, 1)
    assert 10 < (batches[:, 0, 0, 0] > batches[:, 0, 0, -1]).sum() < 54


def test_crops_are_of_images_shrunk_as_far_as_asked_and_as_they_are_large(tmp_path):
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8)[:, None], (1, 3))[None].repeat(60, 0)
    (tmp_path / "a").mkdir()
    for i in range(2):
        Image.fromarray(ramp).save(tmp_path / "a" / f"{i}.png")
    source = FolderSource(str(tmp_path / "a"))
    options = {"val_fraction": 0.5, "crops_per_image": 64, "num_workers": 0, "crop_size": 40, "flip": False}
    columns = {}
    for scale in (1.0, 0.5):
        data = ImageDataModule(source, None, smallest_scale=scale, **options)
        data.setup()
        crops = epoch(data).flatten(0, 1)[:, 0, 20].float()
        columns[scale] = (crops[:, 30] - crops[:, 10]) / 2
    assert bool((columns[1.0] == 20).all())
    assert 19 <= columns[0.5].min() < 22
    assert 28 < columns[0.5].max() < 31  # rows are 60: no crop of 40 can be of an image below two thirds


def test_a_validation_source_of_its_own(folders, tmp_path):
    val = FolderSource(str(make_images(tmp_path / "val", 5)))
    data = module(folders, val=val)
    assert (len(data.train_set.paths), len(data.val_set)) == (12, 5)


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_files_are_listed_in_one_warning(folders, tmp_path, cache):
    whole = (tmp_path / "test/00.png").read_bytes()
    (tmp_path / "train/bad.png").write_text("no image")
    (tmp_path / "test/bad.png").write_bytes(whole[:-300])  # its header is good
    with pytest.warns(
        UserWarning,
        match=r"(?s)^left out, as unreadable: 2 files.*train.bad\.png: not an image.*test.bad\.png: .*trunc",
    ) as seen:
        data = module(folders, cache=cache)
    assert len(seen) == 1
    assert len(list(data.test_dataloader())) == 6


def test_a_training_file_that_turns_out_damaged_is_replaced_and_named(folders, tmp_path):
    for path in sorted((tmp_path / "train").iterdir())[:3]:
        path.write_bytes(path.read_bytes()[:-300])
    data = module(folders, val=FolderSource(str(make_images(tmp_path / "val", 2))))
    with pytest.warns(UserWarning, match=r"another image is trained on instead of .*\.png: .*truncated"):
        assert epoch(data).shape == (3, 4, 3, 8, 8)


def test_nothing_readable_is_an_error(folders, tmp_path):
    for path in (tmp_path / "train").iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match=r"^data\.train: none of 12 files can be read \(first: .*00\.png: not an"):
        module(folders)


def test_a_crop_larger_than_the_smallest_image_is_refused(folders, tmp_path):
    make_images(tmp_path / "train" / "small", 1, (6, 30))
    small = (
        r"small.00\.png is only 30x6 \(height x width, after data\.resize\): allowed are 1 to 6; at 8, too small"
    )
    with pytest.raises(ValueError, match=r"^data\.crop_size=8: .*" + small):
        module(folders)
    with pytest.raises(ValueError, match=r"^data\.eval_crop=25: .*00\.png is only 20x24 .* 1 to 20; at 25, "):
        module(folders, eval_crop=25, crop_size=6)
    module(folders, resize=8)


def test_whole_images_of_several_sizes_do_not_fit_into_a_batch(folders, tmp_path):
    make_images(tmp_path / "train" / "small", 4, (6, 30))
    with pytest.raises(ValueError, match=r"^data\.crop_size=null: images of 20x24 and 30x6 .* data\.batch_size=1$"):
        module(folders, crop_size=None)
    module(folders, crop_size=None, batch_size=1)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_split_without_a_training_or_validation_image_is_refused(folders, fraction):
    with pytest.raises(ValueError, match=rf"^data\.val_fraction={fraction}: of 12 images it leaves"):
        module(folders, val_fraction=fraction)


def test_testing_on_training_images_is_refused(folders):
    with pytest.raises(ValueError, match=r"^data\.test: 12 of its images are trained or validated on too"):
        module((folders[0], folders[0]))


def test_faults_of_a_source_name_the_config_key(tmp_path):
    with pytest.raises(SourceError, match=r"^data\.test\.root=.*absent: no such folder"):
        ImageDataModule(None, FolderSource(str(tmp_path / "absent"))).prepare_data()


def test_data_without_training_images_is_for_evaluation_only(folders):
    data = ImageDataModule(None, folders[1], num_workers=0)
    data.setup()
    data.setup("test")
    assert len(list(data.test_dataloader())) == 6
    with pytest.raises(ValueError, match=r"^data\.train=null: this data has no train images"):
        data.setup("fit")


def test_all_arguments_out_of_range_are_named_at_once():
    with pytest.raises(ValueError, match=r"^crop_size=0: .*\nchannels=2: .*\nval_fraction=0: ") as caught:
        ImageDataModule(None, None, crop_size=0, channels=2, val_fraction=0)
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(ValueError, match=r"^resize=\[1, 2, 3\]: allowed are null, a shorter side"):
        ImageDataModule(None, None, resize=[1, 2, 3])


CONFIGS = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))
NEEDS = {"folder": ["data.train.root=x"], "folder_bsd300": ["data.train.sources.folder.root=x"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_data_config_makes_a_data_module(name, tmp_path):
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(overrides=[f"+data={name}", "+seed=7", *NEEDS.get(name, [])])
    data = instantiate(config.data)
    assert isinstance(data, ImageDataModule)
    assert data.seed == 7


def test_every_data_config_has_at_most_25_lines_and_begins_by_saying_what_it_is():
    for name in CONFIGS:
        lines = (CONF / "data" / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# ")
        assert len(lines) <= 25


def test_the_samples_train_and_test_without_any_download():
    data = ImageDataModule(SamplesSource(), SamplesSource(), crop_size=256, num_workers=0)
    data.prepare_data()
    data.setup()
    assert (len(data.train_set.paths), len(data.val_set), len(data.test_set)) == (10, 1, 3)
