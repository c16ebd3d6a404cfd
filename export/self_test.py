"""Golden answers for bundles that were exported without.

    python -m cnerta.export.self_test BUNDLE

keeps what the bundle answers now: to be done where it is known to work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.self_test import SELF_TEST_FILE, record_self_test

__all__ = ["main"]


def main(bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")]) -> None:
    """Write a bundle's golden answers."""
    record_self_test(Model.load(bundle, device="cpu", check=False))
    typer.echo(f"wrote {bundle / SELF_TEST_FILE}")


if __name__ == "__main__":
    typer.run(main)
