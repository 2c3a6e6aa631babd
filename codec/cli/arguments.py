"""How `codec` takes its command line: of what is misspelt it says what comes nearest, with that command's usage."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from codec import bitstream
from codec.errors import DISTRIBUTION, did_you_mean


class CommandParser(argparse.ArgumentParser):
    """Arguments of one command."""

    def parse_known_args(  # what argparse has a parser called by, for a command as for the program
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        given = list(sys.argv[1:] if args is None else args)
        self._check(given)
        options, unknown = super().parse_known_args(list(self._with_values(given)), namespace)
        if unknown:
            self.error(f"{' '.join(unknown)}: more than this command takes")
        return options, unknown

    @property
    def option_names(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _check(self, given: list[str]) -> None:
        """Ends the program on the first option that there is not, before something else is found missing."""
        known = self.option_names
        for text in takewhile("--".__ne__, given):
            name = text.partition("=")[0]
            long = name.startswith("--") and any(whole.startswith(name) for whole in known)  # may be shortened
            if _looks_like_an_option(text) and not long and name[:2] not in known:
                self.error(f"{name}: there is no such option{did_you_mean(name, known)}")

    def _with_values(self, given: list[str]) -> Iterable[str]:
        """As one argument an option and a value that begins with a minus, which argparse takes for an option."""
        named = {name: action for action in self._actions for name in action.option_strings}
        rest = iter(given)
        for text in rest:
            value = next(rest, None) if text in named and named[text].nargs != 0 else None
            if value is not None and re.match(r"-[\d.]", value):
                yield f"{text}={value}"
            else:
                yield from [text] if value is None else [text, value]


class ProgramParser(CommandParser):
    """Arguments of the program, which begin with a command: `commands` adds those."""

    def add_commands(self) -> "argparse._SubParsersAction[CommandParser]":
        self.commands = self.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
        return self.commands

    def _check(self, given: list[str]) -> None:
        commands = self.commands.choices
        first = given[0].partition("=")[0] if given else "--help"
        if first in self.option_names or first in commands:
            return
        if _looks_like_an_option(first):
            parsers = (self, *commands.values())
            known = dict.fromkeys(name for parser in parsers for name in parser.option_names)
            meant = "" if first in known else did_you_mean(first, known)
            self.error(f"{first}: a command goes first, one of {', '.join(commands)}{meant}")
        self.error(f"{first}: allowed are {', '.join(commands)}{did_you_mean(first, commands)}")


class Version(argparse.Action):
    """Prints the package's version and the format's."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version  # which takes as long as all else

        try:
            installed = version(DISTRIBUTION)
        except PackageNotFoundError:  # a copy that runs where it lies
            installed = "not installed"
        print(f"{DISTRIBUTION} {installed}, format version {bitstream.VERSION}")
        parser.exit()


def _looks_like_an_option(text: str) -> bool:
    return bool(re.match(r"--?[^\d.\s-]", text))
