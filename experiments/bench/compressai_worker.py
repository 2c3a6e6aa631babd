"""CompressAI's scale hyperprior, timed in a Python of its own, which needs torch and CompressAI alone.

Started by experiments.bench.turns with the file of an image. Every line of standard input is a task in JSON,
`{"do": "encode"}`, `{"do": "decode"}` or `{"do": "train", "batch": 8, "side": 128, "steps": 4}`, and is answered
by a line `{"cpu": s, "wall": s, "bytes": n}`. The model is bmshj2018_hyperprior(quality=3) (N = 128, M = 192) with
random weights, which cost its networks what trained ones do. Its latent is rounded to 0, though, so that its file
is smaller than a trained one's: with a latent 30 times as large, two thirds of which were not 0, it took as long.
"""

import json
import sys
import time
from collections.abc import Callable

import compressai
import torch
import torch.nn.functional as F
from compressai.losses import RateDistortionLoss
from compressai.optimizers import net_aux_optimizer
from compressai.zoo import bmshj2018_hyperprior
from torch import Tensor


class Worker:
    """What is timed; `image` is uint8 `[3, H, W]`."""

    def __init__(self, image: Tensor) -> None:
        torch.manual_seed(0)
        self.image = image
        self.coded = bmshj2018_hyperprior(quality=3).eval()
        self.coded.update()
        self.trained = bmshj2018_hyperprior(quality=3).train()
        kinds = {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "Adam", "lr": 1e-3}}
        self.optimizers = net_aux_optimizer(self.trained, kinds)
        self.loss = RateDistortionLoss(lmbda=0.013)

    @torch.inference_mode()
    def encode(self) -> int:
        # Padded to what its networks divide by, as CompressAI's examples do.
        below, beside = (-side % 64 for side in self.image.shape[-2:])
        x = F.pad(self.image[None].float() / 255, (0, beside, 0, below), mode="replicate")
        self.file = self.coded.compress(x)
        return sum(len(string) for (string,) in self.file["strings"])

    @torch.inference_mode()
    def decode(self) -> int:
        x_hat = self.coded.decompress(**self.file)["x_hat"]
        return (x_hat[0].clamp(0, 1) * 255).round().to(torch.uint8).numel()

    def train(self, batch: int, side: int, steps: int) -> int:
        """The loop of CompressAI's examples/train.py, on batches that are there already."""
        for _ in range(steps):
            x = torch.rand(batch, 3, side, side)
            for optimizer in self.optimizers.values():
                optimizer.zero_grad()
            self.loss(self.trained(x), x)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
            self.optimizers["net"].step()
            self.trained.aux_loss().backward()
            self.optimizers["aux"].step()
        return 0


def main() -> None:
    torch.set_num_threads(1)
    worker = Worker(torch.load(sys.argv[1], weights_only=True))
    print(json.dumps({"version": compressai.__version__}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        function: Callable[..., int] = getattr(worker, task.pop("do"))
        cpu, wall = time.process_time(), time.perf_counter()
        count = function(**task)
        seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({**seconds, "bytes": count}), flush=True)


if __name__ == "__main__":
    main()
