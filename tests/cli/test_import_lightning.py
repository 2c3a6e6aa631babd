"""What `codec` imports: each command only what it needs, since imports are most of what a small image costs."""

import json
from pathlib import Path

from cli_files import picture, tiny_checkpoint
from conftest import ROOT, run_python

# Without SciPy, whose matrix products numba looks for.
HEAVY = ("hydra", "matplotlib", "omegaconf", "skimage", "torchvision", "wandb")


def test_coding_imports_no_package_that_it_does_not_use(here: Path) -> None:
    """Lightning imports all of torchmetrics, and that what it finds installed."""
    picture("a.png")
    tiny_checkpoint(here)
    script = f"""
import gc, json, sys
from codec.cli import main
options = ["--checkpoint", "tiny.safetensors"]
status = main(["compress", "a.png", "a.qnt", *options]) or main(["decompress", "a.qnt", "b.png", *options])
found = [name for name in {HEAVY} if name in sys.modules]
import scipy, torchvision
print(json.dumps([status, found, "lightning" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 0]))
"""
    done = run_python("-c", script, cwd=here, PYTHONPATH=str(ROOT))
    assert json.loads(done.stdout.splitlines()[-1]) == [0, [], True, True, True]


def test_lightning_is_imported_also_where_it_cannot_do_without(here: Path) -> None:
    script = """
import sys
from codec.cli.import_lightning import import_lightning
import_lightning(hidden=("fsspec", "scipy"))
import lightning, scipy
assert issubclass(lightning.LightningModule, sys.modules["torch"].nn.Module)
assert "torchvision" in sys.modules
"""
    run_python("-c", script, cwd=here, PYTHONPATH=str(ROOT))
