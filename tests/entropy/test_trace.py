"""A trace is the same on every machine, and where one is at fault it names the pass."""

import copy
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import ROOT, crop, make_codec, run_python
from priors import PRIORS, SIZES, enliven, latent, make
from torch import Tensor
from traces import KERNELS, first_difference, trace_of, traces
from unet_codecs import POLYPHASE, lossless

from codec import bitstream
from codec.bitstream import BitstreamError, StringReader, pack_strings
from codec.checkpoint import load_codec, save_weights
from codec.entropy import EntropyBottleneck
from codec.entropy.trace import Pass, traced
from codec.pretrained import pretrained_models

pytestmark = pytest.mark.usefixtures("one_thread")
CONTEXT = [name for name in PRIORS if name != "factorized"]
# Fine steps and strong weights: tables then follow from much that a less exact arithmetic would round otherwise.
STRENGTH = 3.0
WAVELET = ("quantization=8bit", "model.shortcut=wavelet", "model.decoder=none")
NATIVE = torch.backends.cpu.get_cpu_capability()
# What keeps ATen and oneDNN to a vector width, by ATen's name of it, narrowest first.
WIDTHS = {
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    NATIVE: {},
}
PROGRAM = """
import json, pathlib, sys
from codec.cli.import_lightning import import_lightning
import_lightning()
import torch
from traces import traces
print(json.dumps([torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), traces(pathlib.Path())]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, photograph: Tensor) -> Path:
    """A small file for every prior and every lossless model of the package, each beside its weights."""
    codecs = {}
    for prior in sorted(path.stem for path in (ROOT / "conf/prior").glob("*.yaml")):
        narrow = () if prior == "factorized" else ("prior.features=8",)
        codecs[prior] = make_codec("diffusion", overrides=(*WAVELET, f"prior={prior}", *narrow))
        enliven(codecs[prior].bottleneck.prior, STRENGTH)
    weights = [weights for model in pretrained_models() for weights in model.weights if weights.lossless]
    codecs |= {each.stem: load_codec(each.path) for each in weights}
    folder = tmp_path_factory.mktemp("traced")
    for name, codec in codecs.items():
        save_weights(codec, folder / f"{name}.safetensors")
        (folder / f"{name}.qnt").write_bytes(codec.encode(crop(photograph, 40, 64)))
    return folder


@pytest.fixture(scope="module")
def here(files: Path) -> dict[str, list[list]]:
    return traces(files)


# ---- the same everywhere


def test_a_trace_depends_on_no_kernel(files: Path, here: dict) -> None:
    assert len(here) == len(KERNELS) * len(list(files.glob("*.qnt")))
    for name, trace in here.items():
        assert len(trace) >= 4
        assert trace == here[f"{name.split(',')[0]}, as they are"], name


@pytest.mark.parametrize("width", WIDTHS)
def test_a_trace_depends_on_no_vector_width_and_no_threads(width: str, files: Path, here: dict) -> None:
    if NATIVE not in ("AVX2", "AVX512") and width == "AVX2":
        pytest.skip("this CPU has no AVX2")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    threads = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}  # on one core they would wait for each other
    done = run_python("-c", PROGRAM, cwd=files, PYTHONPATH=path, **threads, **WIDTHS[width])
    assert json.loads(done.stdout) == [width, 2, here]


@pytest.mark.gpu
def test_a_trace_depends_on_no_device(files: Path, here: dict) -> None:
    for file in files.glob("*.qnt"):
        codec = load_codec(file.with_suffix(".safetensors"), "cuda")
        assert list(map(list, trace_of(codec, file.read_bytes()))) == here[f"{file.stem}, as they are"]


@pytest.mark.gpu
def test_a_file_of_either_device_is_decoded_on_the_other(files: Path, photograph: Tensor) -> None:
    image = crop(photograph, 40, 64)
    for file in files.glob("*.qnt"):
        on_cpu, on_gpu = (load_codec(file.with_suffix(".safetensors"), device) for device in ("cpu", "cuda"))
        for data in (file.read_bytes(), on_gpu.encode(image)):
            assert trace_of(on_gpu, data) == trace_of(on_cpu, data), file.stem
            ours, theirs = on_cpu.decode(data), on_gpu.decode(data).cpu()
            # Behind equal levels a wavelet's floats are added in another order.
            assert int((theirs.int() - ours.int()).abs().max()) <= (0 if on_cpu.lossless else 1), file.stem
            assert torch.equal(ours, image) == on_cpu.lossless, file.stem


# ---- what it names


@torch.no_grad()
def trace_of_section(bottleneck: EntropyBottleneck, section: bytes) -> list[Pass]:
    """As far as decoding comes."""
    passes: list[Pass] = []
    with traced(passes.append), suppress(BitstreamError):
        bottleneck.decompress(section, SIZES)
    return passes


@torch.no_grad()
def written(name: str) -> tuple[EntropyBottleneck, bytes]:
    bottleneck = make(name).eval()
    return bottleneck, bottleneck.compress(latent())


@pytest.mark.parametrize("name", PRIORS)
def test_every_symbol_is_in_the_trace(name: str) -> None:
    passes = trace_of_section(*written(name))
    assert all(one.decoded is not None for one in passes)
    count = {part: sum(one.symbols for one in passes if one.part == part) for part in ("y", "y_1", "z")}
    side = 8 * (2 * 2 + 3 * 4) if "z" in {one.part for one in passes} else 0
    assert count == {"y": 5 * 5 * 7, "y_1": 3 * 9 * 14, "z": side}


def test_nothing_is_traced_outside() -> None:
    bottleneck, section = written("checkerboard")
    passes = trace_of_section(bottleneck, section)
    with torch.no_grad():
        bottleneck.decompress(section, SIZES)
    assert len(passes) == len(trace_of_section(bottleneck, section))


@pytest.mark.parametrize("name", CONTEXT)
def test_one_weight_of_a_pass_s_network_names_that_pass(name: str) -> None:
    bottleneck, section = written(name)
    ours = trace_of_section(bottleneck, section)
    hyper, expected = bottleneck.prior.hypers is not None, 0
    for n, networks in enumerate(bottleneck.prior.networks):
        expected += hyper
        for network in networks:
            with torch.no_grad():
                network.last.bias[0] += 1
                theirs = trace_of_section(bottleneck, section)
                network.last.bias[0] -= 1
            assert first_difference(ours, theirs) == expected
            assert ours[expected].part == ("y", "y_1")[n]
            assert ours[expected].told != theirs[expected].told
            expected += 1
    assert expected == len(ours)


@pytest.mark.parametrize("name", CONTEXT[:2])
def test_one_weight_that_reads_z_names_the_pass_behind_z(name: str) -> None:
    bottleneck, section = written(name)
    other = copy.deepcopy(bottleneck)
    other.prior.hypers[1].ups[1].bias.data[0] += 8
    ours, theirs = (trace_of_section(each, section) for each in (bottleneck, other))
    differs = first_difference(ours, theirs)
    assert [one.part for one in ours[differs - 1 : differs + 1]] == ["z", "y_1"]


@pytest.mark.parametrize("name", PRIORS)
def test_a_string_that_decodes_to_something_else_is_told_from_other_tables(name: str) -> None:
    """As a fault of the coder would be: what it was told is the same, what it decoded is not."""
    bottleneck, section = written(name)
    ours = trace_of_section(bottleneck, section)
    reader = StringReader(section)
    strings = [reader.next() for _ in ours]
    for n, string in enumerate(strings):
        changed = bytes([string[0] ^ 0x80]) + string[1:]
        theirs = trace_of_section(bottleneck, pack_strings([*strings[:n], changed, *strings[n + 1 :]]))
        assert first_difference(ours, theirs) == n
        assert ours[n].told == theirs[n].told
        assert ours[n].decoded != theirs[n].decoded


def test_one_weight_of_a_lossless_predictor_names_its_first_channel(photograph: Tensor) -> None:
    codec, image = lossless(POLYPHASE, "model.levels=2", "model.depth=2"), crop(photograph, 20, 28)
    header, sections = bitstream.unpack(codec.encode(image))
    ours = trace_of(codec, bitstream.pack(header, sections))
    assert [one.part for one in ours] == ["y"] + 21 * ["x"]  # base, then two levels of three planes
    for channel in range(3):
        other = copy.deepcopy(codec)
        other.predictors[0][1].heads[channel].bias.data[0] += 1
        theirs: list[Pass] = []
        with torch.no_grad(), traced(theirs.append), pytest.raises(BitstreamError):
            other.decompress(sections, image.shape[-2:])
        assert first_difference(ours, theirs) == 1 + 3 * (1 + 3 + 1) + channel


def test_a_pass_that_fails_is_in_the_trace_as_such() -> None:
    bottleneck, section = written("factorized")
    reader = StringReader(section)
    first = reader.next()
    ours = trace_of_section(bottleneck, section)
    # Ones are the escape's symbols, and no escaped integer's code is all zeros.
    theirs = trace_of_section(bottleneck, pack_strings([first, b"\xff" * 4 + bytes(400)]))
    assert theirs == [ours[0], ours[1]._replace(decoded=None)]


# ---- damage


def refuse_flipped_bit(data: bytes, at: int) -> None:
    damaged = bytearray(data)
    damaged[at] ^= 1
    with pytest.raises(BitstreamError, match="its checksum does not match"):
        bitstream.unpack(bytes(damaged))


@pytest.mark.parametrize("prior", ["factorized", "hyperprior", "checkerboard", "channel_context"])
def test_a_flipped_bit_of_any_pass_is_refused_by_the_file_s_checksum(prior: str, files: Path) -> None:
    data = (files / f"{prior}.qnt").read_bytes()
    (section,) = bitstream.unpack(data)[1]
    reader, end = StringReader(section), data.index(section)
    parts = [one.part for one in trace_of(load_codec(files / f"{prior}.safetensors"), data)]
    assert ("z" in parts) == (prior in ("hyperprior", "checkerboard"))
    for _ in parts:
        string = reader.next()
        end += len(pack_strings([string]))
        refuse_flipped_bit(data, end - 1 - len(string) // 2)
    reader.end()


@pytest.mark.parametrize("section", [0, 1])
def test_a_flipped_bit_of_a_lossless_file_is_refused_by_the_file_s_checksum(section: int, files: Path) -> None:
    data = (files / "lossless_unet_polyphase.qnt").read_bytes()
    coded = bitstream.unpack(data)[1][section]
    refuse_flipped_bit(data, data.index(coded) + len(coded) // 2)
