"""The commands of README and of the documentation, its new scheme and its new prior are run as they stand there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, make_codec, run_python
from torch import Tensor

from codec.data.image_file import write_image
from experiments.points import read_points

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs/tutorial.md"
PAGES = [
    README,
    TUTORIAL,
    *sorted((ROOT / "docs/how-to").glob("*.md")),
    *sorted((ROOT / "docs/explanation").glob("*.md")),
]
# What makes a training of the README one of seconds; the folder's name stays what the README says.
QUICK = (
    "logger=csv epochs=1 data.num_workers=0 data.batch_size=2 trainer.limit_train_batches=1 "
    "trainer.limit_val_batches=1 trainer.limit_test_batches=1"
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, photographs: list[Tensor]) -> Path:
    """The code without its past, beside a few photographs of a user."""
    for name in ("codec", "conf", "experiments", "hydra_plugins", "train.py", "evaluate.py"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    (tmp_path / "photos").mkdir()
    for n in range(12):
        write_image(tmp_path / f"photos/{n}.png", photographs[n % 3][:, n : n + 272, n : n + 272].contiguous())
    write_image(tmp_path / "photo.jpg", photographs[0])
    return tmp_path


def run_commands(pages: list[Path], checkout: Path) -> None:
    """Runs what stands in the pages' blocks of shell, in their order; what stands there twice, once."""
    lines = [line for page in pages for block in blocks(page, "sh") for line in block.splitlines()]
    commands = list(dict.fromkeys(line for line in lines if line and not line.startswith("source")))
    assert len(commands) >= 7
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "codec":
            arguments = ["-m", "codec.cli", *arguments]
        elif arguments[0] == "train.py" and "--help" not in arguments:
            arguments += shlex.split(QUICK)
        assert program in ("codec", "python")
        run_python(*arguments, cwd=checkout, PYTHONPATH=str(checkout))


def test_every_command_of_the_tutorial_works(checkout: Path) -> None:
    run_commands([TUTORIAL], checkout)
    assert (checkout / "first.png").is_file()


def test_every_command_of_the_readme_and_of_the_other_pages_works(checkout: Path) -> None:
    run_commands([page for page in PAGES if page != TUTORIAL], checkout)
    assert (checkout / "decoded.png").is_file()
    assert len(list((checkout / "compressed").glob("*.qnt"))) == 12


def test_the_readme_is_short_and_its_three_lines_of_python_are_three() -> None:
    assert len(README.read_text().split()) <= 900
    (code,) = blocks(README, "python")
    assert code.startswith("import codec\n")
    assert len(list(filter(None, code.splitlines()))) == 4


def test_make_commands_are_targets() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {
        name for page in PAGES for name in re.findall(r"^(?:.*`)?make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test", "setup"} <= named <= set(targets)


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    for link in re.findall(r"\]\((?!http|#|\.\./\.\./actions)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists() or "docs/reference" in str((page.parent / link).resolve()), link


def test_every_option_that_is_named_exists_and_the_other_way_round() -> None:
    table = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs/how-to/train.md").read_text(), re.MULTILINE)
    named = {group: set(re.findall(r"`([a-z0-9_]+)`", options)) for group, options in table}
    for group in ("model", "data", "prior", "strategy", "experiment"):
        known = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - {"base"}
        assert named[group] <= known
        if group not in ("model",):  # of which the standard codecs' variants are not all named
            assert named[group] == known


def test_the_readme_s_figures_are_those_of_the_points() -> None:
    """BD-rates against JPEG on Kodak, and bits a sample, in the table of schemes and above it."""
    table = (ROOT / "experiments/results/bd_rate_kodak.md").read_text()
    rates = {codec: f"{float(rate):.0f} %" for codec, rate in re.findall(r"^\| (\w+) \| -([\d.]+) %", table, re.M)}
    text = " ".join(README.read_text().split())
    rows = dict(re.findall(r"\| `(\w+)` \|.*?\| ([^|]*) \|", text))
    assert rows["diffusion_wavelet"] == f"−{rates['diffusion_wavelet']}"
    assert f"needs {rates['diffusion_wavelet']} fewer bits" in text
    assert f"behind AVIF, {rates['comcnn_avif']} fewer" in text
    wanted = [
        f"{name} −{rates[codec]}"
        for name, codec in (("AVIF", "comcnn_avif"), ("JPEG 2000", "comcnn_jpeg2000"), ("JPEG", "comcnn_jpeg"))
    ]
    assert rows["comcnn_reccnn"] == ", ".join(wanted)
    assert f"DCT −{rates['diffusion_dct']}" in rows["diffusion"]
    for scheme in ("conv_baseline", "conv_enhanced", "quantized_autoencoder"):
        assert f"DCT −{rates[f'{scheme}_dct']}" in rows[scheme]
    samples = {}
    for point in read_points():
        if point["dataset"] == "kodak":
            samples[point["codec"]] = min(point["bpsp"], samples.get(point["codec"], 24))
    for scheme, other in (("lossless_unet", "png"), ("lossless_unet_polyphase", "jpegxl_lossless")):
        assert rows[scheme].startswith(f"{samples[scheme]:.2f} bits a sample; ")
        assert rows[scheme].endswith(f" {samples[other]:.2f}")


def test_a_sixth_scheme_costs_the_two_files_of_its_page(checkout: Path) -> None:
    page = ROOT / "docs/how-to/scheme.md"
    (code,), (config,) = blocks(page, "python"), blocks(page, "yaml")
    assert len(code.splitlines()) <= 25
    (checkout / "codec/schemes/tiny.py").write_text(code)
    (checkout / "conf/model/tiny.yaml").write_text(config)
    assert yaml.safe_load(config)["_target_"] == "codec.schemes.tiny.Tiny"
    environment = {"PYTHONPATH": str(checkout)}
    command = ["train.py", "model=tiny", "name=sixth", "data.limit=3", "strategy=cpu", *shlex.split(QUICK)]
    run_python(*command, cwd=checkout, **environment)
    for arguments in ("compress photo.jpg a.qnt", "decompress a.qnt a.png"):
        run_python("-m", "codec.cli", *arguments.split(), "--checkpoint", "runs/sixth", cwd=checkout, **environment)
    assert (checkout / "a.png").is_file()
    shutil.copytree(ROOT / "tests", checkout / "tests")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    contract = ["-m", "pytest", "tests/test_contract.py", "-k", "tiny and not baseline and not format"]
    done = run_python(*contract, cwd=checkout, **environment)
    assert re.search(r"\d{2,} passed", done.stdout)


def test_a_scheme_outside_the_package_is_trained_and_codes_as_its_page_says(checkout: Path) -> None:
    page = ROOT / "docs/how-to/scheme.md"
    (code,), (config,) = blocks(page, "python"), blocks(page, "yaml")
    lines = re.search(r"^export (.*)\npython (train.py .*)\ncodec (compress .*)", page.read_text(), re.MULTILINE)
    names, train, compress = (shlex.split(line) for line in lines.groups())
    told = dict(name.split("=") for name in names)
    told["PYTHONPATH"] += f":{checkout}"
    for path, text in (("tiny.py", code), ("conf/model/tiny.yaml", config.replace("codec.schemes.", ""))):
        (checkout / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / "mine" / path).write_text(text)
    train += ["data.limit=3", "strategy=cpu", *shlex.split(QUICK)]
    for missing, fault in (("PYTHONPATH", "PYTHONPATH names"), ("QUINTET_MODULES", "QUINTET_MODULES names")):
        less = {**told, missing: str(checkout) if missing == "PYTHONPATH" else ""}
        refused = run_python(*train, cwd=checkout, check=False, **less)
        assert refused.returncode == 2
        assert re.fullmatch(r"error: .*\n", refused.stderr)
        assert fault in refused.stderr
    run_python(*train, cwd=checkout, **told)
    for arguments in (compress, ["decompress", "photo.qnt", "a.png", "--checkpoint", "runs/tiny"]):
        run_python("-m", "codec.cli", *arguments, cwd=checkout, **told)
    assert (checkout / "a.png").is_file()


def test_a_fifth_prior_costs_the_two_files_of_its_page(checkout: Path) -> None:
    page = ROOT / "docs/how-to/prior.md"
    (code,), (config,) = blocks(page, "python"), blocks(page, "yaml")
    (checkout / "codec/entropy/priors/halves.py").write_text(code)
    (checkout / "conf/prior/halves.yaml").write_text(config)
    shutil.copytree(ROOT / "tests", checkout / "tests")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    contract = ["-m", "pytest", "tests/test_prior_contract.py", "-k", "halves and (conv_baseline or wavelet)"]
    done = run_python(*contract, cwd=checkout, PYTHONPATH=str(checkout))
    assert "2 passed" in done.stdout


def test_schemes_import_no_other_scheme_and_stay_short() -> None:
    for path in (ROOT / "codec/schemes").glob("*.py"):
        text = path.read_text()
        assert "codec.schemes" not in text
        assert len(text.splitlines()) <= 350
    assert make_codec("conv_baseline").tag != make_codec("conv_enhanced").tag


def test_the_library_imports_nothing_from_above_it() -> None:
    for path in (ROOT / "codec").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (experiments|train|evaluate)\b", path.read_text(), re.MULTILINE), (
            path
        )
