"""`make demo`: train a codec for some minutes, then compare its files with JPEG and WebP of the same size."""

import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.progress import track

from codec.baselines import Jpeg, WebP
from codec.checkpoint import load_codec
from codec.metrics import mean_of_rows
from codec.places import conf_folder, entry_command
from codec.results import table, write_results
from codec.runs import RunFolder
from experiments.comparison import Panel, caption, difference, nearest, save_comparison

FOLDER = Path("demo")


def main() -> None:
    """Leaves the compressed files, the decoded PNGs, per-image results and comparison.png in `demo/`.

    Arguments are more overrides for train.py.
    """
    overrides = ["experiment=demo", f"runs={FOLDER}", "test=false", "logger=csv", *sys.argv[1:]]
    trained = subprocess.run([sys.executable, *entry_command("train"), *overrides], check=False)
    if trained.returncode:
        sys.exit(trained.returncode)  # train.py has said why
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides)
    run = RunFolder.of(config).path
    data = instantiate(config.data)
    images = list(data.test_dataloader())

    ours = load_codec(run)
    ours.decode(ours.encode(images[0].image))  # the first call compiles the arithmetic coder
    rows: dict[str, list[dict]] = {"conv_baseline": [], "JPEG": [], "WebP": []}
    panels = []
    for item in track(images, "coding", transient=True):
        ours.keep_files_in = FOLDER / "conv_baseline"
        row = ours.measure(item)
        rows["conv_baseline"].append(row)
        jpeg = nearest([Jpeg(quality) for quality in range(1, 96)], item, row["bytes"])
        webp = nearest([WebP(quality) for quality in range(0, 101, 2)], item, row["bytes"])
        for name, codec in [("JPEG", jpeg), ("WebP", webp)]:
            codec.keep_files_in = FOLDER / name.lower()
            rows[name].append(codec.measure(item))
        decoded = ours.decode(ours.encode(item.image))
        panels.append(
            [
                Panel(item.image, f"{item.name}, 24 bpp"),
                Panel(decoded, caption(row)),
                Panel(difference(decoded, item.image), f"{row['bpp']:.3f} bpp, {row['psnr']:.2f} dB"),
                Panel(jpeg.decode(jpeg.encode(item.image)), caption(rows["JPEG"][-1])),
            ]
        )
    picture = FOLDER / "comparison.png"
    save_comparison(panels, ["original", "conv_baseline", "its difference × 4", "JPEG, nearest size"], picture)
    for name, of_codec in rows.items():
        write_results(FOLDER / name.lower(), of_codec, {"codec": name})
    names = ", ".join(item.name for item in images)
    print(f"\nmeans over {names}, none of which was trained on:\n")
    print(table({name: mean_of_rows(of_codec) for name, of_codec in rows.items()}))
    print(f"\npicture                   {picture}")
    print(f"files, decoded PNGs       {FOLDER}/conv_baseline  {FOLDER}/jpeg  {FOLDER}/webp")
    print(f"trained codec             {run}")
    print(f"\ntry it on a photo:        .venv/bin/codec compress photo.jpg photo.qnt --checkpoint {run}")


if __name__ == "__main__":
    main()
