"""Measures a codec - trained, pretrained or a standard one - on the real files it writes."""

import sys
from typing import Any

from omegaconf import DictConfig

from codec.checkpoint import load_codec, load_pretrained
from codec.errors import ConfigError
from codec.further_metrics import Lpips, further_metrics
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.training.config import Builder
from codec.training.evaluation import choose_device, evaluate_into
from codec.training.faults import quieten
from codec.training.loggers import log_config, shut_down, where_to_look
from codec.training.provenance import commit
from codec.training.results import table
from codec.training.run_folder import RunFolder, evaluation_folder
from codec.training.run_state import Recorder


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Does what the command line does with this config; returns what results.json holds. Raises ConfigError."""
    run = evaluation_folder(config)
    with Recorder(run.path) as record:
        return measure_named(config, run, record)


def measure_named(config: DictConfig, run: RunFolder, record: Recorder) -> dict[str, Any]:
    """Measures the codec that `config` names in the folder of `run`; returns what results.json holds."""
    quieten()
    with Builder(config) as build:
        build.seed()
        codec = named_codec(config, build)
        data = build.part("data")
        if codec is not None and config.steps is not None:
            build.attempt("steps", lambda: set_steps(codec, config.steps))
        if codec is not None and config.quality is not None and config.pretrained is None:
            build.attempt("quality", lambda: set_quality(codec, config.quality))
        if codec is not None and config.target_bpp is not None:
            build.attempt("target_bpp", lambda: check_target(codec, config.target_bpp))
        if codec is not None and config.effort is not None:
            build.attempt("effort", lambda: set_effort(codec, config.effort))
        device = build.attempt("device", lambda: choose_device(config.device))
        further = build.attempt("metrics", lambda: further_metrics(config.metrics)) or {}
        if config.lpips is not None:
            further["lpips"] = build.attempt("lpips", lambda: Lpips(config.lpips))
        if isinstance(codec, LearnedCodec) and codec.image_channels < config.data.channels:
            build.faults.append(
                ConfigError("data.channels", config.data.channels, "this codec is greyscale, add data.channels=1")
            )
    with Builder(config) as build:
        build.attempt("data", data.prepare_data)
        build.attempt("data", lambda: data.setup("test"))
    with Builder(config) as build:
        config.folder = str(run.path)
        loggers = build.group("logger")
    try:
        run.begin(config)
        record.begin()
        log_config(loggers, config, codec)
        about = {"codec": run.path.name, "commit": commit()}
        if isinstance(codec, LearnedCodec):
            about["weights"] = codec.fingerprint().hex()
        if config.effort is not None:
            about["effort"] = config.effort
        if config.target_bpp is not None:
            about["target_bpp"] = config.target_bpp
        results = evaluate_into(
            run.path,
            codec,
            data,
            about,
            device,
            loggers,
            save_files=config.save_files,
            further=further,
            target_bpp=config.target_bpp,
        )
        print(f"\n{table({run.path.name: results})}\n\nresults: {run.path}")
        print(where_to_look(loggers) or "")
        return results
    finally:
        shut_down(loggers, exit_code=int(sys.exc_info()[0] is not None))


def named_codec(config: DictConfig, build: Builder) -> ImageCodec | None:
    """The trained, pretrained or standard codec that `config` names; None where that is a fault of `build`."""
    if config.run is not None:
        return build.attempt("run", lambda: load_codec(config.run))
    if config.pretrained is not None:
        return build.attempt("pretrained", lambda: load_pretrained(config.pretrained, config.quality))
    return build.codec("model")


def set_steps(codec: ImageCodec, steps: int) -> None:
    """Has a codec that decodes by sampling do so in `steps` steps."""
    if "steps" not in codec.decode_options:
        raise ConfigError("steps", steps, "only a run of model.decoder=iterative decodes in steps")
    codec.set_decoding(steps=steps)


def set_quality(codec: ImageCodec, quality: float) -> None:
    """Has a learned codec that takes a quality write its files at that one."""
    if codec.qualities is None or not isinstance(codec, LearnedCodec):
        raise ConfigError(
            "quality",
            quality,
            "only a run of model=comcnn_reccnn or bottleneck.variable_rate=true takes it, and pretrained=NAME; "
            "JPEG and the like have model.quality",
        )
    codec.set_quality(quality)
    if codec.quality != quality:
        raise ConfigError("quality", quality, f"a file holds {codec.quality:g}, the nearest that it can")


def check_target(codec: ImageCodec, target_bpp: float) -> None:
    """Refuses to search where a codec has no list of qualities."""
    if codec.quality_grid is None:
        raise ConfigError(
            "target_bpp",
            target_bpp,
            "only what writes at many qualities takes it: a run of model=comcnn_reccnn or "
            "bottleneck.variable_rate=true, pretrained=NAME of one, and jpeg, webp, avif, jpegxl",
        )


def set_effort(codec: ImageCodec, effort: int) -> None:
    """Has a learned codec that can choose its levels put so much work into them."""
    if codec.efforts is None:
        raise ConfigError(
            "effort",
            effort,
            "only a learned codec with a quantised latent takes it, not comcnn_reccnn or lossless_unet; "
            "JPEG XL has model.effort",
        )
    codec.set_effort(effort)
