"""The command line of `codec`: what is misspelt or not allowed is told with what may be meant, and at once."""

from pathlib import Path

import pytest
from cli_files import one_line, picture
from conftest import ROOT, run_python

from codec import bitstream
from codec.errors import DISTRIBUTION

pytestmark = pytest.mark.usefixtures("here")

PROGRAM = """
import sys
from codec.cli import main
status = main(sys.argv[1:])
print("heavy:", sorted({"torch", "lightning", "numpy"} & set(sys.modules)))
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("arguments", "usage", "said"),
    [
        (
            ("compress", "a.png", "a.qnt", "--qualty", "50"),
            "compress",
            "--qualty: there is no such option; did you",
        ),
        (("compress", "a.png", "--qualty=50"), "compress", "--qualty: there is no such option; did you mean --qua"),
        (("decompress", "a.qnt", "a.png", "--parital"), "decompress", "did you mean --partial?"),
        (("compress", "a.png", "a.qnt", "-q", "50"), "compress", "-q: there is no such option"),
        (("models", "--all"), "models", "--all: there is no such option"),
        (("models", "a", "b"), "models", "b: more than this command takes"),
        (
            ("compres", "a.png", "a.qnt"),
            "",
            "compres: allowed are compress, decompress, extract, info, models; did",
        ),
        (("--qualty", "50"), "", "--qualty: a command goes first, one of compress, decompress, extract, info, mod"),
        (("--quality", "50", "compress"), "", "--quality: a command goes first, one of compress, decompress"),
        (
            ("--versoin",),
            "",
            "--versoin: a command goes first, one of compress, decompress, extract, info, models; did",
        ),
        (("--versoin",), "", "; did you mean --version?"),
    ],
)
def test_what_is_misspelt_is_told_with_what_is_nearest_and_the_usage_of_its_command(
    arguments: tuple[str, ...], usage: str, said: str, run
) -> None:
    picture("a.png")
    status, out, err = run(*arguments)
    program = f"codec {usage}".strip()
    assert (status, out) == (2, "")
    assert err.startswith(f"usage: {program} [-h]")
    assert err.splitlines()[-1].startswith(f"{program}: error: ")
    assert said in err.splitlines()[-1]


def test_names_behind_two_dashes_are_those_of_files(run) -> None:
    picture("./--odd.png")
    _, _, err = run("compress", "--model", "comcnn_reccnn", "--checkpoint", "none", "--", "--odd.png", "a.qnt")
    assert one_line(err) == "codec: error: --checkpoint none, --model comcnn_reccnn: name one of them"
    _, _, err = run("info", "--", "--odd.png")
    assert one_line(err) == "codec: --odd.png: not a Quintet file: it does not begin with a whole QNT header"


def test_an_option_may_be_shortened_and_its_value_may_begin_with_a_minus(run) -> None:
    picture("a.png")
    assert run("compress", "a.png", "a.qnt", "--effo", 1)[0] == 0
    status, _, err = run("decompress", "a.qnt", "b.png", "--crop", "-5,0,4,4")
    assert status == 2
    assert one_line(err).startswith("codec: error: --crop -5,0,4,4: allowed are four whole numbers X,Y,W,H from 0")


def test_the_version_is_that_of_the_package_and_of_its_files(run) -> None:
    status, out, err = run("--version")
    assert (status, err) == (0, "")
    assert one_line(out).startswith(f"{DISTRIBUTION} ")
    assert one_line(out).endswith(f", format version {bitstream.VERSION}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "a.png", "a.qnt", "--effort", "10"),
        ("compress", "a.png", "a.qnt", "--effort", "3", "--model", "lossless_unet"),
        ("compress", "a.png", "a.qnt", "--device", "abacus"),
        ("compress", "a.png", "a.qnt", "--batch", "0"),
        ("compress", "a.png", "a.qnt", "--batch", "2", "--bpp", "1"),
        ("compress", "a.png", "a.qnt", "--checkpoint", "nowhere"),
        ("decompress", "a.qnt", "b.png", "--crop", "1,2,3"),
        ("decompress", "a.qnt", "b.png", "--scale", "3"),
        ("decompress", "a.qnt", "b.png", "--scale", "2", "--crop", "0,0,4,4"),
        ("decompress", "a.qnt", "b.png", "--device", "auto"),
        ("info", "a.qnt", "--trace", "--device", "cuda:x"),
    ],
)
def test_a_value_that_no_codec_takes_is_refused_before_torch_is_imported(
    arguments: tuple[str, ...], here: Path
) -> None:
    picture("a.png")
    Path("a.qnt").touch()
    force = ("--force",) if arguments[0] == "compress" else ()
    done = run_python("-c", PROGRAM, *arguments, *force, cwd=here, check=False, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout) == (2, "heavy: []\n")
    assert one_line(done.stderr).startswith("codec: error: ")
