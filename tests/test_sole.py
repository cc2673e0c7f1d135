"""Files of one service: who has them, what a second one is told, and what a kill leaves behind."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

import pytest
from serving import make_settings

from app.errors import StartupError
from app.main import compose
from app.server.sole import kept_files, sole

POSTGRES = {"database_url": "postgresql://u:p@127.0.0.1:1/x"}
REDIS = {"redis_url": "redis://127.0.0.1:1"}
# Takes the file, says so, starts another program, and waits for its end.
HOLDER = """
import subprocess, sys
from pathlib import Path
from app.errors import StartupError
from app.server.sole import sole
sys.stdin.readline()
try:
    with sole([Path(sys.argv[1])]):
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"], **nowhere)
        print("holds", flush=True)
        sys.stdin.readline()
except StartupError as refused:
    print(refused, flush=True)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a file when it gets a line, and gives it back with the next."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"features": "none"}, []),
        ({"jobs": "off"}, ["ml-api.sqlite3"]),
        ({"jobs": "on"}, ["ml-api.sqlite3", "valkey"]),
        ({"jobs": "on", **REDIS}, ["ml-api.sqlite3"]),
        ({"jobs": "on", **POSTGRES}, ["valkey"]),
        ({"jobs": "on", **POSTGRES, **REDIS}, []),
    ],
)
def test_what_is_kept_is_sqlites_file_and_the_own_valkeys_folder(
    tmp_path: Path, settings: dict[str, str], names: list[str]
) -> None:
    read = make_settings(tmp_path, **settings)
    kept = kept_files(compose(read)[0], read)
    assert [path.name for path in kept] == names
    assert all(path.parent == tmp_path / "data" for path in kept)


def test_a_database_elsewhere_is_kept_where_it_is(tmp_path: Path) -> None:
    read = make_settings(tmp_path, jobs="off", database_url=f"sqlite:///{tmp_path}/x.db")
    assert kept_files(compose(read)[0], read) == [tmp_path / "x.db"]


def test_a_second_one_is_refused_with_the_firsts_id_until_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.db"
    with holder(path) as first:
        go_on(first)
        assert said(first) == "holds\n"
        with pytest.raises(StartupError, match=rf"x\.db .*\(process {first.pid}\)"), sole([path]):
            pass
        go_on(first)
        assert first.wait(20) == 0
        with sole([path]):
            pass


def test_kill_9_frees_it_though_its_children_live_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with holder(path) as first, holder(path) as second:
        go_on(first)
        assert said(first) == "holds\n"
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        assert (tmp_path / "x.db.lock").read_text().split()[0] == str(first.pid)
        go_on(second)
        assert said(second) == "holds\n"


def test_of_two_at_once_one_is_refused_by_the_others_id_not_by_that_of_one_that_was_killed(
    tmp_path: Path,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for turn in range(2):
        path = tmp_path / f"{turn}.db"
        (tmp_path / f"{turn}.db.lock").write_text(f"{gone.pid} {gethostname()}")
        with holder(path) as one, holder(path) as other:
            threads = [threading.Thread(target=go_on, args=[each]) for each in (one, other)]
            for thread in threads:
                thread.start()
            answers = {said(one): other.pid, said(other): one.pid}
            for thread in threads:
                thread.join()
        assert "holds\n" in answers
        (refusal,) = answers.keys() - {"holds\n"}
        assert f"(process {answers[refusal]})" in refusal


def test_a_folder_that_cant_be_written_is_logged_and_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("where the folder should be")
    with caplog.at_level(logging.WARNING), sole([tmp_path / "file" / "x.db"]):
        assert "not_locked" in caplog.messages
