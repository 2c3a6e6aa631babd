"""`codec compress --max-bytes | --bpp | --psnr | --quality | --effort`: what files are to reach, they reach."""

import random
import re
from pathlib import Path

import pytest
import torch
from cli_files import files, one_line, picture, runner
from conftest import composed, crop, make_codec
from PIL import Image
from torch import Tensor

from codec.checkpoint import load_codec, save_weights
from codec.data.image_file import read_image, write_image
from codec.errors import ArgumentError, EncodeError
from codec.learned_codec import LearnedCodec
from codec.metrics import psnr
from codec.pretrained import pretrained_models
from codec.search import encode_to
from codec.training.config import Builder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def wavelet(tmp_path_factory: pytest.TempPathFactory, photograph: Tensor) -> Path:
    """The checkpoint of a codec of all rates, whose prior is fitted, so that it predicts well."""
    torch.manual_seed(0)
    with Builder(composed("train", ["experiment=diffusion_wavelet"])) as build:
        codec = build.codec("model")
    codec.fit_priors([crop(photograph, 96, 96)[None], crop(photograph.flip(2), 96, 96)[None]])
    codec.eval().encode(crop(photograph))  # makes the tables
    path = tmp_path_factory.mktemp("wavelet") / "wavelet.safetensors"
    save_weights(codec, path)
    return path


@pytest.fixture
def codec(wavelet: Path) -> LearnedCodec:
    return load_codec(wavelet)


@pytest.fixture
def run(wavelet: Path, capsys: pytest.CaptureFixture):
    return runner(capsys, wavelet)


@pytest.fixture(autouse=True)
def here(here: Path, photograph: Tensor) -> Path:
    """A current folder with a photograph of 64×48 pixels."""
    write_image(here / "a.png", crop(photograph, 48, 64))
    return here


def comrec(standard: str) -> LearnedCodec:
    """Small networks around a standard codec, for a range of its qualities."""
    small = ("model.layers=6", "model.width=8", "model.train_quality=[4,60]", f"model.codec={standard}")
    return make_codec("comcnn_reccnn", overrides=small)


def quality_in(line: str) -> float:
    return float(re.search(r", quality ([\d.]+)", line)[1])


def at(codec: LearnedCodec, quality: float) -> bytes:
    codec.set_quality(quality)
    return codec.encode(read_image("a.png"))


# ---- what is reached


@pytest.mark.parametrize(
    ("option", "limit"),
    [(("--max-bytes", "0.7K"), 700), (("--bpp", "1.5"), 1.5 * 48 * 64 / 8)],
)
def test_a_file_is_as_large_as_it_may_be(option: tuple, limit: float, run, codec: LearnedCodec) -> None:
    status, out, err = run("compress", "a.png", "a.qnt", *option)
    assert (status, err) == (0, "")
    data, quality = Path("a.qnt").read_bytes(), quality_in(one_line(out))
    assert f"{len(data)} bytes, {8 * len(data) / (48 * 64):.3f} bpp, " in out
    assert len(data) <= limit < len(at(codec, quality + 0.5))
    assert data == at(codec, quality)


def test_an_image_comes_back_as_near_as_it_must(run, codec: LearnedCodec) -> None:
    status, out, err = run("compress", "a.png", "a.qnt", "--psnr", 33, "--effort", 0)
    codec.set_effort(0)
    assert (status, err) == (0, "")
    data, image, quality = Path("a.qnt").read_bytes(), read_image("a.png"), quality_in(one_line(out))
    reached = psnr(codec.decode(data), image)
    assert out.endswith(f", quality {quality:g}, {reached:.2f} dB\n")
    assert reached >= 33 > psnr(codec.decode(at(codec, quality - 0.5)), image)
    assert data == at(codec, quality)


def test_metadata_counts(run) -> None:
    exif = Image.Exif()
    exif[0x010E] = random.Random(0).randbytes(200).hex()  # a description
    photo = picture("b.png", (64, 48), exif=exif)
    sizes, qualities = [], []
    for options in ((), ("--strip",)):
        status, out, _ = run("compress", photo, "b.qnt", "--force", "--max-bytes", 900, "--effort", 0, *options)
        assert status == 0
        sizes.append(Path("b.qnt").stat().st_size)
        qualities.append(quality_in(out))
    assert max(sizes) <= 900
    assert qualities[0] < qualities[1]


@pytest.mark.parametrize("option", [("--max-bytes", 500), ("--psnr", 27, "--checkpoint", "own.safetensors")])
def test_several_at_a_time_do_not_set_each_other_s_quality(option: tuple, photograph: Tensor, run) -> None:
    save_weights(comrec("jpeg"), "own.safetensors")
    for n in range(3):
        picture = photograph[:, 60 * n : 60 * n + 32, 90 * n : 90 * n + 32].contiguous()
        Path("in").mkdir(exist_ok=True)
        write_image(Path(f"in/{n}.png"), picture)
    effort = () if "--checkpoint" in option else ("--effort", 0)
    alone, together = (run("compress", "in", f"of {n}", *option, *effort, "--jobs", n) for n in (1, 4))
    assert (alone[0], together[0], alone[2]) == (0, 0, "")
    assert together[1] == alone[1].replace("of 1", "of 4")
    assert len(set(map(quality_in, alone[1].splitlines()))) > 1
    for name in files("of 1"):
        assert Path("of 4", name).read_bytes() == Path("of 1", name).read_bytes()


@pytest.mark.parametrize("standard", ["jpeg", "jpeg2000"])  # of which one's number rises with the rate
def test_a_range_of_integers_is_searched(standard: str, run) -> None:
    save_weights(comrec(standard), "own.safetensors")
    codec, steps = load_codec("own.safetensors"), {"jpeg": 1, "jpeg2000": -1}
    sizes = {quality: len(at(codec, quality)) for quality in codec.qualities}
    limit = (min(sizes.values()) + max(sizes.values())) // 2
    status, out, _ = run("compress", "a.png", "a.qnt", "--max-bytes", limit, "--checkpoint", "own.safetensors")
    quality = quality_in(out)
    assert status == 0
    assert Path("a.qnt").stat().st_size == sizes[quality] <= limit < sizes[quality + steps[standard]]


def test_the_quality_of_a_codec_that_searches_stays(codec: LearnedCodec) -> None:
    image = read_image("a.png")
    codec.set_effort(0)
    before = at(codec, 20)
    found = encode_to(codec, image, psnr=33)
    assert found.quality > codec.quality == 20
    assert codec.encode(image) == before
    assert found.psnr == psnr(codec.decode(found.data), image)


# ---- what is not


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--max-bytes", 60), r"[\d]+ bytes even at quality 0: 60 are out of reach"),
        (("--bpp", 0.01), r"[\d.]+ bpp even at quality 0: 0\.01 bpp is out of reach"),
        (("--psnr", 90), r"[\d.]+ dB even at quality 100: 90 dB are out of reach"),
    ],
)
def test_what_no_quality_reaches_fails_that_file_alone(option: tuple, line: str, run) -> None:
    status, out, err = run("compress", "a.png", "a.qnt", *option, "--effort", 0)
    assert (status, out) == (1, "")
    assert re.fullmatch(f"codec: a.png: {line}", one_line(err))
    assert not Path("a.qnt").exists()


def test_what_is_within_reach_is_written_beside_what_is_not(run) -> None:
    picture("tiny.png", (4, 4))
    save_weights(comrec("jpeg"), "own.safetensors")
    limit = len(at(load_codec("own.safetensors"), 4)) - 1
    option = ("--max-bytes", limit, "--checkpoint", "own.safetensors")
    status, out, err = run("compress", "a.png", "tiny.png", "out", *option)
    assert status == 1
    assert files("out") == ["tiny.qnt"]
    assert out.startswith("[2/2] tiny.png → out/tiny.qnt: 4×4, ")
    assert err.splitlines() == [
        f"codec: a.png: {limit + 1} bytes even at quality 4: {limit} are out of reach",
        "codec: 1 of 2 files failed",
    ]


@pytest.mark.parametrize(
    "options",
    [
        ("--quality", 30, "--bpp", 1),
        ("--bpp", 1, "--psnr", 30),
        ("--max-bytes", "1k", "--psnr", 30),
        ("--max-bytes", "1k", "--quality", 3),
    ],
)
def test_one_of_them_is_named(options: tuple, run) -> None:
    status, _, err = run("compress", "a.png", "a.qnt", *options)
    assert status == 2
    assert f"argument {options[2]}: not allowed with argument {options[0]}" in err


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--max-bytes", f"1.{'0' * 30}1"), f"--max-bytes 1.{'0' * 30}1: allowed are whole bytes"),
        (("--max-bytes", "0"), "--max-bytes 0: allowed are whole bytes from 1, as in 50000, 100k or 1.5M"),
        (("--max-bytes", "1.5"), "--max-bytes 1.5: allowed are whole bytes"),
        (("--max-bytes", "100kB"), "--max-bytes 100kB: allowed are whole bytes"),
        (("--bpp", "0"), "--bpp 0: allowed are numbers above 0"),
        (("--psnr", "inf"), "--psnr inf: allowed are numbers above 0"),
        (("--quality", "high"), "--quality high: allowed are numbers"),
        (("--quality", "100.5"), "--quality 100.5: allowed are numbers 0 to 100"),
        (("--quality", "-1"), "--quality -1: allowed are numbers 0 to 100"),
        (("--quality", "30.3"), "--quality 30.3: allowed are 0 to 100 in steps of 0.5"),
        (("--effort", "10"), "--effort 10: allowed are the integers 0 to 9"),
    ],
)
def test_a_wrong_number_is_one_line(option: tuple, line: str, run) -> None:
    status, out, err = run("compress", "a.png", "a.qnt", *option)
    assert (status, out) == (2, "")
    assert one_line(err).startswith(f"codec: error: {line}")
    assert not Path("a.qnt").exists()


def test_what_writes_at_one_rate_is_not_searched(run, capsys: pytest.CaptureFixture, checkpoint: Path) -> None:
    many = [model for model in pretrained_models() if model.weights[0].accepts]
    named = "".join(f"--model {model.name}, " for model in many)
    assert "--model diffusion_wavelet, " in named
    others = f"name what writes at many: {named}or --checkpoint"
    status, _, err = run("compress", "a.png", "a.qnt", "--max-bytes", "1k", "--checkpoint", checkpoint)
    assert status == 2
    assert f"--max-bytes: the codec of this checkpoint writes at one rate only, {others}" in one_line(err)
    status, _, err = runner(capsys)("compress", "a.png", "a.qnt", "--model", "conv_baseline", "--psnr", 30)
    assert status == 2
    assert f"--psnr: the weights of conv_baseline write at one rate only, {others}" in one_line(err)


def test_a_search_is_for_one_thing(codec: LearnedCodec) -> None:
    image = read_image("a.png")
    for wrong in ({}, {"bpp": 1, "psnr": 30}, {"max_bytes": 0}, {"max_bytes": 1.5}, {"bpp": -1}, {"psnr": "high"}):
        with pytest.raises(ArgumentError):
            encode_to(codec, image, **wrong)
    with pytest.raises(EncodeError, match="out of reach"):
        encode_to(comrec("jpeg"), image, max_bytes=1)
    with pytest.raises(ArgumentError, match="^max_bytes: this codec writes at one rate only$"):
        encode_to(make_codec("conv_baseline"), image, max_bytes=1000)


# ---- quality and effort


@pytest.mark.parametrize("quality", ["30", "30.0", "30.5"])
def test_a_variable_rate_takes_half_steps(quality: str, run, codec: LearnedCodec) -> None:
    assert run("compress", "a.png", "a.qnt", "--quality", quality)[0] == 0
    assert Path("a.qnt").read_bytes() == at(codec, float(quality))


def test_an_integer_quality_has_no_halves(run, capsys: pytest.CaptureFixture) -> None:
    model = ("--model", "comcnn_reccnn")
    assert runner(capsys)("compress", "a.png", "a.qnt", *model, "--quality", "30.0")[0] == 0
    status, _, err = runner(capsys)("compress", "a.png", "b.qnt", *model, "--quality", "30.5")
    assert (status, one_line(err)) == (2, "codec: error: --quality 30.5: allowed are the integers 3 to 60")
    status, _, err = runner(capsys)("compress", "a.png", "b.qnt", "--model", "conv_baseline", "--quality", "2.5")
    assert status == 2
    assert one_line(err) == "codec: error: quality 2.5: the model conv_baseline has one quality only, name none"


def test_effort_reaches_the_encoder(run, codec: LearnedCodec) -> None:
    written = {}
    for effort in (0, 1, 2):
        assert run("compress", "a.png", f"{effort}.qnt", "--quality", 40, "--effort", effort)[0] == 0
        codec.set_effort(effort)
        written[effort] = at(codec, 40)
        assert Path(f"{effort}.qnt").read_bytes() == written[effort]
    assert len(written[1]) < len(written[0])
    assert run("compress", "a.png", "own.qnt", "--quality", 40)[0] == 0
    assert Path("own.qnt").read_bytes() == written[1]
    assert run("decompress", "0.qnt", "0.png")[0] == 0


@pytest.mark.parametrize("model", ["comcnn_reccnn", "lossless_unet"])
def test_a_model_without_a_choice_refuses_an_effort_and_names_those_with_one(
    model: str, capsys: pytest.CaptureFixture
) -> None:
    status, _, err = runner(capsys)("compress", "a.png", "a.qnt", "--model", model, "--effort", 1)
    assert status == 2
    assert one_line(err).startswith(
        f"codec: error: --effort 1: {model} has no such choice; diffusion_wavelet, conv_"
    )


def test_a_quality_that_is_a_ratio_is_called_so(capsys: pytest.CaptureFixture) -> None:
    run, sizes = runner(capsys), []
    for ratio in (20, 100):
        status, _, err = run("compress", "a.png", f"{ratio}.qnt", "--model", "comcnn_jpeg2000", "--quality", ratio)
        told = "JPEG 2000's compression ratio, of which a larger one makes a smaller file"
        assert (status, err) == (0, f"codec: comcnn_jpeg2000: its quality is {told}\n")
        sizes.append(Path(f"{ratio}.qnt").stat().st_size)
    assert sizes[1] < sizes[0]
    assert f"  quality      100; {told}\n" in run("info", "100.qnt")[1]
