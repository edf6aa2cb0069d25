"""The command line: parse, call, print.

One function per command, in one file per theme; `app` joins them. Everything heavy is
imported inside the command that needs it, so that ``--help`` answers at once.
Messages and progress go to the standard error, results to the standard output;
``--json`` prints one record per line, for pipelines.

Exit status: 0 done; 1 something failed, such as some of the images or a download;
2 wrong usage or input; 130 after Ctrl-C.
"""

from napari_sam.cli.app import app, main

__all__ = ["app", "main"]
