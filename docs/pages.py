"""mkdocs hooks: the pages that are made of other files, and links that leave docs/.

README is the home page. Tables, model cards and source files become pages at their own paths as soon as one links
to them, so that in the repository and in the site the same links lead to the same texts.
"""

import ast
import contextlib
import io
import json
import os
import posixpath
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from unittest import mock

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from codec.cli.main import _parser

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
BADGE = re.compile(r"^\[!\[.*\n\n", re.MULTILINE)  # it leads to a place that only GitHub has
# Where what a link names stands in the site, if not at its own path.
PLACES = {
    "README.md": "index.md",
    "conf": "reference/config.md",
    "codec/bitstream.py": "reference/file_format.md",
    "docs": "index.md",
    "docs/notebooks": "notebooks/compress_and_compare.md",
}
SHOWN_AS_TEXT = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".lock": "text", "": "text"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and whatever these and the written ones link to."""
    generated = {
        "index.md": BADGE.sub("", (ROOT / "README.md").read_text(encoding="utf-8")),
        "reference/cli.md": "\n".join(command_lines()),
        "reference/config.md": "\n".join(config_groups()),
        "reference/file_format.md": file_format(),
    }
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        generated[f"notebooks/{notebook.stem}.md"] = "\n".join(notebook_page(notebook))
    for uri, text in generated.items():
        files.append(File.generated(config, uri, content=text))
    _repository_path.cache_clear()
    todo = [(_repository_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    while todo:
        path, text = todo.pop()
        for link, _ in LINK.findall(text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
            uri = place(target)
            if files.get_file_from_path(uri) is not None or not (ROOT / target).exists():
                continue  # a dead link is for mkdocs to refuse
            file = _made_of(target, uri, config)
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
            if file.is_documentation_page():
                todo.append((_repository_path(uri), file.content_string))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turns the links of the repository into those of the site."""
    path = _repository_path(page.file.src_uri)

    def moved(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
        here = posixpath.relpath(place(target), posixpath.dirname(page.file.src_uri) or ".")
        return here + (link[2] or "")

    return LINK.sub(moved, markdown)


def place(path: str) -> str:
    """Where in the site a file or folder of the repository stands."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    if (ROOT / path).is_dir():
        return f"{path}/index.md"
    return f"{path}.md" if Path(path).suffix in SHOWN_AS_TEXT else path


@cache
def _repository_path(uri: str) -> str:
    named = {there: here for here, there in PLACES.items() if (ROOT / here).is_file()}
    if uri in named:
        return named[uri]
    if (ROOT / "docs" / uri).exists() or uri.startswith(("reference/", "notebooks/")):
        return f"docs/{uri}"
    return uri.removesuffix(".md") if not (ROOT / uri).exists() else uri


def _made_of(path: str, uri: str, config: MkDocsConfig) -> File:
    source = ROOT / path
    if source.is_dir():
        names = sorted(child.name for child in source.iterdir() if child.suffix == ".md")
        listed = "\n".join(f"- [{name.removesuffix('.md')}]({name})" for name in names)
        return File.generated(config, uri, content=f"# {path}\n\n{listed}\n")
    if uri == path and source.suffix != ".md":
        return File.generated(config, uri, abs_src_path=str(source))
    text = source.read_text(encoding="utf-8")
    if source.suffix != ".md":
        text = f"# {path}\n\n````{SHOWN_AS_TEXT[source.suffix]}\n{text}````\n"
    return File.generated(config, uri, content=text)


def command_lines() -> Iterator[str]:
    """What `--help` says of the command `codec`, of its commands, and of every module that is a command."""
    yield "# Command line\n\nWhat `--help` says. `train.py`, `evaluate.py` take the [config groups](config.md).\n"
    with mock.patch.dict(os.environ, COLUMNS="88"):
        codec = _parser()
        yield _help("codec", codec.format_help())
        (commands,) = (action.choices for action in codec._actions if action.choices)
        for name, command in commands.items():
            yield _help(f"codec {name}", command.format_help())
        for module in modules():
            printed = io.StringIO()
            with (
                mock.patch.object(sys, "argv", [module, "--help"]),
                contextlib.redirect_stdout(printed),
                contextlib.suppress(SystemExit),
            ):
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            yield _help(f"python -m {module}", printed.getvalue())


def modules() -> list[str]:
    """The modules that are commands for users: `make setup` and a benchmark run those that are not."""
    files = [*(ROOT / "experiments").rglob("*.py"), ROOT / "codec/sweeps/status.py"]
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for file in files
        if '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")
    ]
    return sorted(set(names) - {"experiments.install", "experiments.bench.compressai_worker"})


def _help(command: str, text: str) -> str:
    return f"## {command}\n\n```text\n{text.rstrip()}\n```\n"


def config_groups() -> Iterator[str]:
    """Every file of conf/, under a heading of its own."""
    yield "# Config groups\n\nEvery file of `conf/`: `GROUP=NAME` chooses one, `KEY=VALUE` changes a value in it.\n"
    conf = ROOT / "conf"
    yield "\n## train.py and evaluate.py\n"
    for name in ("train", "evaluate"):
        yield _config(f"python {name}.py", name, (conf / f"{name}.yaml"))
    for group in sorted({file.parent for file in conf.rglob("*.yaml")} - {conf}):
        name = group.relative_to(conf).as_posix()
        yield f"\n## {name}\n"
        for file in sorted(group.glob("*.yaml")):
            yield _config(f"{name}={file.stem}", f"{name}-{file.stem}".replace("/", "-"), file)


def _config(title: str, anchor: str, file: Path) -> str:
    return f"### {title} {{#{anchor}}}\n\n```yaml\n{file.read_text(encoding='utf-8').rstrip()}\n```\n"


def notebook_page(file: Path) -> Iterator[str]:
    """A notebook's text, code, and the outputs that are kept in it."""
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        yield f"{source}\n" if cell["cell_type"] == "markdown" else f"```python\n{source}\n```\n"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                yield f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">\n'
            else:
                yield f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```\n"


def file_format() -> str:
    """The byte layout, as the modules that write it state it."""
    text = (
        "# File format\n\nA file has one header, its sections, and a checksum. Golden files in the tests hold "
        "every byte of this. The sections of a lossless file are [described apart](../lossless_format.md).\n"
    )
    for title, module in (("Header and sections", "bitstream"), ("Metadata", "metadata")):
        source = (ROOT / f"codec/{module}.py").read_text(encoding="utf-8")
        text += f"\n## {title}\n\n{ast.get_docstring(ast.parse(source))}\n"
    return text
