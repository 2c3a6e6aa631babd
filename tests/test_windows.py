"""Large images in windows: what comes of them is what comes of the whole, at any size around the windows' edges."""

import math

import pytest
import torch
from conftest import images, make_codec
from torch import Tensor, nn

from codec.bitstream import BitstreamError, unpack
from codec.entropy.trace import Pass, traced
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.metrics import psnr
from codec.rate_distortion_module import to_uint8
from codec.windows import Crop, Window, reach, tiles

pytestmark = pytest.mark.usefixtures("one_thread")

# Of every scheme that takes part, small; windows just large enough to be cut.
SMALL = {
    "conv_baseline": (64, ("model.widths=[4,4]", "model.latent_channels=4")),
    "conv_enhanced": (64, ("model.widths=[4,4,4]", "model.latent_channels=4", "model.skip_channels=[1,2]")),
    "quantized_autoencoder": (
        192,
        (
            "model.encoder=resnet18",
            "model.pretrained=false",
            "model.latent_channels=8",
            "model.widths=[8,8]",
            "model.shortcut=dct",
        ),
    ),
    "diffusion": (128, ("model.shortcut=dct", "bottleneck.variable_rate=true")),
    "diffusion_wavelet": (256, ("model=diffusion", "model.shortcut=wavelet", "bottleneck.variable_rate=true")),
}


def make(name: str) -> LearnedCodec:
    window, overrides = SMALL[name]
    codec = make_codec(name.removesuffix("_wavelet"), overrides=(*overrides, "prior=channel_context"))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in codec.modules():  # ends that start at zero would leave networks without influence
            if (
                isinstance(module, nn.Conv2d)
                and not module.weight.any()
                and module not in codec.bottleneck.modules()
            ):
                module.weight.copy_(0.02 * torch.randn(module.weight.shape, generator=generator))
    codec.window = window
    return codec


def whole(codec: LearnedCodec) -> LearnedCodec:
    codec.window = 1 << 20
    return codec


@pytest.mark.parametrize("name", SMALL)
def test_a_file_and_its_image_are_those_of_the_whole(name: str, photograph: Tensor) -> None:
    """Up to the last bits of sums that may be added in another order: one step of 255, in few samples if any."""
    window = SMALL[name][0]
    for height, width in ((window, window + 1), (window - 1, 2 * window + 5), (2 * window + 1, window // 2)):
        image = images(3, height, width, seed=height)
        image[:, : photograph.shape[1], : photograph.shape[2]] = photograph[:, :height, :width] / 255
        image = (255 * image).byte()
        codec = make(name)
        assert len(codec.tiles(Window(0, height, 0, width), codec.padded(height, width), codec.synthesis_reach)) > 1
        data = codec.encode(image)
        decoded = codec.decode(data)
        codec = whole(codec)
        assert data == codec.encode(image)
        difference = (decoded.int() - codec.decode(data).int()).abs()
        assert int(difference.max()) <= 1
        assert float(difference.float().mean()) < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_a_crop_is_that_of_the_whole_image(name: str, photograph: Tensor) -> None:
    codec = make(name)
    image = photograph[:, :290, :333]
    data = codec.encode(image)
    decoded = codec.decode(data)
    for crop in (Crop(0, 0, 333, 290), Crop(100, 91, 7, 130), Crop(332, 289, 1, 1), Crop(0, 250, 333, 40)):
        x, y, width, height = crop
        part = codec.decode(data, crop)
        assert part.shape == (3, height, width)
        assert int((part.int() - decoded[:, y : y + height, x : x + width].int()).abs().max()) <= 1


def test_a_crop_draws_no_more_than_lies_around_it(photograph: Tensor) -> None:
    codec = make("conv_baseline")
    data = codec.encode(photograph)
    drawn = []
    codec.decoder.register_forward_hook(lambda module, told, x_hat: drawn.append(x_hat[0, 0].numel()))
    codec.decode(data, Crop(100, 100, 40, 40))
    assert sum(drawn) <= 3 * 64**2 < photograph[0].numel() / 8


@pytest.mark.parametrize("crop", [(0, 0, 0, 1), (-1, 0, 4, 4), (0, 30, 4, 11), (0, 0, 51, 1)])
def test_a_crop_that_lies_not_inside_is_refused(crop: tuple[int, ...], photograph: Tensor) -> None:
    codec = make("conv_baseline")
    data = codec.encode(photograph[:, :40, :50])
    with pytest.raises(ArgumentError, match=r"allowed are parts X,Y,W,H of the image's 50×40 pixels"):
        codec.decode(data, Crop(*crop))


@pytest.fixture(scope="module")
def pyramid(photograph: Tensor) -> tuple[LearnedCodec, bytes]:
    codec = make("diffusion_wavelet")
    codec.set_quality(80)
    return codec, codec.encode(photograph[:, :270, :283])


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_scaled_image_is_that_of_the_wavelet_s_first_tensors(scale: int, pyramid) -> None:
    codec, data = pyramid
    small = codec.decode(data, scale=scale)
    assert small.shape == (3, -(-270 // scale), -(-283 // scale))
    with codec._coding():
        section = unpack(data)[1][0]
        y_hat = codec.bottleneck.decompress(section, codec.latent_sizes((288, 288)))
        first = y_hat[: codec.tensors_of_scale(scale)]
        expected = to_uint8(codec.shortcut.synthesis(first))[0, :, : small.shape[1], : small.shape[2]]
    assert int((small.int() - expected.int()).abs().max()) <= 1


def test_a_scaled_image_reads_no_finer_passes(pyramid) -> None:
    codec, data = pyramid
    counts = []
    for scale in (1, 2, 4, 8):
        passes: list[Pass] = []
        with traced(passes.append):
            codec.decode(data, scale=scale)
        counts.append(sum(one.symbols for one in passes))
    assert counts == [3 * 288**2 // scale**2 for scale in (1, 2, 4, 8)]


def test_the_more_is_there_of_a_cut_file_the_nearer_is_its_image(pyramid, photograph: Tensor) -> None:
    codec, data = pyramid
    original = photograph[:, :270, :283]
    shares = (0.05, 0.2, 0.6, 0.9, 1.0)
    images_of = [codec.decode(data[: round(share * len(data))], partial=True) for share in shares]
    quality = [psnr(image, original) for image in images_of]
    assert quality == sorted(quality)
    assert torch.equal(images_of[-1], codec.decode(data))


@pytest.mark.parametrize(("length", "said"), [(40, "before anything"), (14, "ends inside the header")])
def test_a_cut_file_without_any_image_is_refused(length: int, said: str, pyramid) -> None:
    codec, data = pyramid
    with pytest.raises(BitstreamError, match=said):
        codec.decode(data[:length], partial=True)
    with pytest.raises(BitstreamError, match="cut or damaged"):
        codec.decode(data[: len(data) // 2])


def test_scales_that_a_codec_does_not_have_are_refused(pyramid) -> None:
    codec, data = pyramid
    for scale in (0, 3, 16):
        with pytest.raises(ArgumentError, match=rf"scale={scale}: allowed are 1, 2, 4, 8 with this model"):
            codec.decode(data, scale=scale)
    with pytest.raises(ArgumentError, match="scale=2: allowed is 1 together with a crop"):
        codec.decode(data, Crop(0, 0, 1, 1), scale=2)
    with pytest.raises(ArgumentError, match="scale=2: this model decodes at full size only"):
        make("conv_baseline").decode(b"", scale=2)


def test_progress_rises_to_all(photograph: Tensor) -> None:
    codec, shares = make("conv_baseline"), []
    codec.progress = shares.append
    data = codec.encode(photograph[:, :200, :200])
    for _ in range(2):
        assert len(shares) > 10
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)
        shares.clear()
        codec.decode(data)


# ---- how far a function reaches


def shapes(size: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(1, *size)]


@pytest.mark.parametrize(("kernel", "wanted"), [(1, 0), (3, 4), (9, 4), (11, 8)])
def test_a_convolution_reaches_half_its_kernel_in_units(kernel: int, wanted: int) -> None:
    conv = nn.Conv2d(1, 1, kernel, padding=kernel // 2)
    nn.init.zeros_(conv.weight)  # layers count, not their weights
    assert reach(lambda x: [conv(*x)], shapes, 4, torch.device("cpu")) == wanted


def test_the_farther_of_both_directions_counts() -> None:
    conv = nn.Conv2d(1, 1, (1, 41), padding=(0, 20))
    assert reach(lambda x: [conv(*x)], shapes, 2, torch.device("cpu")) == 20


def test_what_depends_on_all_has_no_reach() -> None:
    assert reach(lambda x: [x[0] - x[0].mean()], shapes, 8, torch.device("cpu")) is None


@pytest.mark.parametrize("name", SMALL)
def test_what_lies_further_away_than_the_reach_has_no_influence(name: str) -> None:
    """And what lies as near has: a poke into the latent changes pixels up to there and none beyond."""
    codec = make(name)
    far = codec.synthesis_reach()
    if name == "diffusion_wavelet":
        far += codec._wavelet_reach()
    first, _ = codec.padded(far + codec.stride, 1)
    size = codec.stride, 2 * first + codec.stride
    quality = None if codec.qualities is None else torch.tensor([50.0])
    with codec._coding():
        latent = [images(1, *shape, seed=3) - 0.5 for shape in codec.latent_shapes(size)]
        before = codec.g_s(latent, quality)
        poked = Window(0, size[0], first, first + codec.stride)
        for tensor in latent:
            poked.of(tensor, size).add_(1)
        columns = (codec.g_s(latent, quality) - before).abs().amax((0, 1, 2)).nonzero()[:, 0]
    assert first - far <= int(columns.min()) < first
    assert first + codec.stride <= int(columns.max()) < first + codec.stride + far


# ---- windows


def test_tiles_cover_a_part_once_on_units() -> None:
    part = Window(8, 8 + 250, 16, 16 + 97)
    covered = torch.zeros(300, 200)
    for tile in tiles(part, 8, 64):
        assert max(tile.size) <= 64 + 8
        for first, edge in zip((tile.top, tile.left), (part.top, part.left), strict=True):
            assert first == edge or first % 8 == 0
        tile.of(covered, (300, 200)).add_(1)
    assert covered.sum() == math.prod(part.size)
    assert part.of(covered, (300, 200)).eq(1).all()


def test_a_window_grows_to_units_and_not_beyond_the_picture() -> None:
    assert Window(10, 20, 0, 30).grown(5, 8, (21, 64)) == Window(0, 21, 0, 40)
    assert Window(10, 20, 8, 16).within(Window(8, 24, 8, 32)) == Window(2, 12, 0, 8)
