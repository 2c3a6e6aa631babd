"""`make report`: one page that needs neither a server nor a network, and works in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import crop
from torch import Tensor

from codec.baselines import Jpeg
from codec.data.image_file import write_image
from codec.sweeps.record import Sweep
from codec.training.results import write_results
from experiments.report import gather
from experiments.report.__main__ import main
from experiments.report.pictures import compared, nearest_quality

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HEAD = "codec,setting,dataset,images,bpp,bpsp,ratio,psnr,ssim,ms_ssim,lpips,encode_ms,decode_ms"
POINTS = f"""{HEAD}
jpeg,quality=50,kodak,24,0.7,0.23,34,32,0.9,0.98,,10,5
jpeg,quality=20,kodak,24,0.4,0.13,60,29,0.8,0.95,,9,4
diffusion_wavelet,quality=50,kodak,24,0.6,0.2,40,34,0.92,0.985,,900,800
png,,kodak,24,13,4.4,1.8,inf,1,1,,10,5
jpeg,quality=50,bsd300,100,0.8,0.27,30,31,0.9,0.97,,10,5
"""


def run(runs: Path, name: str, command: str, rows: list[dict[str, Any]] | None, **about: Any) -> Path:
    """A run's folder, as far as the report looks; without `rows` it was not tested."""
    folder = runs / name
    (folder / "provenance").mkdir(parents=True)
    (folder / "provenance/commands.txt").write_text(f"python train.py epochs=9\n{command}\n")
    (folder / "config.yaml").write_text("name: a\n")
    if rows is not None:
        write_results(folder, rows, about)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three trainings, the last cut off before its test, and an image that is called strangely."""
    folder = tmp_path_factory.mktemp("report") / "runs"
    sweep = Sweep(folder / "sweeps/two", "python train.py -m prior=a,b optimizer.lr=0.1,0.2", "train.py", "local")
    for n, (prior, lr, psnr) in enumerate([("a", 0.1, 30.0), ("b", 0.1, 31.0), ("b", 0.2, None)]):
        rows = psnr and [
            {"name": name, "bytes": 100 + n, "bpp": 0.5 + n, "psnr": psnr + i, "mse": 1e-3}
            for i, name in enumerate(["a.png", "</script><b>.png"])
        ]
        overrides = [f"prior={prior}", f"optimizer.lr={lr}", "data=folder"]
        command = f"python train.py {' '.join(overrides)} name=run{n}"
        sweep.add(n, overrides, run(folder, f"run{n}-0000000{n}", command, rows, val_loss=0.1 * n))
    metrics = folder / "run2-00000002/metrics/version_0"
    metrics.mkdir(parents=True)
    (metrics / "metrics.csv").write_text("epoch,step,val/loss\n0,1,0.9\n1,2,0.7\n")
    return folder


@pytest.fixture(scope="module")
def page(runs: Path, photograph: Tensor) -> Path:
    points, photo, out = (runs.parent / name for name in ("points.csv", "photo.png", "report.html"))
    points.write_text(POINTS)
    write_image(photo, crop(photograph, 24, 32))
    options = {"--runs": runs, "--points": points, "--image": photo, "--qualities": "30,60", "--out": out}
    assert main([str(word) for pair in options.items() for word in pair]) == 0
    return out


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    return json.loads(found[1])


def test_a_folder_of_runs_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--runs", str(tmp_path / "nope"), "--no-pictures"])
    assert f"--runs {tmp_path / 'nope'}: no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweeps_axes_are_what_differs_and_what_came_of_it(runs: Path) -> None:
    sweep, trainings = gather.sweeps(gather.read_runs(runs), runs)
    assert (sweep["name"], sweep["jobs"]) == ("two", ["run0", "run1", "run2"])
    axes = {axis["label"]: axis["values"] for axis in sweep["axes"]}
    assert axes["prior"] == ["a", "b", "b"]
    assert axes["optimizer.lr"] == [0.1, 0.1, 0.2]
    assert axes["val_loss"] == [0, 0.1, 0.7]
    assert axes["psnr"] == [30.5, 31.5, None]
    assert set(axes) == {"prior", "optimizer.lr", "val_loss", "bpp", "psnr"}
    assert (trainings["name"], trainings["axes"]) == ("all trainings", sweep["axes"])


def test_runs_are_points_and_tables_too(runs: Path) -> None:
    read = gather.read_runs(runs)
    points = gather.run_points(read)
    assert [(p["codec"], p["dataset"], p["bpp"], p["psnr"]) for p in points] == [
        ("run0", "runs, data=folder", 0.5, 30.5),
        ("run1", "runs, data=folder", 1.5, 31.5),
    ]
    first = gather.per_image(read)[0]
    assert first["columns"] == ["name", "bytes", "bpp", "psnr", "mse"]
    assert first["rows"] == [["a.png", 100, 0.5, 30, 0.001], ["</script><b>.png", 100, 0.5, 31, 0.001]]
    assert gather.read_runs(runs / "none") == []


def test_evaluations_of_one_codec_are_a_curve_and_are_named_by_what_differs(here: Path) -> None:
    rows = [{"name": "a.png", "bytes": 100, "bpp": 0.5, "psnr": 30.0, "mse": 1e-3}]
    for n, (folder, options) in enumerate(
        [
            ("jpeg_kodak", "model=jpeg model.quality=20 data=kodak"),
            ("jpeg_kodak", "model=jpeg model.quality=50 data=kodak"),
            ("jpeg_kodak", "model=jpeg data=kodak data.limit=3"),
            ("wavelet-q20_on_kodak", "pretrained=wavelet quality=20 data=kodak"),
            ("wavelet-q50_on_kodak", "pretrained=wavelet quality=50 data=kodak"),
            ("best_on_kodak", "run=runs/first-00112233/checkpoints/best.ckpt data=kodak"),
            ("mine", "run=runs/first-00112233 data=kodak name=mine"),
        ]
    ):
        run(here / "runs", f"{folder}-0000000{n}", f"python evaluate.py {options}", rows)
    read = gather.read_runs(here / "runs")
    curves = {}
    for point in gather.run_points(read):
        curves.setdefault((point["codec"], point["dataset"]), []).append(point["setting"])
    assert curves == {
        ("jpeg", "runs, data=kodak"): ["model.quality=20", "model.quality=50"],
        ("jpeg", "runs, data=kodak, data.limit=3"): [""],
        ("wavelet", "runs, data=kodak"): ["quality=20", "quality=50"],
        ("first", "runs, data=kodak"): [""],
        ("mine", "runs, data=kodak"): [""],
    }
    assert sorted(table["name"] for table in gather.per_image(read)) == [
        *("first", "jpeg, data.limit=3", "jpeg, model.quality=20", "jpeg, model.quality=50", "mine"),
        *("wavelet, quality=20", "wavelet, quality=50"),
    ]


def curves_of_evaluations(folder: Path, *commands: str) -> list[list[str]]:
    """The commands, in groups that are each a curve."""
    rows = [{"name": "a.png", "bytes": 100, "bpp": 0.5, "psnr": 30.0, "mse": 1e-3}]
    for n, command in enumerate(commands):
        run(folder / "runs", f"evaluated-{n:08}", f"python evaluate.py {command}", rows)
    curves: dict[tuple[str, str], list[str]] = {}
    for read in sorted(gather.read_runs(folder / "runs"), key=lambda read: read["folder"]):
        curves.setdefault((read["codec"], read["dataset"]), []).append(commands[int(read["folder"].name[-8:])])
    return list(curves.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model=jpeg data=folder data.train.root=mine", "model=jpeg data=folder data.train.root=yours"),
        ("model=jpeg data=kodak", "model=jpeg data=kodak data.test.root=mine"),
        ("model=jpeg data=folder test_fraction=0.5", "model=jpeg data=folder"),
        ("model=jpeg data=folder data.train.test_root=mine", "model=jpeg data=folder"),
        ("model=jpeg data=tecnick data.test.url=http://a", "model=jpeg data=tecnick data.test.url=http://b"),
        ("model=jpeg data.split_seed=1", "model=jpeg"),
        ("pretrained=wavelet effort=0", "pretrained=wavelet effort=9"),
        ("run=runs/first steps=4", "run=runs/first"),
        ("run=runs/sw-aaaaaaaa", "run=runs/sw-bbbbbbbb"),
        ("run=runs/sw-aaaaaaaa", "run=other/sw"),
        ("model=jpeg name=a", "model=webp name=a"),
    ],
)
def test_what_is_no_curve_is_not_joined(one: str, other: str, here: Path) -> None:
    assert curves_of_evaluations(here, one, other) == [[one], [other]]


def test_what_moves_along_a_curve_or_changes_no_result_is_joined(here: Path) -> None:
    of_quality = [
        "pretrained=wavelet data=kodak quality=20 device=cpu",
        "pretrained=wavelet data=kodak quality=50 metrics=[dists] lpips=alex",
        "pretrained=wavelet data=kodak target_bpp=0.5 data.num_workers=0 data.cache=true save_files=true",
        "pretrained=wavelet data=kodak data.test.download=true",
    ]
    of_a_name = ["run=runs/sw-aaaaaaaa data=kodak name=mine", "run=runs/sw-bbbbbbbb data=kodak name=mine"]
    assert curves_of_evaluations(here, *of_quality, *of_a_name) == [of_quality, of_a_name]


def test_trainings_of_one_name_are_a_curve_and_those_of_one_command_are_told_by_their_folders(here: Path) -> None:
    rows = [{"name": "a.png", "bytes": 100, "bpp": 0.5, "psnr": 30.0, "mse": 1e-3}]
    for n, rate in enumerate(("0.1", "0.2", "0.2")):
        command = f"python train.py model=conv_baseline loss.rate_weight={rate} name=swept"
        run(here / "runs", f"swept-0000000{n}", command, rows, val_loss=0.1)
    read = gather.read_runs(here / "runs")
    assert {point["codec"] for point in gather.run_points(read)} == {"swept"}
    assert [run["name"] for run in read] == [
        "swept, loss.rate_weight=0.1",
        "swept, loss.rate_weight=0.2, swept-00000001",
        "swept, loss.rate_weight=0.2, swept-00000002",
    ]


def test_a_standard_codec_comes_as_near_as_it_can(photograph: Tensor) -> None:
    image = crop(photograph, 32, 48)
    sizes = [len(Jpeg(quality).encode(image)) for quality in Jpeg.qualities]
    for size in (0, 700, 900, 10**6):
        nearest = len(nearest_quality(Jpeg, image, size).encode(image))
        assert abs(nearest - size) == min(abs(other - size) for other in sizes)


def test_pictures_are_files_of_about_equal_size(here: Path, photograph: Tensor) -> None:
    write_image(here / "photo.png", crop(photograph, 60, 60))
    shown = compared(here / "photo.png", "diffusion_wavelet", [40], 48)
    assert (shown["name"], shown["width"], shown["height"]) == ("photo.png", 48, 48)
    own, *others = shown["rates"][0]["files"]
    assert [file["codec"] for file in others] == ["AVIF", "WebP", "JPEG"]
    assert all(file["source"].startswith(f"data:image/{file['codec'].lower()};base64,") for file in others)
    assert own["source"].startswith("data:image/webp;base64,")
    assert abs(others[1]["bytes"] - own["bytes"]) < 0.2 * own["bytes"]


def test_the_page_names_no_other_file_and_keeps_strange_names(page: Path) -> None:
    text = page.read_text("utf-8")
    own = text.replace(re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1], "")  # plotly's names its home
    assert "http" not in own.replace("http-equiv", "")
    assert not re.search(r"<(link|iframe)|src=\"(?!data:)", own)
    assert "default-src 'none'" in own
    data = data_of(page)
    assert data["tables"][0]["rows"][1][0] == "</script><b>.png"
    assert {point["kind"] for point in data["points"]} == {"measured", "published", "run"}
    assert [p["lossless"] for p in data["points"] if p["codec"] == "png"] == [True]


def test_a_folder_without_runs_gives_a_page_of_the_packages_points(here: Path) -> None:
    assert main(["--no-pictures"]) == 0
    data = data_of(here / "runs/report.html")
    assert not data["tables"]
    assert data["pictures"] is None
    assert any(point["codec"] == "diffusion_wavelet" for point in data["points"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--qualities", "high"), "--qualities high: allowed are numbers"),
        (("--crop", "0"), "--crop 0: allowed are integers from 1"),
        (("--image", "none.png"), "none.png: No such file or directory"),
        (("--model", "nothing"), "no pretrained model is called nothing"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    arguments: tuple[str, str], line: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not (here / "runs/report.html").exists()


# ---- in a browser

SCRIPT = """
const told = { errors: [] };
window.addEventListener("error", (event) => told.errors.push(event.message));
window.addEventListener("load", () => setTimeout(() => {
  const choose = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change")); };
  const drawn = () => $("chart").data.map((trace) => trace.name);
  const rows = (id) => [...$(id).querySelectorAll("tbody tr")].map((row) => row.children[0].textContent);
  const box = (name) => [...document.querySelectorAll("#codecs label")].find((label) => label.textContent === name);
  told.first = drawn();
  told.sets = [...$("dataset").options].map((option) => option.value);
  Plotly.Fx.hover("chart", [{ curveNumber: told.first.indexOf("jpeg"), pointNumber: 1 }]);
  told.hover = document.querySelector("#chart .hoverlayer").textContent;
  box("jpeg").querySelector("input").click();
  told.filtered = drawn();
  $("none").click();
  told.nothing = [$("chart").hidden, $("nothing").hidden];
  $("all").click();
  choose("metric", "lossless");
  told.lossless = $("chart").data[0].y;
  choose("dataset", "runs, data=folder");
  told.runs = drawn();
  told.captions = [$("left-caption").textContent, $("right-caption").textContent];
  choose("right", "original");
  told.original = $("right-caption").textContent;
  $("position").value = 25;
  $("position").dispatchEvent(new Event("input"));
  told.clip = $("over").style.clipPath;
  told.pictures = [$("over").naturalWidth, $("under").naturalHeight];
  told.images = rows("per-image");
  document.querySelectorAll("#per-image th button")[3].click();
  document.querySelectorAll("#per-image th button")[3].click();
  told.sorted = rows("per-image");
  $("called").value = "A.p";
  $("called").dispatchEvent(new Event("input"));
  told.called = rows("per-image");
  told.axes = $("parallel").data[0].dimensions.map((axis) => axis.label);
  told.jobs = rows("jobs");
  told.too_wide = document.documentElement.scrollWidth > window.innerWidth;
  document.title = JSON.stringify(told);
}, 500));
"""


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_draws_filters_compares_and_sorts(width: int, page: Path, here: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    text = page.read_text("utf-8").replace("<script id=", f"<script>{SCRIPT}</script><script id=")
    Path("driven.html").write_text(text, "utf-8")
    options = ("--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--dump-dom")
    done = subprocess.run(
        [
            *(browser, *options, f"--user-data-dir={here}/profile", f"--window-size={width},900"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", f"file://{here}/driven.html"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]
    told = json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert told["errors"] == []
    assert told["sets"] == ["kodak", "bsd300", "runs, data=folder"]
    assert {"jpeg", "diffusion_wavelet", "vtm"} <= set(told["first"])
    assert "jpeg" in told["hover"]
    assert "quality=50" in told["hover"]
    assert set(told["first"]) - set(told["filtered"]) == {"jpeg"}
    assert told["nothing"] == [True, False]
    assert told["lossless"] == ["png"]
    assert sorted(told["runs"]) == ["run0", "run1"]
    assert told["captions"][0].startswith("diffusion_wavelet: ")
    assert told["captions"][1].startswith("JPEG: ")
    assert told["original"] == "original"
    assert told["clip"] == "inset(0px 75% 0px 0px)"
    assert told["pictures"] == [32, 24]
    assert told["images"] == ["a.png", "</script><b>.png"]
    assert told["sorted"] == ["</script><b>.png", "a.png"]
    assert told["called"] == ["a.png"]
    assert told["axes"][:2] == ["prior", "optimizer.lr"]
    assert told["jobs"] == ["run0", "run1", "run2"]
    assert not told["too_wide"]
