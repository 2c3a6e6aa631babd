"""`make dashboard`: a W&B workspace, or a report, that compares runs; offline it says what it would create."""

import argparse
import os
import unicodedata
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import wandb
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from codec.errors import install
from codec.training.wandb_logger import RATE_DISTORTION, X_AXIS, wandb_mode

try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
except ImportError:
    raise SystemExit(f"error: a dashboard needs wandb-workspaces: {install('dashboard')}") from None

Panel = (
    wr.BarPlot
    | wr.CustomChart
    | wr.LinePlot
    | wr.MediaBrowser
    | wr.ParallelCoordinatesPlot
    | wr.RunComparer
    | wr.ScatterPlot
    | wr.WeavePanelSummaryTable
)

QUALITY = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}
CURVES = {"train/loss": "training loss", "val/loss": "validation loss", "val/bpp": "bpp", "val/psnr": "PSNR (dB)"}
RECONSTRUCTIONS = [f"val/reconstruction_{n}" for n in range(4)]  # as many as conf/callbacks/default.yaml shows
SETTINGS = ("choices.model", "quantization.bits", "loss.rate_weight", "optimizer.lr")
COLUMNS = ("run:displayName", "run:group", "run:jobType", "summary:test/bpp", "summary:test/psnr")

# A line a curve, whichever runs its points come from: every run of a sweep has one.
CHART = "quintet-rate-distortion"
CHART_SPEC = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "title": "${string:title}",
    "data": {"name": "wandb"},
    "transform": [{"filter": "isValid(datum['${field:y}'])"}],
    "mark": {"type": "line", "point": True, "tooltip": {"content": "data"}},
    "encoding": {
        "x": {"field": "${field:x}", "type": "quantitative"},
        "y": {"field": "${field:y}", "type": "quantitative", "scale": {"zero": False}},
        "color": {"field": "${field:curve}", "type": "nominal"},
    },
}


class Section(NamedTuple):
    """Panels of one subject; `text` introduces them in a report."""

    title: str
    text: str
    panels: list[Panel]


def sections(entity: str) -> list[Section]:
    """What the workspace and the report show; `entity` owns the chart that joins the points of a sweep."""
    joined = [
        wr.CustomChart(
            query={"id": {}, "name": {}, "summaryTable": {"tableKey": RATE_DISTORTION}},
            chart_name=f"{entity}/{CHART}",
            chart_fields={"x": "bpp", "y": quality, "curve": "curve"},
            chart_strings={"title": f"{title} over bpp, joined by codec and data set"},
        )
        for quality, title in QUALITY.items()
    ]
    points = [
        wr.ScatterPlot(
            title=f"{title} over bpp, a point a run",
            x=wr.SummaryMetric("test/bpp"),
            y=wr.SummaryMetric(f"test/{quality}"),
        )
        for quality, title in QUALITY.items()
    ]
    lossless = wr.BarPlot(title="bits per sample, for lossless codecs", metrics=[wr.Metric("test/bpsp")])
    curves = [wr.LinePlot(title=title, x=X_AXIS, y=[metric]) for metric, title in CURVES.items()]
    pictures = wr.MediaBrowser(
        title="original | decoded", media_keys=RECONSTRUCTIONS, grid_x_axis="step", grid_y_axis="run", mode="grid"
    )
    tested = wr.WeavePanelSummaryTable(table_name="test/images", layout=wr.Layout(w=24, h=12))
    outcomes = [wr.SummaryMetric("test/bpp"), wr.SummaryMetric("test/psnr")]
    axes = [wr.ParallelCoordinatesPlotColumn(metric) for metric in [*map(wr.Config, SETTINGS), *outcomes]]
    return [
        Section(
            "Rate and distortion",
            "Means over the test images, of whole files and of what they decode to.",
            [*joined, *points, lossless],
        ),
        Section("Training", "bpp is estimated here; that of files is above.", curves),
        Section(
            "Images",
            "Validation images as training goes on; all test images of all runs.",
            [pictures, tested],
        ),
        Section(
            "Settings",
            "What differs between the runs, and what came of it.",
            [wr.ParallelCoordinatesPlot(columns=axes), wr.RunComparer(diff_only="split")],
        ),
    ]


def of_group(group: str | None) -> str:
    """The filter expression that leaves the runs of `group`; None leaves all.

    All but letters and digits is escaped: the package rewrites = < > even within quotes.
    """
    if group is None:
        return ""
    value = "".join(sign if sign.isalnum() else f"\\U{ord(sign):08x}" for sign in group)
    return f'Metric("Group") == "{value}"'


def workspace(entity: str, project: str, group: str | None) -> ws.Workspace:
    """The panels beside the list of runs, newest first, to look around in."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=title_of(group),
        sections=[ws.Section(name=s.title, panels=s.panels, is_open=True) for s in sections(entity)],
        settings=ws.WorkspaceSettings(x_axis=X_AXIS, max_runs=50),
        runset_settings=ws.RunsetSettings(filters=of_group(group), pinned_columns=list(COLUMNS)),
    )


def report(entity: str, project: str, group: str | None) -> wr.Report:
    """The panels between headings and a line each, to be written into and shared."""
    blocks: list[wr.blocks.Block] = []
    for section in sections(entity):
        runs = wr.Runset(entity=entity, project=project, name="runs", filters=of_group(group))
        grid = wr.PanelGrid(runsets=[runs], panels=section.panels)
        blocks += [wr.H2(section.title), wr.P(section.text), grid]
    return wr.Report(entity=entity, project=project, title=title_of(group), blocks=blocks, width="fluid")


def title_of(group: str | None) -> str:
    """What W&B takes: at most 128 characters, and none that Unicode calls a symbol, of which = is one."""
    plain = "".join(" " if unicodedata.category(sign)[0] == "S" else sign for sign in group or "")
    return "Quintet" if group is None else f"Quintet: {plain}"[:128]


def describe(panel: Panel) -> str:
    """One line: what kind of panel it is, and which logged names it shows."""
    match panel:
        case wr.CustomChart():
            fields, table = panel.chart_fields, panel.query["summaryTable"]["tableKey"]
            return f"line chart  {fields['y']} over {fields['x']}, a line a {fields['curve']}, of table {table}"
        case wr.ScatterPlot():
            return f"scatter     {panel.y.name} over {panel.x.name}"
        case wr.LinePlot():
            return f"curves      {', '.join(panel.y)} over {panel.x}"
        case wr.BarPlot():
            return f"bars        {', '.join(metric.name for metric in panel.metrics)}"
        case wr.MediaBrowser():
            return f"images      {', '.join(panel.media_keys)}, {panel.grid_x_axis} by {panel.grid_y_axis}"
        case wr.WeavePanelSummaryTable():
            return f"table       {panel.table_name}, the rows of all runs"
        case wr.ParallelCoordinatesPlot():
            return f"parallel    {', '.join(column.metric.name for column in panel.columns)}"
        case wr.RunComparer():
            return "comparison  of configs and summaries, side by side, where they differ"


def plan(kind: str, entity: str | None, project: str, group: str | None) -> str:
    """What would be created, for the terminal."""
    runs = "all runs" if group is None else f"the runs of group {group!r}"
    lines = [f'would create the {kind} "{title_of(group)}" in {entity or "your W&B account"}/{project}, of {runs}:']
    for section in sections(entity or "you"):
        lines += ["", section.title, *(f"  {describe(panel)}" for panel in section.panels)]
    return "\n".join(lines)


def create(kind: str, entity: str | None, project: str, group: str | None) -> str:
    """Saves the workspace or report and returns its address. Raises ValueError where there are no such runs."""
    api = wandb.Api()
    entity = entity or api.default_entity
    only = {} if group is None else {"group": group}
    try:
        known = len(api.runs(f"{entity}/{project}", filters=only, per_page=1))
    except (ValueError, wandb.Error, WandbApiFailedError) as error:
        raise ValueError(f"no project {entity}/{project} for this W&B key: {error}") from error
    if not known:
        raise ValueError(f"{entity}/{project} has no runs{'' if group is None else f' of group {group!r}'}")
    try:
        api.create_custom_chart(entity, CHART, "Rate and distortion", "vega2", "private", CHART_SPEC)
    except (wandb.Error, WandbApiFailedError) as error:
        answer = getattr(error, "response", None)
        if getattr(answer, "http_status", None) != HTTPStatus.CONFLICT:  # which is an earlier dashboard's
            raise ValueError(f"the chart {entity}/{CHART} cannot be made: {error}") from error
        print(f"{entity}/{CHART} is there already, and used as it is")
    made = (report if kind == "report" else workspace)(entity, project, group).save()
    return made.url


def main(arguments: Sequence[str] | None = None) -> None:
    """Creates and prints the address, or prints the plan where there is no W&B key or WANDB_MODE=offline."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dashboard", description=__doc__)
    parser.add_argument("--entity", help="the W&B user or team; default: that of the API key")
    parser.add_argument("--project", default="quintet", help="default: quintet")
    parser.add_argument("--group", help="only the runs of this group, e.g. of one sweep")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--workspace", dest="kind", action="store_const", const="workspace", help="the default")
    kinds.add_argument(
        "--report", dest="kind", action="store_const", const="report", help="one to write into and share"
    )
    options = parser.parse_args(arguments)
    chosen = (options.kind or "workspace", options.entity, options.project, options.group)
    os.environ.setdefault("WANDB_SILENT", "true")
    wandb.setup()  # reads that before there is anything to say
    try:
        if wandb_mode() in ("offline", "disabled"):
            print(f"{plan(*chosen)}\n\nW&B is offline: after `wandb login`, the same command creates it.")
        else:
            print(create(*chosen))
    except (ValueError, wandb.Error, WandbApiFailedError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")


if __name__ == "__main__":
    main()
