"""What tests of resumed W&B runs share: a server on this machine that keeps what W&B's clients send it."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROJECT = {"id": "p", "name": "quintet", "entity": {"id": "e", "name": "me"}}


@dataclass
class StoredRun:
    """A run as the server has it: the lines of each streamed file, and every set of its properties."""

    files: dict[str, list[str]] = field(default_factory=dict)
    upserts: list[dict] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict]:
        return [json.loads(line) for line in self.files.get("wandb-history.jsonl", [])]

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Step and value of every logged value, in the order they came."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]


@dataclass
class WandbServer:
    """Its address and the runs it has, by id."""

    url: str
    runs: dict[str, StoredRun]

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0123456789" * 4, "no_proxy": "127.0.0.1"}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Keeps runs, their histories and summaries; pictures and tables are taken and forgotten, artifacts refused."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    httpd.runs = {}
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield WandbServer(httpd.url, httpd.runs)
    finally:
        httpd.shutdown()
        httpd.server_close()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # named by http.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/graphql":
            asked = json.loads(body)
            self._reply(self._answer(asked["query"], asked.get("variables") or {}))
        elif self.path.endswith("/file_stream"):
            self._stream(json.loads(body))
            self._reply({})
        else:
            self._reply({})

    def do_PUT(self) -> None:
        self.do_POST()

    def do_GET(self) -> None:
        self.do_POST()

    def _answer(self, query: str, given: dict) -> dict:
        runs = self.server.runs
        if "upsertBucket" in query:
            run = runs.setdefault(given["name"], StoredRun())
            run.upserts.append(given)
            bucket = {
                "id": "b",
                "name": given["name"],
                "displayName": given.get("displayName"),
                "config": given.get("config"),
                "project": PROJECT,
            }
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": len(run.upserts) == 1}}}
        if "RunResumeStatus" in query:
            run = runs.get(given["name"])
            bucket = None if run is None else _resume_status(given["name"], run)
            return {"data": {"model": {**PROJECT, "bucket": bucket}}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.url}/upload"} for name in given["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        if "viewer" in query:
            return {"data": {"viewer": {"id": "u", "entity": "me", "username": "me", "teams": {"edges": []}}}}
        return {"data": None, "errors": [{"message": "this server cannot do that"}]}

    def _stream(self, sent: dict) -> None:
        run = self.server.runs.setdefault(self.path.split("/")[-2], StoredRun())
        for name, part in (sent.get("files") or {}).items():
            lines = run.files.setdefault(name, [])
            lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if sent.get("complete"):
            run.exits.append(sent.get("exitcode"))

    def _reply(self, answer: dict) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # a client that was killed
            self.close_connection = True


def _resume_status(name: str, run: StoredRun) -> dict:
    counts = {file: len(lines) for file, lines in run.files.items()}
    return {
        "id": "b",
        "name": name,
        "displayName": name,
        "config": next((given["config"] for given in reversed(run.upserts) if given.get("config")), "{}"),
        "wandbConfig": '{"t": 1}',
        "summaryMetrics": (run.files.get("wandb-summary.json") or ["{}"])[-1],
        "historyLineCount": counts.get("wandb-history.jsonl", 0),
        "eventsLineCount": counts.get("wandb-events.jsonl", 0),
        "logLineCount": counts.get("output.log", 0),
        "historyTail": json.dumps(run.files.get("wandb-history.jsonl", [])[-1:]),
        "eventsTail": "[]",
        "tags": [],
    }
