"""`make dashboard`: what it says offline, what it would send, and what it makes of a server's answers."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from wandb_files import run_without_key

from experiments.dashboard import describe, main, report, sections, title_of, workspace

GROUP = "model.quality=20,50 'data=[a]' <x> \"é\" \\"


def serialised(model: object) -> dict:
    """What the package sends to W&B."""
    return json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))


@pytest.mark.parametrize("kind", ["workspace", "report"])
def test_offline_it_says_what_it_would_create(kind: str, capsys: pytest.CaptureFixture) -> None:
    main([f"--{kind}", "--entity", "me", "--group", "model.quality=20,50"])
    said, errors = capsys.readouterr()
    assert errors == ""
    first = said.splitlines()[0]
    assert first.startswith(f'would create the {kind} "Quintet: model.quality 20,50" in me/quintet, of the runs of')
    for line in (
        "  scatter     test/psnr over test/bpp",
        "  bars        test/bpsp",
        "  curves      val/loss over trainer/global_step",
        "  table       test/images, the rows of all runs",
    ):
        assert line in said.splitlines()
    assert "wandb login" in said.splitlines()[-1]


def test_the_workspace_holds_every_panel_and_only_runs_of_the_group() -> None:
    spec = serialised(workspace("me", "quintet", GROUP)._to_model())["section"]
    sent = spec["panelBankConfig"]["sections"]
    assert [(s["name"], len(s["panels"])) for s in sent] == [(s.title, len(s.panels)) for s in sections("me")]
    (runs,) = spec["runSets"]
    (only,) = runs["filters"]["filters"]
    assert (only["key"], only["op"], only["value"]) == ({"section": "run", "name": "group"}, "=", GROUP)
    assert spec["settings"]["xAxis"] == "trainer/global_step"
    kinds = [panel["viewType"] for section in sent for panel in section["panels"]]
    assert {"Vega2", "Scatter Plot", "Bar Chart", "Run History Line Plot", "Media Browser"} <= set(kinds)
    scatter = sent[0]["panels"][kinds.index("Scatter Plot")]["config"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:test/bpp", "summary:test/psnr")
    table = sent[0]["panels"][0]["config"]["userQuery"]["queryFields"][0]["fields"][-1]
    assert table["args"][0]["value"] == "test/rate_distortion"


def test_the_report_holds_a_heading_a_line_and_the_panels_of_every_section() -> None:
    blocks = serialised(report("", "quintet", GROUP)._to_model())["blocks"]  # an entity would be asked for online
    grids = [block["metadata"] for block in blocks if block["type"] == "panel-grid"]
    panels = [len(grid["panelBankSectionConfig"]["panels"]) for grid in grids]
    assert panels == [len(section.panels) for section in sections("")]
    assert all(grid["runSets"][0]["filters"]["filters"][0]["value"] == GROUP for grid in grids)
    headings = [block["children"][0]["text"] for block in blocks if block["type"] == "heading"]
    assert headings == [section.title for section in sections("")]


def test_without_a_group_nothing_is_filtered() -> None:
    (runs,) = serialised(workspace("me", "quintet", None)._to_model())["section"]["runSets"]
    assert runs["filters"]["filters"] == []
    assert title_of(None) == "Quintet"


def test_every_panel_can_be_described() -> None:
    for section in sections("me"):
        assert all(describe(panel) for panel in section.panels)


# ---- online: a server on this machine answers the few questions that are asked


USER = {"id": "1", "name": "me", "username": "me", "email": "", "entity": "me", "admin": False, "flags": "{}"}
VIEWER = {**USER, "teams": {"edges": []}, "apiKeys": {"edges": []}}

EXISTS = (409, {"errors": [{"message": "a chart of that name exists"}], "data": None})


def with_runs(count: int) -> dict:
    """The answer for a project with so many runs."""
    page = {"edges": [], "pageInfo": {"endCursor": "", "hasNextPage": False}}
    return {"runCount": count, "runs": {"totalCount": count, **page}}


@pytest.fixture
def server() -> Iterator[Callable]:
    """Starts a server with a project (None: without) that says this of a chart; gives its address and its views."""
    running: list[ThreadingHTTPServer] = []

    def start(project: dict | None, of_chart: tuple[int, dict] = EXISTS) -> SimpleNamespace:
        views: list[dict] = []

        def answer(query: str, variables: dict) -> tuple[int, dict]:
            if "upsertView" in query:
                views.append(variables)
                return 200, {"data": {"upsertView": {"view": {"id": "1", "name": "nw-abc-v"}, "inserted": True}}}
            if "createCustomChart" in query:
                return of_chart
            return 200, {"data": {"viewer": VIEWER, "project": project}}

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"] or 0))
                asked = json.loads(sent) if self.path == "/graphql" else {"query": ""}
                status, answered = answer(asked["query"], asked.get("variables"))
                data = json.dumps(answered).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        running.append(httpd)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        return SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}", views=views)

    yield start
    for httpd in running:
        httpd.shutdown()
        httpd.server_close()


def run_online(url: str, folder: Path, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Exit status, and the lines of stdout and stderr."""
    key = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0123456789" * 4, "no_proxy": "127.0.0.1"}
    command = ("-m", "experiments.dashboard", *arguments)
    done = run_without_key(*command, cwd=folder, PYTHONPATH=str(ROOT), **key)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_online_it_saves_the_workspace_and_says_where(server: Callable, tmp_path: Path) -> None:
    answers = server(with_runs(1))
    status, said, errors = run_online(answers.url, tmp_path, "--group", "a=1,2")
    assert (status, errors) == (0, [])
    kept, address = said  # the chart of an earlier dashboard is kept
    assert kept == "me/quintet-rate-distortion is there already, and used as it is"
    assert address == f"{answers.url}/me/quintet?nw=abc"
    (view,) = answers.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "quintet", "Quintet: a 1,2")
    assert json.loads(view["spec"])["section"]["runSets"][0]["filters"]["filters"][0]["value"] == "a=1,2"


@pytest.mark.parametrize(
    ("project", "arguments", "message"),
    [
        (None, ["--project", "nope"], "error: no project me/nope for this W&B key: "),
        (with_runs(0), ["--group", "g"], "error: me/quintet has no runs of group 'g'"),
    ],
)
def test_what_is_not_there_is_one_line(
    project: dict | None, arguments: list[str], message: str, server: Callable, tmp_path: Path
) -> None:
    answers = server(project)
    status, said, errors = run_online(answers.url, tmp_path, *arguments)
    assert (status, said, len(errors)) == (2, [], 1)
    assert errors[0].startswith(message)
    assert not answers.views


def test_a_chart_that_cannot_be_made_is_an_error_and_nothing_is_saved(server: Callable, tmp_path: Path) -> None:
    answers = server(with_runs(1), (403, {"errors": [{"message": "permission denied"}], "data": None}))
    status, said, errors = run_online(answers.url, tmp_path)
    assert (status, said, len(errors)) == (2, [], 1)
    assert errors[0].startswith("error: the chart me/quintet-rate-distortion cannot be made: ")
    assert "permission denied" in errors[0]
    assert not answers.views
