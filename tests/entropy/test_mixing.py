"""AdaptiveMixing: exact whatever the pixels and mixtures are, the same bytes by any compiler, and it learns."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, crop, generator, noise, run_python
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import LogisticMixture, Mixture
from codec.entropy.digits import Digits
from codec.entropy.mixing import AdaptiveMixing, Check
from codec.entropy.mixing_kernel import check_bits, code_bit, code_plane, ln, logistic, solve
from codec.entropy.mixing_tables import TABLES, ending, started
from codec.entropy.mixture import Plane
from codec.errors import EncodeError

ORDER = (1, 0, 2)


def planes(height: int, width: int, channels: int = 3) -> list[tuple[Plane, tuple[slice, slice]]]:
    """The four planes of an image's pixels modulo 2, in coding order, of every channel."""
    found = []
    for phase, (down, right) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0)]):
        for position in range(channels):
            plane = Plane(ORDER[position] if channels == 3 else 0, position, down, right, 2, phase, phase)
            found.append((plane, (slice(down, height, 2), slice(right, width, 2))))
    return found


def mixture_of(values: Tensor, spread: float = 3.0, components: int = 3) -> Mixture:
    """Around the values `[h, w]`, other logits, means and scales for each."""
    shape = (1, components, *values.shape)
    return Mixture(
        2 * noise(*shape, seed=2), values[None, None] + spread * noise(*shape, seed=1), 1 + noise(*shape, seed=3)
    )


def written(image: Tensor, coder: type = AdaptiveMixing, spread: float = 3.0, components: int = 3) -> bytes:
    """An image `[C, H, W]`, in four planes a channel."""
    pixels = coder(LogisticMixture(), tuple(image.shape), ORDER if len(image) == 3 else (0,))
    for plane, (rows, columns) in planes(*image.shape[1:], len(image)):
        values = image[plane.channel, rows, columns].float()
        if values.numel():
            pixels.write(mixture_of(values, spread, components), values[None], plane)
    return pixels.finish()


def read(data: bytes, like: Tensor, components: int = 3) -> Tensor:
    """By the mixtures that `like` had."""
    pixels = AdaptiveMixing(LogisticMixture(), tuple(like.shape), ORDER if len(like) == 3 else (0,), data)
    image = torch.zeros_like(like)
    for plane, (rows, columns) in planes(*like.shape[1:], len(like)):
        values = like[plane.channel, rows, columns].float()
        if values.numel():
            image[plane.channel, rows, columns] = pixels.read(mixture_of(values, components=components), plane)[
                0
            ].to(like)
    pixels.end()
    return image


def of_few_colours(height: int = 96, width: int = 96) -> Tensor:
    palette = torch.randint(0, 256, (40, 3), generator=generator(), dtype=torch.uint8)
    index = torch.randint(0, 40, (height, width), generator=generator(1))
    return palette[index].movedim(-1, 0).contiguous()


# ---- exact


@pytest.mark.parametrize("size", [(3, 1, 1), (3, 1, 9), (3, 5, 2), (1, 30, 31), (3, 48, 50)])
@pytest.mark.parametrize("components", [1, 3, 5])
def test_every_size_comes_back(photograph: Tensor, size: tuple[int, int, int], components: int) -> None:
    image = crop(photograph, *size[1:])[: size[0]]
    assert torch.equal(read(written(image, components=components), image, components), image)


@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_random_pixels_come_back(value: int) -> None:
    flat = torch.full((3, 20, 20), value, dtype=torch.uint8)
    random = torch.randint(0, 256, (3, 31, 20), generator=generator(), dtype=torch.uint8)
    for image in (flat, random, of_few_colours(20, 20)):
        assert torch.equal(read(written(image), image), image)


@pytest.mark.parametrize("extreme", [1e30, -1e30, float("inf"), -300.0, 600.0])
def test_no_finite_or_infinite_parameter_makes_a_pixel_uncodable(extreme: float) -> None:
    x, shape = torch.randint(0, 256, (1, 8, 9), generator=generator()).float(), (1, 2, 8, 9)
    mixture = Mixture(100 * noise(*shape), torch.full(shape, extreme), 100 * noise(*shape, seed=5))
    plane, model = Plane(0, 0, 0, 0, 1, 0, 0), LogisticMixture()
    pixels = AdaptiveMixing(model, (1, 8, 9), (0,))
    pixels.write(mixture, x, plane)
    reader = AdaptiveMixing(model, (1, 8, 9), (0,), pixels.finish())
    assert torch.equal(reader.read(mixture, plane), x)
    reader.end()


def test_data_that_are_cut_or_go_on_are_refused(photograph: Tensor) -> None:
    image = crop(photograph, 16, 16)
    data = written(image)
    for forged in (data + b"\0", data[: len(data) // 2], b""):
        with pytest.raises(BitstreamError, match="ends too soon"):
            read(forged, image)


def test_no_image_is_smaller_than_the_least_it_may_cost() -> None:
    for channels in (1, 3):
        image = torch.zeros(channels, 300, 300, dtype=torch.uint8)
        least = AdaptiveMixing.least_bits(channels) * 300 * 300
        assert 0.02 * 8 * len(written(image)) < least <= 8 * len(written(image))


def test_bits_come_back_where_the_interval_lies_around_a_carry() -> None:
    """Bits whose probabilities are such that its ends come ever closer to the carry from both sides."""
    writer, out, bits = started(), np.zeros(4000, np.uint8), []
    for n in range(1500):
        low, high = int(writer[0]), int(writer[1])
        carry = high >> 48 << 48
        share = min(max((carry - low << 16) // (high - low), 1), 65535)
        bits.append((n % 2, share))
        code_bit(False, writer, out, *bits[-1])
    data = out[: writer[3]].tobytes() + ending(writer)
    reader, data = started(data), np.frombuffer(data, np.uint8).copy()
    assert [code_bit(True, reader, data, 0, share) for _, share in bits] == [bit for bit, _ in bits]
    assert len(data) < 3200  # 16 bits at most for a bit, and those the carry takes


# ---- the same bytes wherever they are made

# Of `made`: what every machine and every version must write.
DIGEST = "ee939095b453ae9ab750a9576431baf2a60625a36e530422dd487e3ec9cb44de"
PROGRAM = "from test_mixing import digest\nprint(digest())\n"


def made(side: int = 36) -> tuple[Tensor, dict[int, Mixture]]:
    """An image and mixtures for its channels, of integers alone: no random generator, no library's rounding."""
    row, column = torch.arange(side)[:, None], torch.arange(side)
    texture = (row * row + 3 * column * row + 7 * column) % 23
    image = (
        torch.stack([2 * row + 3 * column + texture, 3 * row + 2 * column + 2 * texture, 60 + row + texture]) % 256
    )
    mixtures = {}
    for n, values in enumerate(image):
        k = torch.arange(3).view(1, 3, 1, 1)
        off = (row * 5 + column * 3 + 4 * k + n) % 9 - 4
        mixtures[n] = Mixture((off % 4).float(), (values + off).float(), (2 + (off + k) % 5) / 4)
    return image.to(torch.uint8), mixtures


def digest() -> str:
    image, mixtures = made()
    pixels = AdaptiveMixing(LogisticMixture(), tuple(image.shape), ORDER)
    for plane, (rows, columns) in planes(*image.shape[1:]):
        mixture = Mixture(*(part[..., rows, columns] for part in mixtures[plane.channel]))
        pixels.write(mixture, image[plane.channel, rows, columns].float()[None], plane)
    return hashlib.sha256(pixels.finish()).hexdigest()


def test_the_bytes_are_those_of_every_machine_and_version() -> None:
    assert digest() == DIGEST


@pytest.mark.parametrize(
    "environment",
    [
        {"NUMBA_DISABLE_JIT": "1"},  # Python's own arithmetic
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},  # two doubles at once, none fused
    ],
    ids=["Python", "generic CPU"],
)
def test_any_compiler_gives_the_same_bytes(environment: dict[str, str], tmp_path: Path) -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/entropy")))
    done = run_python("-c", PROGRAM, cwd=tmp_path, PYTHONPATH=path, NUMBA_CACHE_DIR=str(tmp_path), **environment)
    assert done.stdout.strip() == DIGEST


def test_one_compilation_serves_everything(photograph: Tensor) -> None:
    for components in (1, 3):
        written(crop(photograph, 20, 20), components=components)
    assert len(code_plane.signatures) == 1


def test_a_whole_image_is_not_awaited_where_the_data_are_none(photograph: Tensor) -> None:
    image = crop(photograph, 64, 64)
    mixture = mixture_of(image[1, ::2, ::2].float())
    pixels = AdaptiveMixing(LogisticMixture(), (3, 64, 64), ORDER, bytes(range(1, 40)))
    with pytest.raises(BitstreamError, match="ends too soon"):
        pixels.read(mixture, Plane(1, 0, 0, 0, 2, 0, 0))


def test_no_operations_are_fused(tmp_path: Path) -> None:
    """What this CPU could do with one rounding instead of two."""
    program = (
        "from codec.entropy.mixing import compile_loop\n"
        "from codec.entropy.mixing_kernel import code_plane\n"
        "import json, re\n"
        "compile_loop()\n"
        "texts = list(code_plane.inspect_asm().values())\n"
        "print(json.dumps([len(texts), sum(bool(re.search('fn?m(add|sub)|fml[as]', text)) for text in texts)]))\n"
    )
    done = run_python("-c", program, cwd=tmp_path, PYTHONPATH=str(ROOT), NUMBA_CACHE_DIR=str(tmp_path))
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 0]


# ---- it learns


def test_few_colours_cost_a_fraction_of_what_the_mixtures_say() -> None:
    image = of_few_colours()
    assert len(written(image, spread=40)) < 0.5 * len(written(image, Digits, spread=40))


def test_that_an_integer_ycbcr_has_few_of_all_colours_is_learned(photograph: Tensor) -> None:
    """It has a quarter of them: up to two bits of a pixel's can be saved."""
    image = crop(photograph, 192, 192).float()
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    whole = torch.einsum("dc,chw->dhw", to_ycc, image).round()
    between = whole + torch.rand(whole.shape, generator=generator()) - 0.5
    sizes = []
    for ycc in (whole, between):
        rgb = torch.einsum("dc,chw->dhw", torch.linalg.inv(to_ycc), ycc).round().clamp(0, 255)
        sizes.append(len(written(rgb.to(torch.uint8), spread=20)))
    assert sizes[0] < 0.9 * sizes[1]


def test_mixtures_that_are_off_are_corrected(photograph: Tensor) -> None:
    """Means that are wrong by the same everywhere."""
    image, model = crop(photograph, 100, 100)[:1], LogisticMixture()
    costs = {}
    for coder in (AdaptiveMixing, Digits):
        sizes = []
        for off in (0.0, 6.0):
            pixels = coder(model, (1, 100, 100), (0,))
            mixture = mixture_of(image[0].float() + off, spread=1.0)
            pixels.write(mixture, image.float(), Plane(0, 0, 0, 0, 1, 0, 0))
            sizes.append(len(pixels.finish()))
        costs[coder] = sizes[1] - sizes[0]
    assert 0 < costs[AdaptiveMixing] < 0.6 * costs[Digits]


# ---- arithmetic


def test_logistic_and_logarithm_are_close() -> None:
    for u in np.linspace(-30, 30, 1001):
        assert logistic(u, TABLES.tail) == pytest.approx(1 / (1 + np.exp(-u)), abs=1e-5)
    float_ = np.zeros(1)
    for x in np.exp(np.linspace(-20, 20, 1001)):
        assert ln(x, TABLES.logarithms, float_, float_.view(np.int64)) == pytest.approx(np.log(x), abs=1e-6)


def test_least_squares_are_those_of_the_normal_equations() -> None:
    x, y = noise(50, 6).double().numpy(), noise(50, seed=4).double().numpy()
    moments, solution = np.zeros((9, 8), np.float32), np.zeros(8, np.float32)
    moments[:6, :6], moments[-1, :6] = np.triu(x.T @ x), x.T @ y
    solve(moments, 6, np.float32(0.5), np.zeros((8, 8), np.float32), solution)
    assert solution[:6] == pytest.approx(np.linalg.solve(x.T @ x + 0.5 * np.eye(6), x.T @ y), abs=1e-5)


def test_regressors_that_are_others_again_are_left_out() -> None:
    """As on stripes and letters: large, and equal, so that their moments' rounding is larger than the ridge."""
    x = np.repeat(1000 * noise(64, 2).numpy(), 4, axis=1)
    moments, solution = np.zeros((9, 8), np.float32), np.zeros(8, np.float32)
    moments[:8], moments[-1] = np.triu(x.T @ x), x.T @ (x[:, 0] + x[:, 4])
    solve(moments, 8, np.float32(1), np.zeros((8, 8), np.float32), solution)
    assert x @ solution == pytest.approx(x[:, 0] + x[:, 4], abs=1)


@pytest.mark.parametrize("period", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.0, 30.0])
def test_stripes_of_two_colours_come_back(period: int, spread: float) -> None:
    stripes = torch.tensor([[255, 0, 0], [0, 0, 0]], dtype=torch.uint8)[torch.arange(72) // period % 2].T
    image = stripes[:, None].expand(3, 72, 72).contiguous()
    pixels = AdaptiveMixing(LogisticMixture(), tuple(image.shape), ORDER)
    reader_mixtures = []
    for plane, (rows, columns) in planes(72, 72):
        values = image[plane.channel, rows, columns].float()
        mixture = mixture_of(values, spread)._replace(log_scales=torch.full((1, 3, 36, 36), -2.5))
        pixels.write(mixture, values[None], plane)
        reader_mixtures.append((mixture, values, plane))
    for learned in (pixels.state.shift, pixels.state.width, pixels.state.pixel_shift):
        assert np.isfinite(learned).all()
    reader = AdaptiveMixing(LogisticMixture(), tuple(image.shape), ORDER, pixels.finish())
    for mixture, values, plane in reader_mixtures:
        assert torch.equal(reader.read(mixture, plane)[0], values)
    reader.end()


# ---- what was written is read again


def bits_and_shares(count: int) -> tuple[np.ndarray, bytes]:
    """What a coder was told, twice a bit's probability and the bit, and what it made of that."""
    random = generator()
    shares = torch.randint(4, 65532, (count,), generator=random).numpy()
    bits = (torch.randint(0, 65536, (count,), generator=random).numpy() < shares).astype(np.int64)
    register, out = started(), np.zeros(2 * count + 16, np.uint8)
    for bit, share in zip(bits, shares, strict=True):
        code_bit(False, register, out, bit, share)
    return (2 * shares + bits).astype(np.uint32), out[: register[3]].tobytes() + ending(register)


@pytest.mark.parametrize("pieces", [1, 7, 300])
def test_whatever_comes_in_pieces_is_checked(pieces: int) -> None:
    told, data = bits_and_shares(2000)
    check = Check()
    for n in range(pieces):
        of_data, of_told = (part[n * len(part) // pieces : (n + 1) * len(part) // pieces] for part in (data, told))
        check.follow(of_data, of_told, all_there=n == pieces - 1)
    assert len(check.told) == 0


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_byte_that_went_wrong_is_noticed(place: int) -> None:
    told, data = bits_and_shares(2000)
    wrong = bytearray(data)
    wrong[place] ^= 64
    with pytest.raises(EncodeError, match="does not give back"):
        Check().follow(bytes(wrong), told, all_there=True)


def test_bits_that_depend_on_data_still_to_come_are_left() -> None:
    told, data = bits_and_shares(2000)
    begun = np.frombuffer(data[:100], np.uint8).copy()
    count = check_bits(started(data[:100]), begun, told, False)
    assert 0 < count < 2000
    assert check_bits(started(data[:100]), begun, told, True) == -1  # as if zeros came behind them
