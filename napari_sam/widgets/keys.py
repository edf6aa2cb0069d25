"""The keys of the plugin: one table for buttons, bindings and the reference page.

Digits, Enter and Escape are bound to our own layers of prompts only, since napari's
layers use them; the letters are free in napari and work whichever layer is active.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Command: TypeAlias = Literal[
    "keep",
    "reject",
    "other_kind",
    "tool",
    "open",
    "ask_again",
    "paint",
    "hover",
    "answer_1",
    "answer_2",
    "answer_3",
    "undo",
    "redo",
    "delete",
    "merge",
    "split",
    "follow",
    "next_doubtful",
]


@dataclass(frozen=True, slots=True)
class Key:
    """A command and its keys.

    Parameters
    ----------
    command : str
    everywhere : str
        napari's name of the key that works with every layer; empty if there is none.
    on_prompts : str
        Of a further one that works with our layers of prompts.
    what : str
        For people.
    """

    command: Command
    everywhere: str
    on_prompts: str
    what: str

    @property
    def label(self) -> str:
        """The key as it is written on a button."""
        return _written(self.on_prompts or self.everywhere)

    @property
    def labels(self) -> str:
        """All keys of the command, as they are written in a table."""
        return ", ".join(_written(k) for k in (self.on_prompts, self.everywhere) if k)


KEYS = (
    Key("keep", "K", "Enter", "keep the masks shown as objects"),
    Key("reject", "J", "Escape", "drop the prompts"),
    Key("other_kind", "N", "", "switch between positive and negative points"),
    Key("tool", "W", "", "switch between points and boxes"),
    Key("open", "G", "", "take up the object under the mouse again"),
    Key(
        "ask_again",
        "Shift-G",
        "",
        "ask for the object under the mouse again, with its prompts",
    ),
    Key("paint", "Shift-E", "", "paint the object under the mouse; again: done"),
    Key("hover", "H", "", "while held: show what a click would give"),
    Key("answer_1", "", "1", "first answer to an ambiguous click"),
    Key("answer_2", "", "2", "second answer"),
    Key("answer_3", "", "3", "third answer"),
    Key("split", "Y", "", "split the object under the mouse at points or a line"),
    Key("merge", "U", "", "unite two objects: press it on one, then on the other"),
    Key("follow", "Shift-K", "", "follow the object through the stack"),
    Key("next_doubtful", "Shift-N", "", "go to the next slice that is worth a look"),
    Key("delete", "Q", "", "delete the object under the mouse"),
    Key("undo", "", "Control-Z", "undo the last step, whatever it was"),
    Key("redo", "", "Control-Shift-Z", "make it again"),
)


def _written(key: str) -> str:
    return {"Escape": "Esc"}.get(key, key).replace("Control", "Ctrl")


def keys_of(command: Command) -> str:
    """Return how all keys of a command are written."""
    return next(each.labels for each in KEYS if each.command == command)


def key_of(command: Command) -> str:
    """Return how the key of a command is written."""
    return next(each.label for each in KEYS if each.command == command)
