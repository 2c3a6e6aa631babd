"""`codec` with the models that come with it: chosen by name and quality, found again by their files."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from cli_files import ABOUT, NARROW, POINT, runner
from conftest import ROOT, make_codec, run_python
from torch import Tensor

from codec import bitstream, pretrained
from codec.bitstream import Header
from codec.checkpoint import load_codec, load_pretrained, round_to_half, save_weights
from codec.data.download import file_sha256
from codec.data.image_file import read_image, write_image
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory):
    """Pretrained models of tiny codecs: `several` rates, the default, and two that take a quality.

    `ranged`, grey, takes whole ones from 5 to 60, `variable` 0 to 100.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("pretrained")
        patch.setattr(pretrained, "FOLDER", folder)
        patch.setattr(pretrained, "DEFAULT", "several")
        for quality in (1, 2, 3):
            codec = make_codec("conv_baseline", seed=quality, overrides=NARROW)
            put(codec, name="several", quality=quality, scheme="conv_autoencoder")
        small = ("model.layers=6", "model.width=8", "model.train_quality=[5,60]")
        points = [{**POINT, "quality": 5, "bpp": 0.2}, {**POINT, "quality": 60, "psnr": 34.0}]
        about = {"accepts": [5, 60], "own_quality": 40, "measured": {"bsd300": points}, "scheme": "comcnn_reccnn"}
        put(make_codec("comcnn_reccnn", channels=1, overrides=small), name="ranged", image_channels=1, **about)
        of_all_rates = make_codec("conv_baseline", overrides=(*NARROW, "bottleneck.variable_rate=true"))
        points = [{**POINT, "quality": quality, "bpp": bpp} for quality, bpp in ((50, 1e-3), (90, 99.0))]
        about = {"accepts": [0, 100], "own_quality": 50, "measured": {"kodak": points}}
        put(of_all_rates, name="variable", scheme="conv_autoencoder", **about)
        yield folder


@pytest.fixture(autouse=True)
def here(here: Path, package: Path, photograph: Tensor) -> Path:
    """A current folder with one small photograph in it."""
    write_image(here / "a.png", photograph[:, :32, :48].contiguous())
    return here


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    return runner(capsys)


def put(codec: LearnedCodec, **about: object) -> None:
    codec.encode(torch.zeros(1, 8, 8, dtype=torch.uint8))  # compiles the coder where that has not been done
    round_to_half(codec)
    weights = replace(ABOUT, fingerprint=codec.fingerprint().hex(), **about)
    save_weights(codec, weights.path, half=True)
    weights = replace(weights, sha256=file_sha256(weights.path), size=weights.path.stat().st_size)
    weights.path.with_suffix(".json").write_text(json.dumps(asdict(weights)))


def header(path: str) -> Header:
    return bitstream.unpack(Path(path).read_bytes())[0]


def written_with(path: str) -> str:
    return pretrained.written_by(header(path).fingerprint).stem


def test_with_no_model_named_the_default_one_s_middle_quality_is_taken_and_said(run) -> None:
    status, out, err = run("compress", "a.png", "a.qnt")
    assert status == 0
    assert out.startswith("a.png → a.qnt: 48×32")
    assert err == ("codec: with the pretrained model several, quality 2; `codec models` lists others\n")
    assert written_with("a.qnt") == "several-q2"


@pytest.mark.parametrize(
    ("options", "stem"),
    [
        (("--quality", 3), "several-q3"),
        (("--model", "several", "--quality", 1), "several-q1"),
        (("--model", "several"), "several-q2"),
        (("--model", "ranged"), "ranged"),
        (("--model", "variable", "--quality", 30.5), "variable"),
    ],
)
def test_a_model_and_its_quality_are_chosen(options: tuple, stem: str, run) -> None:
    status, _, err = run("compress", "a.png", "a.qnt", *options)
    assert (status, "--model" in options and err) in [(0, ""), (0, False)]
    assert written_with("a.qnt") == stem
    assert run("decompress", "a.qnt", "b.png") == (0, "a.qnt → b.png: 48×32\n", "")
    expected = load_codec(pretrained.FOLDER / f"{stem}.safetensors").decode(Path("a.qnt").read_bytes())
    assert torch.equal(read_image("b.png"), expected)


def test_a_quality_within_a_range_reaches_the_file(run) -> None:
    for quality in (5, 60):
        assert run("compress", "a.png", f"{quality}.qnt", "--model", "ranged", "--quality", quality)[0] == 0
        assert bitstream.unpack(Path(f"{quality}.qnt").read_bytes())[1][0] == bytes([quality])


def test_of_a_variable_rate_every_half_is_a_quality_and_the_middle_one_its_own(run) -> None:
    for options, in_halves in (((), 100), (("--quality", 30), 60), (("--quality", 30.5), 61)):
        assert run("compress", "a.png", "a.qnt", "--force", "--model", "variable", *options)[0] == 0
        assert bitstream.unpack(Path("a.qnt").read_bytes())[1][0][0] == in_halves
    status, _, err = run("compress", "a.png", "b.qnt", "--model", "variable", "--quality", 30.3)
    assert (status, err) == (2, "codec: error: --quality 30.3: allowed are 0 to 100 in steps of 0.5\n")
    with pytest.raises(ArgumentError, match=r"^quality=30\.3: allowed are 0 to 100 in steps of 0\.5$"):
        load_pretrained("variable", 30.3)
    assert load_pretrained("variable", 30.5).quality == 30.5


def test_a_rate_is_usual_or_not_by_what_was_measured_at_the_own_quality(run) -> None:
    write_image("noise.png", torch.randint(256, (3, 64, 64), dtype=torch.uint8))
    for options, told in (((), True), (("--quality", 90), False)):
        said = run("compress", "noise.png", "a.qnt", "--force", "--model", "variable", *options)[1]
        assert ("photographs take about" in said) == told


def test_a_pretrained_model_of_a_variable_rate_is_searched(run) -> None:
    run("compress", "a.png", "own.qnt", "--model", "variable")
    limit = Path("own.qnt").stat().st_size
    status, out, _ = run("compress", "a.png", "a.qnt", "--model", "variable", "--max-bytes", limit)
    assert status == 0
    assert Path("a.qnt").stat().st_size <= limit
    assert float(re.search(r", quality ([\d.]+)", out)[1]) >= 50


def test_files_of_several_models_are_decoded_together(run) -> None:
    Path("files").mkdir()
    for quality in (1, 3):
        run("compress", "a.png", f"files/{quality}.qnt", "--quality", quality)
    run("compress", "a.png", "files/grey.qnt", "--model", "ranged")
    foreign = bitstream.pack(Header("CONB", bytes(4), 16, 16, 3), [b"abc"])
    Path("files/z.qnt").write_bytes(foreign)
    status, out, err = run("decompress", "files", "back")
    assert status == 1
    assert len(out.splitlines()) == 3
    assert read_image("back/grey.png").shape == (1, 32, 48)
    first, last = err.splitlines()
    assert first == (
        "codec: files/z.qnt: the file was written with weights 00000000, those of no pretrained model: "
        "name what wrote it, by --checkpoint or codec.load(checkpoint=...)"
    )
    assert last == "codec: 1 of 4 files failed"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--model", "best"), "no pretrained model is called best: there are several, ranged, variable"),
        (
            ("--model", "variabel"),
            "no pretrained model is called variabel: there are several, ranged, variable; did you mean variable?",
        ),
        (("--quality", 4), "quality 4: the model several has 1 to 3"),
        (("--model", "ranged", "--quality", 4), "quality 4: the model ranged has 5 to 60"),
        (("--model", "variable", "--quality", 100.5), "quality 100.5: the model variable has 0 to 100"),
        (("--model", "ranged", "--checkpoint", "x"), "--checkpoint x, --model ranged: name one of them"),
        (("--device", "abacus"), "--device abacus: "),
    ],
)
def test_a_choice_that_is_none_is_one_line(options: tuple, line: str, run) -> None:
    status, out, err = run("compress", "a.png", "a.qnt", *options)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"codec: error: {line}")
    assert not Path("a.qnt").exists()


def test_info_says_the_quality_that_a_file_was_written_at(run) -> None:
    for model, quality in (("several", 2), ("ranged", 17), ("variable", 62.5)):
        run("compress", "a.png", "q.qnt", "--model", model, "--quality", str(quality), "--force")
        assert f"  quality      {quality:g}\n" in run("info", "q.qnt")[1]


def test_info_names_the_model_that_wrote_a_file(run) -> None:
    run("compress", "a.png", "a.qnt")
    assert (
        f"weights      {header('a.qnt').fingerprint.hex()}, pretrained several, quality 2\n"
        in run("info", "a.qnt")[1]
    )
    Path("b.qnt").write_bytes(bitstream.pack(Header("CONB", bytes(4), 16, 16, 3), [b"abc"]))
    assert "weights      00000000\n" in run("info", "b.qnt")[1]


def test_models_are_listed_with_what_they_reach(run) -> None:
    status, out, err = run("models")
    assert (status, err) == (0, "")
    rows = [re.split(r"\s{2,}", line) for line in out.split("\n\n")[0].splitlines()]
    heads = ["model", "quality", "scheme", "images", "bpp", "PSNR (dB)", "measured on", "MB"]
    assert rows[0] == [*heads, "parameters", "kMAC/pixel"]
    assert [row[:4] for row in rows[1:]] == [
        ["several", "1", "conv_autoencoder", "colour"],
        ["several*", "2", "conv_autoencoder", "colour"],
        ["several", "3", "conv_autoencoder", "colour"],
        ["ranged", "5–60", "comcnn_reccnn", "grey"],
        ["variable", "0–100", "conv_autoencoder", "colour"],
    ]
    assert rows[-2][4:7] == ["0.20–0.50", "30.00–34.00", "bsd300 at 5–60"]
    assert rows[-2][8:] == ["1.23 M", "4.5 / 67.0"]


def test_the_card_of_a_model_of_several_rates_is_shown_once(run) -> None:
    (pretrained.FOLDER / "several.md").write_text("# several")
    assert run("models", "several") == (0, "# several\n", "")


def test_models_of_the_package_are_listed_without_torch(here: Path) -> None:
    script = (
        "import json, sys; from codec.cli import main; status = main(['models']); "
        "print(json.dumps([status, sorted({'torch', 'torchac', 'numpy', 'lightning'} & set(sys.modules))]))"
    )
    *listed, last = run_python("-c", script, cwd=here, PYTHONPATH=str(ROOT)).stdout.splitlines()
    assert json.loads(last) == [0, []]
    assert "lossless_unet" in "\n".join(listed)
    assert next(line for line in listed if "comcnn_jpeg2000" in line).split()[1:3] == ["ratio", "240–11"]
    assert (
        "ratio: given as --quality, JPEG 2000's compression ratio, of which a larger one makes a smaller file."
        in (listed)
    )
    assert "* is what compress takes if none is named, at quality 50." in listed
