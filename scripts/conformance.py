"""Run the conformance suite, of texts and of images, and write its tables into docs/models.md."""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "conformance")]

if TYPE_CHECKING:
    from outcomes import Outcome

DOCUMENT = ROOT / "docs" / "models.md"
BEGIN = "<!-- made by `make conformance`: change tests/conformance instead -->"
BEGIN_IMAGES = "<!-- made by `make conformance` of images: change tests/conformance instead -->"
LIBRARIES = ("transformers", "sentence-transformers", "torch", "openvino", "pillow")


def run(name: str) -> tuple[str, "Mapping[str, Outcome]"]:
    """Return a kind's name and outcomes; in a process that has one core to itself."""
    import torch  # noqa: PLC0415  # the first process starts others and needs none of it
    import transformers  # noqa: PLC0415
    from image_kinds import IMAGE_KINDS  # noqa: PLC0415
    from image_outcomes import image_outcomes  # noqa: PLC0415
    from kinds import KINDS  # noqa: PLC0415
    from outcomes import Outcome, Verdict, outcomes  # noqa: PLC0415

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        try:
            if name in IMAGE_KINDS:
                return name, image_outcomes(IMAGE_KINDS[name], folder)
            return name, outcomes(KINDS[name], folder)
        except Exception as failure:  # noqa: BLE001  # of a library: the other kinds go on
            said = " ".join(f"{type(failure).__name__}: {failure}".split())
            return name, {"harness": Outcome(verdict=Verdict.WRONG, line=said)}


def run_all(names: list[str]) -> "dict[str, Mapping[str, Outcome]]":
    """Run kinds on all cores, and print what each came to."""
    results = {}
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        for name, found in pool.map(run, names):
            results[name] = found
            told = (f"{e}: {o.verdict} {o.line or f'{o.difference:.0e}'}" for e, o in found.items())
            print(f"{name} | {' | '.join(told)}", flush=True)
    return results


def main() -> None:
    """Run all kinds, or those that match, and write the tables all of whose kinds have run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help='patterns, such as "Bert, *"')
    patterns = parser.parse_args().kinds
    import image_results  # noqa: PLC0415  # it imports transformers
    import results as text_results  # noqa: PLC0415
    from image_kinds import IMAGE_KINDS  # noqa: PLC0415
    from kinds import KINDS  # noqa: PLC0415
    from outcomes import Verdict  # noqa: PLC0415

    from scripts.document import between  # noqa: PLC0415
    from scripts.ending import clean_up_on_sigterm  # noqa: PLC0415

    clean_up_on_sigterm()  # processes of a pool would wait for work for ever
    started = time.monotonic()
    known = [*KINDS, *IMAGE_KINDS]
    names = [n for n in known if not patterns or any(fnmatch(n, p) for p in patterns)]
    results = run_all(names)
    wrong = [n for n in results if any(o.verdict is Verdict.WRONG for o in results[n].values())]
    took = f"{time.monotonic() - started:.0f} s on {len(os.sched_getaffinity(0))} cores"
    print(f"{len(results)} kinds, {len(wrong)} silently wrong, {took}")
    if wrong:
        sys.exit(f"silently wrong: {'; '.join(wrong)}")
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    head = f"`make conformance`, {datetime.now(UTC):%Y-%m-%d}, {took}, {libraries}."
    for kinds, begin, render in (
        (KINDS, BEGIN, text_results.render),
        (IMAGE_KINDS, BEGIN_IMAGES, image_results.render),
    ):
        found = {name: results[name] for name in kinds if name in results}
        if len(found) == len(kinds):  # a table of some of them would say too little
            content = between(DOCUMENT, render(head, found), begin=begin)
            DOCUMENT.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
